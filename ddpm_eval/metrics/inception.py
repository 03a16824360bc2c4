"""torch-fidelity's Inception network, the only one whose numbers are called FID and Inception score.

Its weights come from a file in torch-fidelity's or pytorch-fid's layout, or are downloaded once. A file is
read without executing pickled code, whatever it claims to be.
"""

import re
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpm_eval.interchange.weight_files import read_tensors
from ddpm_eval.metrics.features import INCEPTION, Extractor, parameter_digest
from ddpm_eval.metrics.fidelity import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from ddpm_eval.runtime import ALONE, Runtime, global_seed
from ddpm_eval.training.foreign_files import check_name

FEATURE_LAYER = "2048"
FEATURE_WIDTH = 2048
BATCH_SIZE = 64
"""Images per pass, which use about 1 GB."""


def load_inception(
    weights: Path | None = None, *, logits_layer: str = "logits_unbiased", runtime: Runtime = ALONE
) -> Extractor:
    """Load the Inception network.

    Args:
        weights: a .pth or .safetensors file in torch-fidelity's or pytorch-fid's layout; None uses
            `download_inception`.
        logits_layer: ``logits_unbiased`` (without the last layer's bias, as the paper's score) or ``logits``.
        runtime: where the network runs.

    Raises:
        ValueError: if the file is missing, cannot be downloaded, or holds another network.
    """
    path = download_inception() if weights is None else weights
    if path.is_file() and path.name == _file_name():
        check_name(path)
    network = _build(read_tensors(path), path, logits_layer).to(runtime.device)
    return Extractor(
        name=INCEPTION,
        weights_path=path,
        weights_digest=parameter_digest(network.state_dict()),
        feature_layer=FEATURE_LAYER,
        logits_layer=logits_layer,
        test_accuracy=float("nan"),
        n_test=0,
        channels=3,
        width=FEATURE_WIDTH,
        resize="299x299, bilinear as in TensorFlow 1",
        batch_size=BATCH_SIZE,
        module=network,
        runtime=runtime,
    )


def download_inception() -> Path:
    """Return torch-fidelity's weights file in torch's cache; it is downloaded first if it is not there.

    Raises:
        ValueError: if it cannot be downloaded, or its checksum is wrong.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / _file_name()
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    checksum = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    assert checksum, "torch-fidelity's weights are no longer named by their checksum"
    try:
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=checksum[1], progress=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"the Inception weights cannot be downloaded ({error}): get {URL_INCEPTION_V3} by other means "
            "and give it as --inception-weights FILE"
        ) from None
    return path


def _file_name() -> str:
    """Return the name of torch-fidelity's file, which holds its checksum."""
    return URL_INCEPTION_V3.rsplit("/", 1)[1]


def _build(weights: dict[str, Tensor], path: Path, logits_layer: str) -> nn.Module:
    """Build the network from a clean copy of the weights: torch-fidelity unpickles its file."""
    state = {name: value for name, value in weights.items() if not name.startswith("AuxLogits.")}
    for name in [n for n in state if n.endswith("running_mean")]:  # counters that pytorch-fid's file lacks
        state.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    with tempfile.TemporaryDirectory() as folder, global_seed(0, torch.device("cpu")):
        clean = Path(folder) / "inception.pth"
        torch.save(state, clean)
        try:
            network: nn.Module = FeatureExtractorInceptionV3(
                INCEPTION, [FEATURE_LAYER, logits_layer], feature_extractor_weights_path=str(clean)
            )
        except RuntimeError as error:
            raise ValueError(
                f"{path} holds weights of another network than Inception v3 (FID's, of 2015-12-05, with 1008 "
                f"classes): {first_difference(error)}"
            ) from None
    return network


def first_difference(error: Exception) -> str:
    """Return the first thing that torch says does not fit, or the only line of another error."""
    lines = [line.strip() for line in str(error).splitlines()]
    return lines[1][:160] if len(lines) > 1 else lines[0][:160]
