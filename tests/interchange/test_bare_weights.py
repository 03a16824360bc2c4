"""Bare weights: the model is read off their shapes, and what they do not say is asked for."""

from pathlib import Path

import pytest
import torch
from other_projects import inputs, network, run_spec
from safetensors.torch import save_file

from ddpm_eval.interchange.import_export import import_checkpoint
from ddpm_eval.training.checkpoint import load_network


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_bare_weights_in_the_authors_converted_layout_are_read(suffix: str, tmp_path: Path) -> None:
    spec = run_spec("cifar10")
    net, file = network(spec), tmp_path / f"model{suffix}"
    torch.save(net.state_dict(), file) if suffix == ".ckpt" else save_file(net.state_dict(), file)
    imported = import_checkpoint(
        file, tmp_path / "run", data="cifar10", settings={"network.norm_groups": "4"}
    )
    assert imported.network == spec.network
    assert imported.data.side == 32
    assert imported.diffusion == spec.diffusion
    x, t = inputs(spec)
    assert torch.equal(load_network(tmp_path / "run")[1](x, t), net.eval()(x, t))


def test_bare_weights_of_256x256_have_the_small_variance(tmp_path: Path) -> None:
    torch.save(network(run_spec("256x256")).state_dict(), tmp_path / "model.ckpt")
    imported = import_checkpoint(
        tmp_path / "model.ckpt",
        tmp_path / "run",
        data="lsun:church_outdoor",
        settings={"network.norm_groups": "4"},
    )
    assert (imported.data.side, imported.network.attention_sides) == (256, (16,))
    assert imported.diffusion.variance == "fixed-small"


def test_bare_weights_without_attention_need_the_side(tmp_path: Path) -> None:
    torch.save(network(run_spec("digits")).state_dict(), tmp_path / "model.ckpt")
    settings = {"network.norm_groups": "4"}
    with pytest.raises(ValueError, match=r"set data.side"):
        import_checkpoint(tmp_path / "model.ckpt", tmp_path / "run", data="digits", settings=settings)
    spec = import_checkpoint(
        tmp_path / "model.ckpt", tmp_path / "run", data="digits", settings=settings | {"data.side": "8"}
    )
    assert spec.data.side == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"time_embed.0.weight": torch.zeros(3)}, "improved-diffusion.*cannot be imported"),
        ({"layer.weight": torch.zeros(3)}, r"not named as pesser/pytorch_diffusion's weights"),
    ],
)
def test_weights_under_other_names_are_refused(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message):
        import_checkpoint(tmp_path / "model.pt", tmp_path / "run", data="cifar10")
