"""Fixtures that find real data beside the repository; tests that need it skip where there is none."""

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ddpm_eval.data.datasets import load
from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.spec import DataSpec

if TYPE_CHECKING:
    from ddpm_eval.metrics.features import Extractor

# One thread is the fastest for tiny networks, and gives each worker of pytest-xdist a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has them ignore the signal that some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def unpacked_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with cifar10.npz and MNIST/raw, unpacked once per session."""
    script = SHARED_DATA / "unpack.py"
    if not script.exists():
        pytest.skip(f"real CIFAR-10 and MNIST are not in {SHARED_DATA}")
    folder = tmp_path_factory.mktemp("real-data")
    subprocess.run([sys.executable, str(script), str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def cifar10_npz(unpacked_data: Path) -> Path:
    """Real CIFAR-10: x_train, y_train, x_test, y_test, inexact_train, inexact_test."""
    return unpacked_data / "cifar10.npz"


@pytest.fixture(scope="session")
def mnist_root(unpacked_data: Path) -> Path:
    """Root for torchvision.datasets.MNIST with the official files."""
    return unpacked_data


@pytest.fixture(scope="session")
def digits() -> tuple[ImageSet, ImageSet]:
    """The embedded digits: training and test split."""
    spec = DataSpec(name="digits", channels=1, side=8)
    return load(spec, "train"), load(spec, "test")


@pytest.fixture(scope="session")
def digits_classifier(
    digits: tuple[ImageSet, ImageSet], tmp_path_factory: pytest.TempPathFactory
) -> "Extractor":
    """The digits' classifier, trained once per session."""
    from ddpm_eval.metrics.classifier import load_or_train_classifier  # torch-fidelity takes seconds

    return load_or_train_classifier(*digits, tmp_path_factory.mktemp("classifiers"))


@pytest.fixture
def module_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """A function that writes a module into the current folder, the test's own, and returns its name."""
    name = f"module_of_{tmp_path.name}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        return name

    yield write
    sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of FID's Inception in torch-fidelity's layout, from a seeded initialisation: not the
    trained network.
    """
    import torch

    from ddpm_eval.metrics.features import INCEPTION
    from ddpm_eval.metrics.fidelity import FeatureExtractorInceptionV3
    from ddpm_eval.runtime import global_seed

    with global_seed(0, torch.device("cpu")), pytest.MonkeyPatch.context() as patch:
        module = "torch_fidelity.feature_extractor_inceptionv3"
        patch.setattr(f"{module}.load_state_dict_from_url", lambda url, progress: None)
        patch.setattr(f"{module}.FeatureExtractorInceptionV3.load_state_dict", lambda network, state: None)
        network = FeatureExtractorInceptionV3(INCEPTION, ["2048"])
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of torch-fidelity's CLIP at small sizes, from a seeded initialisation: an archive of the
    authors' kind.
    """
    import torch

    from ddpm_eval.metrics.embeddings import module_tree  # it imports torch-fidelity as must be
    from ddpm_eval.runtime import global_seed

    from torch_fidelity.feature_extractor_clip import CLIPVisual  # isort: skip

    with global_seed(0, torch.device("cpu")):
        state = CLIPVisual(24, 32, 2, 64, 16).state_dict() | {"text_projection": torch.randn(24, 24)}
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    with warnings.catch_warnings(action="ignore"):  # of TorchScript
        torch.jit.script(module_tree(state)).save(path)
    return path
