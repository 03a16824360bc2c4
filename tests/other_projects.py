"""The library diffusers, and networks of every preset's shape at reduced width, for the tests of parity."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ddpm_eval.data.torchvision_compatibility import import_torchvision
from ddpm_eval.interchange.diffusers_format import network_config, scheduler_config
from ddpm_eval.model.unet import UNet
from ddpm_eval.spec import DataSpec, DiffusionSpec, EvaluationSpec, NetworkSpec, RunSpec, TrainSpec
from ddpm_eval.training.build import build_network
from ddpm_eval.training.checkpoint import FILE_NAME, Checkpoint, save

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

# what maps both ways; beta is large enough that float32 differences 1 - alpha_bar keep five digits
DIFFUSION = {
    "paper": {},
    "fixed-small": {"variance": "fixed-small"},
    "x0": {"prediction": "x0"},
    "learned-range": {"variance": "learned-range", "objective": "vlb"},
    "trained-on-L": {"objective": "vlb", "training_decoder": "tanh"},
    "quadratic": {"schedule": "quadratic"},
    "constant": {"schedule": "constant", "beta_end": 0.05},
    "cosine": {"schedule": "cosine"},
}
SHORT = {"timesteps": 30, "beta_start": 0.01, "beta_end": 0.2}


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
    return perturbed(build_network(spec))


def inputs(spec: RunSpec, batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (batch, spec.data.channels, spec.data.side, spec.data.side)
    return torch.randn(shape, generator=generator), torch.randint(0, 1000, (batch,), generator=generator)


def saved_run(folder: Path, spec: RunSpec) -> UNet:
    """Save a run's checkpoint, and return its network."""
    net = network(spec)
    weights = {
        f"{part}/{name}": value for part in ("model", "ema") for name, value in net.state_dict().items()
    }
    logs = {"log/loss": torch.zeros(1), "log/gradient_norm": torch.zeros(1)}
    metadata = {"status": "ok", "reason": "", "seconds": 0.0, "threads": 1}
    save(folder / FILE_NAME, Checkpoint(spec, 1, weights | logs, metadata))
    return net.eval()


def pipeline(spec: RunSpec) -> Any:
    """Return diffusers' pipeline of a run's shape, with other weights."""
    model = perturbed(diffusers.UNet2DModel.from_config(network_config(spec)))
    return diffusers.DDPMPipeline(
        model.eval(), diffusers.DDPMScheduler.from_config(scheduler_config(spec.diffusion))
    )


def saved_pipeline(folder: Path, spec: RunSpec | None = None) -> Path:
    pipeline(spec or run_spec("cifar10")).save_pretrained(folder)
    return folder


def loaded_pipeline(folder: Path) -> Any:
    pipe = diffusers.DDPMPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.inference_mode()
def assert_same_prediction(ours: nn.Module, theirs: nn.Module, spec: RunSpec) -> None:
    x, t = inputs(spec)
    # outputs are of order 1 and pass some 50 layers, each with float32 roundings of order 1e-7
    torch.testing.assert_close(ours(x, t), theirs.eval()(x, t).sample, atol=1e-5, rtol=1e-5)


def old_layout(folder: Path, spec: RunSpec) -> dict[str, Tensor]:
    """Write a folder as diffusers' first versions did: flat, .bin, old names of attention, fewer fields."""
    saved_pipeline(folder / "new", spec)
    weights = load_file(folder / "new" / "unet" / "diffusion_pytorch_model.safetensors")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, name in old.items():
        weights = {key.replace(f".{new}.", f".{name}."): value for key, value in weights.items()}
    config = json.loads((folder / "new" / "unet" / "config.json").read_text())
    since = {
        "attention_head_dim",
        "add_attention",
        "dropout",
        "downsample_type",
        "upsample_type",
        "resnet_time_scale_shift",
    }
    (folder / "config.json").write_text(
        json.dumps({key: value for key, value in config.items() if key not in since})
    )
    scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "variance_type": "fixed_large"}
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    torch.save(weights, folder / "diffusion_pytorch_model.bin")
    return weights
