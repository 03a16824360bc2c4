"""The library diffusers, and networks of every preset's shape at reduced width, for the tests of parity."""

import pytest
import torch
from torch import Tensor, nn

from ddpm_eval.data.torchvision_compatibility import import_torchvision
from ddpm_eval.model.unet import UNet
from ddpm_eval.spec import DataSpec, DiffusionSpec, EvaluationSpec, NetworkSpec, RunSpec, TrainSpec

import_torchvision()  # diffusers imports it, too
diffusers = pytest.importorskip(
    "diffusers", reason="parity is tested against diffusers: pip install -e '.[test]'"
)

SHAPES = {  # every preset's shape at reduced width: channels, side, network
    "digits": (
        1,
        8,
        NetworkSpec(base_channels=16, multipliers=(1, 2), blocks=1, attention_sides=(), norm_groups=4),
    ),
    "mnist": (
        1,
        28,
        NetworkSpec(base_channels=8, multipliers=(1, 2, 2), blocks=1, attention_sides=(7,), norm_groups=2),
    ),
    "cifar10": (3, 32, NetworkSpec(base_channels=16, multipliers=(1, 2, 2, 2), norm_groups=4)),
    "256x256": (3, 256, NetworkSpec(base_channels=8, multipliers=(1, 1, 2, 2, 4, 4), norm_groups=4)),
}


def run_spec(shape: str, **diffusion: object) -> RunSpec:
    channels, side, network = SHAPES[shape]
    return RunSpec(
        preset=shape,
        data=DataSpec(name="random", channels=channels, side=side),
        network=network,
        diffusion=DiffusionSpec(**diffusion),
        train=TrainSpec(steps=1),
        evaluation=EvaluationSpec(n_samples=2, n_train_images=2),
    )


def perturbed(module: nn.Module, seed: int = 0, scale: float = 0.1) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return module


def network(spec: RunSpec) -> UNet:
    return perturbed(UNet(spec.network, spec.data.channels, spec.data.side, spec.out_channels))


def inputs(spec: RunSpec, batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (batch, spec.data.channels, spec.data.side, spec.data.side)
    return torch.randn(shape, generator=generator), torch.randint(0, 1000, (batch,), generator=generator)
