"""DINOv2 and CLIP, torch-fidelity's extractors beside Inception, whose numbers have names of their own.

The Frechet distance in DINOv2's features is FD-DINOv2. The kernel distance in CLIP's is like CMMD, with its
Gaussian kernel of width 10, but unbiased, and of features as CLIP returns them: CMMD scales them to length 1.
Neither network has classes, so that there is no score. Names of networks are torch-fidelity's.

Sources: Stein et al., "Exposing flaws of generative model evaluation metrics and their unfair treatment of
diffusion models", NeurIPS 2023 (FD-DINOv2, of dinov2-vit-l-14); Jayasumana et al., "Rethinking FID: Towards a
Better Evaluation Metric for Image Generation", CVPR 2024 (CMMD, of clip-vit-l-14-336px).
"""

import tempfile
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpm_eval.interchange.weight_files import read_tensors
from ddpm_eval.metrics.features import Extractor, parameter_digest
from ddpm_eval.metrics.fidelity import (
    CLIP_MODELS,
    CLIP_URLS,
    DINOV2_MODELS,
    FeatureExtractorBase,
    FeatureExtractorCLIP,
    FeatureExtractorDinoV2,
)
from ddpm_eval.metrics.inception import first_difference
from ddpm_eval.runtime import ALONE, Runtime, global_seed

EMBEDDINGS = (*DINOV2_MODELS, *CLIP_MODELS)
"""The networks' names."""
CMMD_WIDTH = 10.0
"""Of CLIP's Gaussian kernel."""
DINOV2_REPOSITORY = "facebookresearch/dinov2"
BATCH_SIZE = 32
OPTION = "--features-weights FILE"


def load_embedding(name: str, weights: Path | None = None, *, runtime: Runtime = ALONE) -> Extractor:
    """Load DINOv2 or CLIP.

    Args:
        name: one of `EMBEDDINGS`.
        weights: a .pth or .safetensors file of named tensors in the authors' layout, or, of CLIP, the
            authors' own archive; None lets torch-fidelity download them, or take them from torch's cache.
        runtime: where the network runs.

    Raises:
        ValueError: if there is no such network, or its weights are missing, cannot be downloaded, or are of
            another network.
    """
    if name not in EMBEDDINGS:
        raise ValueError(f"there is no network {name!r} ({', '.join(EMBEDDINGS)} are)")
    if weights is not None and not weights.is_file():
        raise ValueError(f"there is no weights file {weights}")
    with global_seed(0, torch.device("cpu")), warnings.catch_warnings(action="ignore"):  # of their own code
        network = (_load_dinov2 if name in DINOV2_MODELS else _load_clip)(name, weights)
        width = network(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))[0].shape[1]
    network = network.to(runtime.device)
    side = getattr(network, "resolution", FeatureExtractorDinoV2.INPUT_IMAGE_SIZE)
    return Extractor(
        name=name,
        weights_path=weights or cached_weights(name),
        weights_digest=parameter_digest(network.state_dict()),
        feature_layer=network.features_list[0],
        logits_layer="",
        test_accuracy=float("nan"),
        n_test=0,
        channels=3,
        width=width,
        resize=f"{side} pixels, bilinear as in TensorFlow 1",
        batch_size=BATCH_SIZE,
        module=_WithoutLogits(network),
        runtime=runtime,
        kernel_width=None if name in DINOV2_MODELS else CMMD_WIDTH,
    )


def cached_weights(name: str) -> Path:
    """Return where torch keeps a network's downloaded weights."""
    if name in DINOV2_MODELS:
        file = f"{DINOV2_MODELS[name]}_pretrain.pth"
    else:
        file = f"{name}-{CLIP_MODELS[name]['hash']}.pt"
    return Path(torch.hub.get_dir()) / "checkpoints" / file


class DinoV2OfFile(FeatureExtractorDinoV2):
    """torch-fidelity's DINOv2 with the weights of a file, which it cannot read itself.

    Args:
        name: as registered with torch-fidelity.
        features_list: layers to return.
        state: the network's named tensors.
    """

    def __init__(self, name: str, features_list: Sequence[str], state: Mapping[str, Tensor]) -> None:
        FeatureExtractorBase.__init__(self, name, features_list)
        self.feature_extractor_internal_dtype = torch.float32
        self.model = torch.hub.load(DINOV2_REPOSITORY, DINOV2_MODELS[name], pretrained=False)
        self.model.load_state_dict(state)
        self.requires_grad_(False).eval()


class _WithoutLogits(nn.Module):
    """A network of one layer as `Extractor` calls it: features, and logits of no classes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        (features,) = self.network(images)
        return features, features[:, :0]


def _load_dinov2(name: str, weights: Path | None) -> FeatureExtractorDinoV2:
    state = None if weights is None else read_tensors(weights)
    try:
        if state is None:
            return FeatureExtractorDinoV2(name, ["dinov2"])
        return DinoV2OfFile(name, ["dinov2"], state)
    except (OSError, RuntimeError) as error:
        if weights is not None and "state_dict" in str(error):
            raise ValueError(
                f"{weights} holds other weights than {name}'s: {first_difference(error)}"
            ) from None
        folder = Path(torch.hub.get_dir()) / "facebookresearch_dinov2_main"
        raise ValueError(
            f"DINOv2 cannot be downloaded ({first_difference(error)}): unpack "
            f"github.com/{DINOV2_REPOSITORY} as {folder} and put its weights at {cached_weights(name)} (or "
            f"name them by {OPTION})"
        ) from None


def _load_clip(name: str, weights: Path | None) -> FeatureExtractorCLIP:
    try:
        if weights is None:
            return FeatureExtractorCLIP(name, ["clip"])
        if _is_archive_of_the_authors(weights):
            return FeatureExtractorCLIP(name, ["clip"], feature_extractor_weights_path=str(weights))
    except (OSError, RuntimeError) as error:
        if weights is not None:
            raise ValueError(
                f"{weights} holds other weights than CLIP's: {first_difference(error)}"
            ) from None
        raise ValueError(
            f"CLIP cannot be downloaded ({first_difference(error)}): put {CLIP_URLS[name]} at "
            f"{cached_weights(name)}, or name the file by {OPTION}"
        ) from None
    return _clip_of_tensors(name, read_tensors(weights), weights)


def _clip_of_tensors(name: str, state: Mapping[str, Tensor], path: Path) -> FeatureExtractorCLIP:
    """Build CLIP from named tensors: torch-fidelity reads nothing but the authors' kind of archive."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "clip.pt"
        torch.jit.script(module_tree(state)).save(archive)
        try:
            return FeatureExtractorCLIP(name, ["clip"], feature_extractor_weights_path=str(archive))
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{path} holds other weights than CLIP's: {first_difference(error)}") from None


def module_tree(state: Mapping[str, Tensor]) -> nn.Module:
    """Return a module that holds tensors under their dotted names, and does nothing."""
    root = nn.Module()
    for name, value in state.items():
        *parents, leaf = name.split(".")
        node = root
        for parent in parents:
            if not hasattr(node, parent):
                node.add_module(parent, nn.Module())
            node = getattr(node, parent)
        node.register_buffer(leaf, value)
    return root


def _is_archive_of_the_authors(path: Path) -> bool:
    """Tell whether a file is a TorchScript archive, whose loading executes nothing of Python."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(entry.endswith("constants.pkl") for entry in archive.namelist())
