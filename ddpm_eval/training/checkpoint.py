"""Checkpoints: one safetensors file per run that holds everything a run needs to go on bit-identically.

The tensors are flat, their names prefixed by what they are: ``model/`` and ``ema/`` (the network's weights
    and their moving
average), ``adam/exp_avg/`` and ``adam/exp_avg_sq/`` (the optimiser's moments), ``log/`` (one value per
update). The specification, the step and JSON facts are in the file's header. A file is written under a
temporary name, synchronised and renamed, so that a kill leaves the previous checkpoint in place. No pickle is
read or written.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ddpm_eval.model.unet import UNet
from ddpm_eval.spec import RunSpec
from ddpm_eval.spec_text import parse

FILE_NAME = "checkpoint.safetensors"
RESULTS_NAME = "results.h5"
"""What is measured of a checkpoint lies beside it under this name."""
FORMAT = "ddpm_eval checkpoint 1"


@dataclass
class Checkpoint:
    """The state of a run after ``step`` parameter updates.

    Attributes:
        spec: what the run is.
        step: parameter updates done.
        tensors: flat, named as the module's header says, such as ``ema/conv_in.weight``.
        facts: JSON-serialisable facts beside the state: status, reason, seconds, images, threads, versions.
    """

    spec: RunSpec
    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors of one prefix such as ``"ema/"``, without it."""
        return {
            name.removeprefix(prefix): value
            for name, value in self.tensors.items()
            if name.startswith(prefix)
        }


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; its folder is created.

    Args:
        path: of the file.
        checkpoint: what to write; tensors on any device, in any memory format.

    Raises:
        ValueError: if the file cannot be written (disk full, no permission); the previous file is then
            untouched.
    """
    header = {
        "format": FORMAT,
        "spec": checkpoint.spec.model_dump_json(),
        "step": str(checkpoint.step),
        "facts": json.dumps(checkpoint.facts),
    }
    write_tensors(path, checkpoint.tensors, header)


def load(
    path: Path, *, prefixes: tuple[str, ...] | None = None, device: torch.device | str = "cpu"
) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: of the file, or of the run's folder.
        prefixes: read only the tensors whose names start with one of these; None reads all.
        device: where the tensors go.

    Raises:
        ValueError: if the file is missing, truncated, or no checkpoint of this project.
    """
    path = _file(path)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise ValueError(
                    f"{path} is a safetensors file, but no {FORMAT!r} (other projects' weights: import-checkpoint)"
                )
            wanted = [name for name in file.keys() if prefixes is None or name.startswith(prefixes)]
            tensors = {name: file.get_tensor(name) for name in wanted}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable checkpoint (truncated, or another kind of file?): {error}"
        ) from None
    return Checkpoint(
        parse(json.loads(header["spec"])), int(header["step"]), tensors, json.loads(header["facts"])
    )


def load_network(path: Path) -> tuple[RunSpec, UNet]:
    """Read a run's network with its averaged (EMA) weights, in evaluation mode on the CPU.

    Args:
        path: of the file, or of the run's folder.

    Raises:
        ValueError: if the file is missing or unreadable, its weights belong to another architecture than its
            specification says (the differing field is named), or a weight is not finite.
    """
    checkpoint = load(path, prefixes=("ema/",))
    spec, weights = checkpoint.spec, checkpoint.part("ema/")
    with torch.device("meta"):
        network = UNet(spec.network, spec.data.channels, spec.data.side, spec.out_channels)
    check_weights(weights, network, _file(path))
    network.to_empty(device="cpu").load_state_dict(weights)
    return spec, network.eval()


def weights_digest(source: Path | Mapping[str, Tensor]) -> str:
    """Return 12 hexadecimal digits that identify the averaged weights' content: names, types, shapes and
    values.

    Args:
        source: a checkpoint's file or folder, or its tensors (those named ``ema/...`` count).
    """
    tensors = load(source, prefixes=("ema/",)).tensors if isinstance(source, Path) else source
    digest = hashlib.sha256()
    for name in sorted(name for name in tensors if name.startswith("ema/")):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def check_weights(weights: Mapping[str, Tensor], network: UNet, source: object) -> None:
    """Raise ValueError unless ``weights`` have the names and shapes of ``network`` and are finite.

    Args:
        weights: a state dict.
        network: whose architecture is expected; may be on the meta device.
        source: where the weights came from, for the message, which names the first field that differs.
    """
    expected = network.state_dict()
    shapes, found = ({name: value.shape for name, value in state.items()} for state in (expected, weights))
    if shapes != found:
        unknown, missing = found.keys() - shapes.keys(), shapes.keys() - found.keys()
        wanted, got = architecture(expected), architecture(weights)
        for name in wanted:
            if got.get(name) not in (wanted[name], None):
                raise ValueError(
                    f"{source}: {name} is {got[name]} in the weights, but {wanted[name]} in the specification"
                )
        if unknown:
            raise ValueError(f"{source} holds weights that this network does not have: {_some(unknown)}")
        if missing:
            raise ValueError(f"{source} lacks weights of this network: {_some(missing)}")
        name = next(name for name in shapes if shapes[name] != found[name])
        raise ValueError(
            f"{source}: {name} has shape {tuple(found[name])}, but this network's is {tuple(shapes[name])}"
        )
    for name, value in weights.items():
        if not bool(value.isfinite().all()):
            raise ValueError(
                f"{source}: weight {name} holds values that are not finite (did the training diverge?)"
            )


def architecture(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read off a state dict what its shapes say of the network; fields that it does not show are left out."""
    fields: dict[str, Any] = {}
    if "conv_in.weight" not in weights or "conv_out.weight" not in weights:
        return fields
    base, channels = weights["conv_in.weight"].shape[:2]
    fields["data.channels"], fields["out_channels"] = channels, len(weights["conv_out.weight"])
    fields["network.base_channels"] = base
    widths: list[int] = []
    while (name := f"down.{len(widths)}.block.0.conv1.weight") in weights:
        widths.append(len(weights[name]))
    fields["network.multipliers"] = tuple(width // base for width in widths)
    blocks = 0
    while f"down.0.block.{blocks}.conv1.weight" in weights:
        blocks += 1
    fields["network.blocks"] = blocks
    attention = tuple(level for level in range(len(widths)) if f"down.{level}.attn.0.q.weight" in weights)
    return fields | {"levels with attention (the largest side is 0)": attention}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Write a safetensors file atomically, its folder created; raise ValueError if it cannot be written."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = (
            temporary.stat().st_mode
        )  # what any new file gets here; safetensors makes its own readable by the owner only
        save_file(_writable(tensors), temporary, header)
        temporary.chmod(mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot write {path} (disk full, or no permission?): {error}") from None
    finally:
        _remove(temporary)


def _writable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy to contiguous CPU memory where needed; tensors that share memory get copies of their own."""
    seen: set[int] = set()
    result = {}
    for name, value in tensors.items():
        value = value.detach().cpu().contiguous()
        pointer = value.untyped_storage().data_ptr()
        result[name] = value.clone() if pointer in seen else value
        seen.add(pointer)
    return result


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:  # the folder itself is not reachable: nothing was written
        return


def _file(path: Path) -> Path:
    path = path / FILE_NAME if path.is_dir() else path
    if not path.exists():
        raise ValueError(f"there is no checkpoint {path} (has this run been trained?)")
    return path


def _some(names: Iterable[str]) -> str:
    first, *rest = sorted(names)
    return f"{first} and {len(rest)} more" if rest else first
