"""What is timed: an update or a reverse step, by our program and by diffusers', and its arithmetic.

A turn is a function without arguments; `TURNS` makes one of a specification, a runtime and a variant.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_eval.data.image_set import from_array
from ddpm_eval.data.torchvision_compatibility import import_torchvision
from ddpm_eval.interchange.diffusers_format import network_config, scheduler_config
from ddpm_eval.model.samplers import AncestralSampler
from ddpm_eval.model.unet import UNet
from ddpm_eval.runtime import Runtime
from ddpm_eval.spec import RunSpec
from ddpm_eval.training.batches import Batches
from ddpm_eval.training.build import build_network, trained_process
from ddpm_eval.training.trainer import Trainer

N_IMAGES = 2048
STAGES = ("training", "sampling")
Turn = Callable[[], object]


@dataclass(frozen=True)
class Variant:
    """Whose program, at which precision, compiled or not."""

    project: str
    precision: str
    mode: str

    def __str__(self) -> str:
        return f"{self.project}/{self.precision}/{self.mode}"

    @staticmethod
    def parse(text: str) -> "Variant":
        """Read ``ours/fp32/eager``; raise ValueError for anything else."""
        if not re.fullmatch(r"(ours|diffusers)/(fp32|bf16)/(eager|compiled)", text):
            raise ValueError(f"{text!r} is no variant: (ours|diffusers)/(fp32|bf16)/(eager|compiled)")
        return Variant(*text.split("/"))

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which another project's network runs."""
        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()


THEIRS = Variant("diffusers", "fp32", "eager")
OURS = tuple(
    Variant("ours", precision, mode) for precision in ("fp32", "bf16") for mode in ("eager", "compiled")
)


def random_pixels(spec: RunSpec) -> np.ndarray:
    """Return images whose content does not matter."""
    shape = (N_IMAGES, *image_shape(spec))
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def image_shape(spec: RunSpec) -> tuple[int, int, int]:
    """Return channels, rows and columns of an image."""
    return spec.data.channels, spec.data.side, spec.data.side


def our_update(spec: RunSpec, runtime: Runtime, variant: Variant) -> Turn:
    """One update of our trainer, batch and logging included."""
    trainer = Trainer(spec, runtime)
    batches = Batches(spec, from_array(random_pixels(spec)), runtime).stream(0, spec.train.steps)
    return lambda: trainer.seeded_update(next(batches))


def their_update(spec: RunSpec, runtime: Runtime, variant: Variant) -> Turn:
    """One update as in diffusers' examples: AdamW, warm-up, clipping, EMAModel."""
    diffusers, training_utils = import_diffusers()
    train = spec.train
    device = runtime.device
    model = diffusers.UNet2DModel.from_config(network_config(spec)).to(device).train()
    assert n_parameters(model) == n_parameters(our_network(spec))
    scheduler = diffusers.DDPMScheduler.from_config(scheduler_config(spec.diffusion))
    optimizer = torch.optim.AdamW(model.parameters(), lr=train.learning_rate)
    warmup = diffusers.optimization.get_constant_schedule_with_warmup(optimizer, train.warmup_steps)
    average = training_utils.EMAModel(model.parameters(), decay=train.ema_decay)
    pixels = torch.from_numpy(random_pixels(spec)).to(device)
    network = runtime.compile(model)

    def turn() -> None:
        x_0 = pixels[torch.randint(0, N_IMAGES, (train.batch_size,), device=device)] / 127.5 - 1
        noise = torch.randn_like(x_0)
        t = torch.randint(0, spec.diffusion.timesteps, (train.batch_size,), device=device)
        with variant.autocast(device):
            loss = F.mse_loss(network(scheduler.add_noise(x_0, noise, t), t).sample.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm)
        optimizer.step()
        warmup.step()
        optimizer.zero_grad()
        average.step(model.parameters())

    return turn


def our_step(spec: RunSpec, runtime: Runtime, variant: Variant) -> Turn:
    """One ancestral step of ours: network, mean, noise."""
    network = Trainer(spec, replace(runtime, compiled=False)).network.eval()
    process = trained_process(spec, runtime.compile(network), clip=True)
    sampler = AncestralSampler(process, seed=0)
    ids = torch.arange(spec.train.batch_size, device=runtime.device)
    x = sampler.start(ids, image_shape(spec))
    t = torch.tensor([500], device=runtime.device)

    @torch.inference_mode()
    def turn() -> None:
        with runtime.evaluation_precision():
            sampler.step(process(x, t), x, t, ids)

    return turn


def n_parameters(network: nn.Module) -> int:
    """Return the number of a network's parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def their_step(spec: RunSpec, runtime: Runtime, variant: Variant) -> Turn:
    """One ancestral step of diffusers' pipeline."""
    diffusers, _ = import_diffusers()
    model = diffusers.UNet2DModel.from_config(network_config(spec)).to(runtime.device).eval()
    network = runtime.compile(model)
    scheduler = diffusers.DDPMScheduler.from_config(scheduler_config(spec.diffusion))
    x = torch.randn(spec.train.batch_size, *image_shape(spec), device=runtime.device)

    @torch.inference_mode()
    def turn() -> None:
        with variant.autocast(runtime.device):
            eps = network(x, 499).sample
        scheduler.step(eps.float(), 499, x)

    return turn


TURNS: dict[tuple[str, str], Callable[[RunSpec, Runtime, Variant], Turn]] = {
    ("ours", "training"): our_update,
    ("ours", "sampling"): our_step,
    ("diffusers", "training"): their_update,
    ("diffusers", "sampling"): their_step,
}


def import_diffusers() -> tuple[Any, Any]:
    """Import diffusers, for which torchvision must load beside a CPU-only torch."""
    import_torchvision()
    import diffusers
    import diffusers.training_utils

    return diffusers, diffusers.training_utils


def installed(package: str) -> bool:
    """Tell whether a package is installed."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def our_network(spec: RunSpec) -> UNet:
    """Return the network without memory for its weights."""
    with torch.device("meta"):
        return build_network(spec)


def gigaflop_per_image(spec: RunSpec, stage: str) -> float:
    """Count the products of the layers, as they are defined, in an image's share of an update or a step."""
    x = torch.zeros(1, *image_shape(spec), device="meta")
    t = torch.ones(1, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter:
        output = our_network(spec)(x, t)
        if stage == "training":
            output.sum().backward()
    return counter.get_total_flops() / 1e9
