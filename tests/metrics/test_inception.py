"""The Inception network: the layouts of its file, files that are refused, the download."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ddpm_eval.metrics import inception
from ddpm_eval.metrics.inception import download_inception, load_inception


class Program:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_inception_files_that_are_none_are_refused_and_nothing_in_them_is_executed(tmp_path):
    with pytest.raises(ValueError, match="there is no weights file"):
        load_inception(tmp_path / "absent.pth")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth holds weights of another network than Inception v3"):
        load_inception(tmp_path / "other.pth")
    torch.save({"model": {"conv.weight": torch.zeros(3)}}, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match="holds a dict of other things than tensors by name"):
        load_inception(tmp_path / "checkpoint.pth")
    (tmp_path / "program.pth").write_bytes(pickle.dumps(Program(tmp_path / "executed")))
    with pytest.raises(
        ValueError, match=r"holds other things than tensors \(Python objects are never executed\)"
    ):
        load_inception(tmp_path / "program.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.slow
def test_every_layout_of_the_inception_file_gives_the_same_network(inception_weights, tmp_path):
    state = torch.load(inception_weights, weights_only=True)
    without_counters = {name: value for name, value in state.items() if "num_batches_tracked" not in name}
    torch.save(without_counters, tmp_path / "pytorch-fid.pth")
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    expected = load_inception(inception_weights)
    assert (expected.name, expected.width, expected.is_inception) == ("inception-v3-compat", 2048, True)
    for name in ("pytorch-fid.pth", "weights.safetensors"):
        assert load_inception(tmp_path / name).weights_digest == expected.weights_digest
    other = state | {"fc.bias": state["fc.bias"] + 1}
    torch.save(other, tmp_path / "other.pth")
    assert load_inception(tmp_path / "other.pth").weights_digest != expected.weights_digest


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
        monkeypatch.setattr(inception, "URL_INCEPTION_V3", (tmp_path / "served" / name).as_uri())
        if right:
            assert download_inception().read_bytes() == content
        else:
            with pytest.raises(
                ValueError, match=r"the Inception weights cannot be downloaded .* --inception-weights FILE"
            ):
                download_inception()
    assert [path.name for path in (tmp_path / "home").rglob("*.pth")] == [f"weights-{digest}.pth"]


def test_the_published_file_is_checked_whenever_it_is_read(tmp_path, monkeypatch):
    """Its name holds its checksum: a flipped bit is found before a number is made of it."""
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "file.pth")
    digest = hashlib.sha256((tmp_path / "file.pth").read_bytes()).hexdigest()[:8]
    path = (tmp_path / "file.pth").rename(tmp_path / f"weights-{digest}.pth")
    monkeypatch.setattr(inception, "URL_INCEPTION_V3", path.as_uri())
    with pytest.raises(ValueError, match="holds weights of another network"):  # it is what its name says
        load_inception(path)
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(ValueError, match=rf"weights-{digest}.pth is damaged: its SHA-256 begins with"):
        load_inception(path)


def test_a_pipe_in_place_of_the_weights_is_refused(tmp_path):
    os.mkfifo(tmp_path / "inception.pth")
    with pytest.raises(ValueError, match=r"inception\.pth is no regular file"):
        load_inception(tmp_path / "inception.pth")
