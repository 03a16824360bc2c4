"""Files of weights: where they are looked for, and that nothing in them is executed."""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import CASES, outcomes
from other_projects import old_layout, run_spec

from ddpm_eval.interchange.import_export import import_checkpoint
from ddpm_eval.interchange.weight_files import WEIGHTS_NAMES, read_tensors
from ddpm_eval.training.tensor_files import write_tensors


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_is_refused_and_never_executed(writer: str, tmp_path: Path) -> None:
    old_layout(tmp_path / "old", run_spec("digits"))
    marker, file = tmp_path / "executed", tmp_path / "old" / "diffusion_pytorch_model.bin"
    content = {"conv_in.weight": torch.zeros(3), "payload": Bomb(marker)}
    torch.save(content, file) if writer == "torch" else file.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(
        ValueError, match=r"diffusion_pytorch_model.bin holds other things than tensors.*never executed"
    ):
        import_checkpoint(tmp_path / "old", tmp_path / "run", data="digits")
    assert not marker.exists()
    assert not (tmp_path / "run").exists()
    if writer == "pickle":  # the bomb works: the test can fail
        pickle.loads(file.read_bytes())
        assert marker.exists()


def test_the_hub_is_asked_for_what_is_not_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_layout(tmp_path / "old", run_spec("digits"))
    (tmp_path / "old" / "new" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns[1]))
        return str(tmp_path / "old")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    import_checkpoint("someone/ddpm", tmp_path / "run", data="digits")
    # the pickled weights only where there are no others
    assert asked == [("someone/ddpm", f"*{name}") for name in WEIGHTS_NAMES]


def test_an_unreachable_hub_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(
        ValueError, match=r"hub could not deliver google/ddpm-cifar10-32 .offline.*no route to host$"
    ):
        import_checkpoint("google/ddpm-cifar10-32", tmp_path / "run", data="cifar10")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        import_checkpoint("google/ddpm-cifar10-32", tmp_path / "run", data="cifar10")


def test_a_source_that_is_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file or folder .*nowhere"):
        import_checkpoint(tmp_path / "nowhere", tmp_path / "run", data="cifar10")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"layer.weight": torch.zeros(3)}}, "other things than tensors by name"),
        (torch.zeros(3), "holds a Tensor"),
    ],
)
def test_other_files_of_weights_are_refused(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message):
        import_checkpoint(tmp_path / "model.pt", tmp_path / "run", data="cifar10")


def weights_of(layers: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(layers)
    return {f"layer{k}.weight": torch.randn(16, 9, generator=generator) for k in range(layers)}


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_damaged_file_of_weights_is_refused_or_equal(suffix: str, tmp_path: Path) -> None:
    """An export of this project has digests, and what ``torch.save`` writes has the archive's checksums."""
    paths = [tmp_path / f"{name}.{suffix}" for name in ("model", "other")]
    for path, layers in zip(paths, (4, 5), strict=True):
        if suffix == "pth":
            torch.save(weights_of(layers), path)
        else:
            write_tensors(path, weights_of(layers), {"format": "pt"})

    def use(path: Path) -> None:
        found = read_tensors(path)
        assert found.keys() == whole.keys()
        assert all(torch.equal(value, whole[key]) for key, value in found.items())

    whole = weights_of(4)
    counts = outcomes(paths[0], *(path.read_bytes() for path in paths), use)
    assert counts.total() == CASES and counts["refused"] > CASES / 2


def test_a_pipe_in_place_of_weights_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt is no regular file"):
        import_checkpoint(tmp_path / "model.pt", tmp_path / "run", data="cifar10")
