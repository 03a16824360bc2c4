"""Other projects' models: import as runs, and export to diffusers.

Read are diffusers' DDPM folders (from disk or the hub) and bare weights named as in pesser/pytorch_diffusion;
written are diffusers' folders. docs/interchange.md says what maps. A model that does not map exactly is
refused, never approximated.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ddpm_eval.data.datasets import NATIVE
from ddpm_eval.files import file_digest, new_folder, write_text
from ddpm_eval.interchange.bare_weights import describe_bare_weights
from ddpm_eval.interchange.diffusers_format import (
    TRAINING_NAME,
    network_config,
    pipeline_config,
    read_diffusers,
    scheduler_config,
    training_config,
    weights_for_diffusers,
    weights_from_diffusers,
    weights_of,
)
from ddpm_eval.interchange.weight_files import SAFETENSORS_NAME, local_path, read_tensors
from ddpm_eval.spec import RunSpec
from ddpm_eval.spec_text import override
from ddpm_eval.training.build import build_network
from ddpm_eval.training.checkpoint import FILE_NAME, RESULTS_NAME, Checkpoint, load_network, save
from ddpm_eval.training.tensor_files import write_tensors
from ddpm_eval.training.weights import check_weights


def import_checkpoint(
    source: str | Path, out: Path, *, data: str, settings: Mapping[str, str] | None = None
) -> RunSpec:
    """Turn another project's model into a run that every command can measure.

    Args:
        source: a diffusers DDPM folder (UNet2DModel and DDPMScheduler), a hub id such as
            ``google/ddpm-cifar10-32``, or a file of bare weights named as in pesser/pytorch_diffusion (linear
            schedule and T = 1000 unless set).
        out: the run's folder.
        data: the name of the data set that it models, such as ``cifar10``.
        settings: fields of the specification that replace what was read, as for `spec_text.override`. Bare
            weights do not say the reverse variance: it is fixed-large at 32x32 and fixed-small above, as the
            authors published them, unless set.

    Returns:
        The specification of the run; its weights are both ``model/`` and ``ema/``. Of its ``train`` part
        nothing is known: the checkpoint has the status ``imported``, no updates and no optimiser state, and
        is never trained further. It names the source with the first digits of the SHA-256 of its weights.

    Raises:
        ValueError: if the source cannot be reached or read, its network or schedule is not one of ours (the
            field is named), its weights are incomplete or unknown, or ``out`` already holds a checkpoint or
            results.
    """
    for path in (out / FILE_NAME, out / RESULTS_NAME):
        if path.exists():
            raise ValueError(f"{path} exists already (name another folder with --out, or delete it)")
    path = local_path(source)
    spec, weights = _read(path, data, settings or {})
    file = weights_of(path) if path.is_dir() else path
    save(out / FILE_NAME, _checkpoint(spec, weights, f"{source} (SHA-256 {file_digest(file)})"))
    return spec


def export_checkpoint(run: Path, out: Path, *, format: Literal["diffusers"] = "diffusers") -> None:
    """Write a run's averaged weights as a folder that diffusers' ``DDPMPipeline.from_pretrained`` loads.

    Args:
        run: the run's folder, or its checkpoint's file.
        out: the folder to write; it must not exist, or be empty.
        format: only ``diffusers``.

    Raises:
        ValueError: if diffusers has no such model (mu prediction, the learned diagonal variance), the run
            cannot be read, or ``out`` is not empty or cannot be written.
    """
    if format != "diffusers":
        raise ValueError(f"there is no export format {format!r} (only diffusers)")
    with new_folder(out) as folder:
        spec, network = load_network(run)
        configs = {
            "model_index.json": pipeline_config(),
            "scheduler/scheduler_config.json": scheduler_config(spec.diffusion),
            "unet/config.json": network_config(spec),
            TRAINING_NAME: training_config(spec.diffusion),
        }
        tensors = weights_for_diffusers(network.state_dict())
        for name, config in configs.items():
            write_text(folder / name, json.dumps(config, indent=2, sort_keys=True) + "\n")
        write_tensors(folder / "unet" / SAFETENSORS_NAME, tensors, {"format": "pt"})


def _read(path: Path, data: str, settings: Mapping[str, str]) -> tuple[RunSpec, dict[str, Tensor]]:
    """Return the specification of the model at a path, and its weights under our names."""
    if path.is_dir():
        weights, description = read_diffusers(path)
    else:
        weights = read_tensors(path)
        description = describe_bare_weights(weights, settings, path)
    spec = override(description.specification(data), settings)
    _check_data(data, spec, path)
    with torch.device("meta"):
        network = build_network(spec)
    if path.is_dir():
        weights = weights_from_diffusers(weights, network)
    check_weights(weights, network, path)
    return spec, weights


def _check_data(data: str, spec: RunSpec, source: Path) -> None:
    """Raise ValueError if a named data set has images of another shape than the model's."""
    found = (spec.data.channels, spec.data.side)
    if data in NATIVE and NATIVE[data] != found:
        ours, theirs = (f"{channels}x{side}x{side}" for channels, side in (found, NATIVE[data]))
        raise ValueError(
            f"{source} models images of {ours}, but {data} has {theirs} (name its data set with --data)"
        )


def _checkpoint(spec: RunSpec, weights: Mapping[str, Tensor], source: str) -> Checkpoint:
    """Return a checkpoint of a model of whose training nothing is known."""
    tensors = {
        f"{part}/{name}": value.float() for part in ("model", "ema") for name, value in weights.items()
    }
    tensors |= {"log/loss": torch.zeros(0), "log/gradient_norm": torch.zeros(0)}
    metadata: dict[str, str | float] = {
        "status": "imported",
        "reason": f"imported from {source}",
        "seconds": 0.0,
        "threads": 0,
        "device": "unknown",
    }
    return Checkpoint(spec, 0, tensors, metadata)
