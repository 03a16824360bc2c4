"""The extractors: torchvision's import, the data set's classifier, files that are refused."""

import dataclasses
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.metrics import features


@pytest.fixture(scope="module")
def train(digits):
    return digits[0]


@pytest.fixture(scope="module")
def test_set(digits):
    return digits[1]


def synthetic(n: int, channels: int, side: int, split: str, seed: int = 0) -> ImageSet:
    """Images whose class is which half is brighter."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 100, (n, channels, side, side), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, :, : side // 2] += np.uint8(100 * label)
        image[:, :, side // 2 :] += np.uint8(100 * (1 - label))
    return ImageSet(
        "halves",
        split,
        np.arange(n),
        labels,
        np.array([], np.int64),
        f"{split}{n}{side}{seed}",
        channels,
        side,
        images,
    )


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_torch_fidelity_imports_in_a_fresh_process_whether_or_not_torchvisions_operators_fit():
    run = run_python(
        "import ddpm_eval.features, torchvision, torch_fidelity; torch_fidelity.calculate_metrics"
    )
    assert run.returncode == 0, run.stderr


def test_classifier_reports_the_accuracy_it_has(digits_classifier, train, test_set):
    logits = np.concatenate([logits for _, logits in digits_classifier.extract(test_set, batch_size=77)])
    assert digits_classifier.test_accuracy == np.mean(logits.argmax(axis=1) == test_set.labels)
    assert digits_classifier.test_accuracy >= 0.97
    assert digits_classifier.n_test == len(test_set) == 360


def test_classifier_is_cached_deterministic_and_leaves_the_global_generator_alone(
    digits_classifier, train, test_set, tmp_path
):
    state = torch.get_rng_state()
    stages = []
    again = features.classifier(
        train, test_set, tmp_path, progress=lambda stage, done, total: stages.append(stage)
    )
    assert set(stages) == {"classifier"}
    assert again.weights_digest == digits_classifier.weights_digest
    assert again.weights_path.name == digits_classifier.weights_path.name
    stages.clear()
    cached = features.classifier(
        train, test_set, tmp_path, progress=lambda stage, done, total: stages.append(stage)
    )
    assert not stages
    assert cached.weights_digest == again.weights_digest
    assert torch.equal(torch.get_rng_state(), state)
    other_data = dataclasses.replace(train, digest="another")
    assert features.classifier_path(other_data, test_set, tmp_path, seed=0) != cached.weights_path
    assert features.classifier_path(train, test_set, tmp_path, seed=1) != cached.weights_path


def test_features_do_not_depend_on_the_batch(digits_classifier, test_set):
    # float32 sums of up to 64 * 9 products in another order: relative error below 576 * 2^-24 = 3.4e-5 of the
    # largest
    whole, parts = (
        np.concatenate([f for f, _ in digits_classifier.extract(test_set, batch_size=size)])
        for size in (360, 7)
    )
    assert whole.shape == (360, features.FEATURE_WIDTH) and whole.dtype == np.float32
    np.testing.assert_allclose(parts, whole, rtol=0, atol=4e-5 * np.abs(whole).max())


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 8), (1, 28), (3, 32)])
def test_classifier_of_any_small_image_learns(channels, side, tmp_path):
    extractor = features.classifier(
        synthetic(128, channels, side, "train"), synthetic(64, channels, side, "test", 1), tmp_path
    )
    assert extractor.name == "halves-classifier"
    assert extractor.test_accuracy == 1.0


@pytest.mark.parametrize(
    ("data_set", "name"),
    [
        ("fashion-mnist", "fashion-mnist"),
        ("npz:/home/me/My Images.npz", "my-images"),
        ("folder@64:cats/", "cats"),
    ],
)
def test_classifier_is_named_after_its_data_not_its_place(data_set, name):
    assert features.classifier_name(data_set) == f"{name}-classifier"


def test_grayscale_and_equal_channels_are_the_same_image(digits_classifier, test_set):
    gray = torch.from_numpy(test_set.take(np.arange(5)))
    for ours, theirs in zip(
        digits_classifier.module(gray), digits_classifier.module(gray.expand(-1, 3, -1, -1)), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_unsuitable_images_are_refused(digits_classifier):
    coloured = torch.randint(0, 255, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with pytest.raises(ValueError, match="the images are coloured"):
        digits_classifier.module(coloured)
    with pytest.raises(
        ValueError, match="images are 9x9 pixels, but the classifier digits-classifier was trained on 8x8"
    ):
        digits_classifier.module(torch.zeros(2, 1, 9, 9, dtype=torch.uint8))
    with pytest.raises(ValueError, match="uint8"):
        digits_classifier.module(torch.zeros(2, 1, 8, 8))


def test_a_classifier_needs_labels(train, test_set, tmp_path):
    with pytest.raises(ValueError, match="digits has no labels, which a classifier needs"):
        features.classifier(dataclasses.replace(train, labels=None), test_set, tmp_path)
    with pytest.raises(ValueError, match="too few to train a classifier on"):
        features.classifier(
            dataclasses.replace(train, labels=np.zeros(len(train), np.int64)), test_set, tmp_path
        )
    assert not list(tmp_path.iterdir())


def test_classifier_files_that_are_none_are_refused(digits_classifier, tmp_path):
    whole = digits_classifier.weights_path.read_bytes()
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"truncated\.safetensors is not a readable safetensors file"):
        features.load_classifier(truncated)
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(2)}, foreign)
    with pytest.raises(ValueError, match="holds weights of another network"):
        features.load_classifier(foreign)
    old = tmp_path / "old.safetensors"
    facts = {
        "facts": json.dumps({**digits_classifier.module.facts.__dict__, "recipe": 0}),
        "kind": "dataset-classifier",
    }
    safetensors.torch.save_file({"w": torch.zeros(2)}, old, facts)
    with pytest.raises(ValueError, match="is a classifier of recipe 0, this"):
        features.load_classifier(old)


class Program:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_inception_files_that_are_none_are_refused_and_nothing_in_them_is_executed(tmp_path):
    with pytest.raises(ValueError, match="there is no weights file"):
        features.inception(tmp_path / "absent.pth")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth holds weights of another network than Inception v3"):
        features.inception(tmp_path / "other.pth")
    torch.save({"model": {"conv.weight": torch.zeros(3)}}, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match="holds no table of named tensors"):
        features.inception(tmp_path / "checkpoint.pth")
    (tmp_path / "program.pth").write_bytes(pickle.dumps(Program(tmp_path / "executed")))
    with pytest.raises(ValueError, match="is not a plain file of weights"):
        features.inception(tmp_path / "program.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.slow
def test_every_layout_of_the_inception_file_gives_the_same_network(inception_weights, tmp_path):
    state = torch.load(inception_weights, weights_only=True)
    without_counters = {name: value for name, value in state.items() if "num_batches_tracked" not in name}
    torch.save(without_counters, tmp_path / "pytorch-fid.pth")
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    expected = features.inception(inception_weights)
    assert (expected.name, expected.width, expected.is_inception) == ("inception-v3-compat", 2048, True)
    for name in ("pytorch-fid.pth", "weights.safetensors"):
        assert features.inception(tmp_path / name).weights_digest == expected.weights_digest
    other = state | {"fc.bias": state["fc.bias"] + 1}
    torch.save(other, tmp_path / "other.pth")
    assert features.inception(tmp_path / "other.pth").weights_digest != expected.weights_digest


def test_download_verifies_the_checksum_and_says_how_to_do_without(tmp_path, monkeypatch):
    (tmp_path / "served").mkdir()
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()[:8]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    for name, right in (
        (f"weights-{digest}.pth", True),
        ("weights-00000000.pth", False),
        ("absent-00000000.pth", False),
    ):
        if not name.startswith("absent"):
            (tmp_path / "served" / name).write_bytes(content)
        monkeypatch.setattr(features, "URL_INCEPTION_V3", (tmp_path / "served" / name).as_uri())
        if right:
            assert features.download_inception().read_bytes() == content
        else:
            with pytest.raises(
                ValueError, match=r"the Inception weights cannot be downloaded .* --inception-weights FILE"
            ):
                features.download_inception()
    assert [path.name for path in (tmp_path / "home").rglob("*.pth")] == [f"weights-{digest}.pth"]
