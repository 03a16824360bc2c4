"""A checkpoint without a training: for tests of what is read from it."""

from pathlib import Path

import torch
from tiny import TINY

from ddpm_eval.model.unet import UNet
from ddpm_eval.spec import RunSpec
from ddpm_eval.training.checkpoint import FILE_NAME, Checkpoint, save


def save_untrained(folder: Path, spec: RunSpec = TINY, step: int = 4, **metadata: str | float) -> Path:
    """Write an untrained run that claims so many updates, and return its folder."""
    weights = UNet(spec.network, spec.data.channels, spec.data.side, spec.out_channels).state_dict()
    tensors = {f"{part}/{name}": value for part in ("model", "ema") for name, value in weights.items()}
    tensors |= {"log/loss": torch.zeros(step), "log/gradient_norm": torch.zeros(step)}
    known = {"status": "stopped", "reason": "", "seconds": 0.0, "threads": 1, **metadata}
    save(folder / FILE_NAME, Checkpoint(spec, step, tensors, known))
    return folder
