"""Checkpoints: one safetensors file per run that holds everything a run needs to go on bit-identically.

The tensors are flat, and their names begin with what they are: ``model/`` and ``ema/`` (the network's weights
and their moving average), ``adam/exp_avg/`` and ``adam/exp_avg_sq/`` (the optimiser's moments), ``log/`` (one
value per update). The file's header holds the specification, the step, and metadata in JSON. Damage is found
when a file is read, see `ddpm_eval.training.tensor_files`. A kill while a file is written leaves the previous
one in place. No pickle is read or written.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ddpm_eval.files import DIGEST_DIGITS
from ddpm_eval.model.unet import UNet
from ddpm_eval.spec import MOST_UPDATES, RunSpec
from ddpm_eval.spec_text import parse, read_json
from ddpm_eval.training.build import build_network
from ddpm_eval.training.tensor_files import FileKind, damaged, read_tensors, write_tensors
from ddpm_eval.training.weights import check_weights

FILE_NAME = "checkpoint.safetensors"
RESULTS_NAME = "results.h5"
"""The name of the file beside a checkpoint that holds what is measured of it."""
FORMAT = "ddpm_eval checkpoint 1"
LARGEST_NUMBER = 2**63
"""In the metadata."""
KIND = FileKind(
    name="checkpoint",
    field="format",
    value=FORMAT,
    others=frozenset({"spec", "step", "facts"}),
    foreign=f"is a safetensors file, but no {FORMAT!r} (other projects' weights: import-checkpoint)",
)


@dataclass
class Checkpoint:
    """The state of a run after ``step`` parameter updates.

    Attributes:
        spec: what the run is.
        step: the number of parameter updates done.
        tensors: the state by name, such as ``ema/conv_in.weight``; see the module's header.
        metadata: how the state came about: status, reason, seconds, threads, device.
        source: where it was read from, for messages.
    """

    spec: RunSpec
    step: int
    tensors: dict[str, Tensor]
    metadata: dict[str, str | float] = field(default_factory=dict)
    source: str = "the checkpoint"

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors of one prefix, such as ``"ema/"``, by the rest of their names."""
        return {
            name.removeprefix(prefix): value
            for name, value in self.tensors.items()
            if name.startswith(prefix)
        }


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; its folder is created.

    Args:
        path: the path of the file.
        checkpoint: what to write; its tensors may be on any device and in any memory format.

    Raises:
        ValueError: if the file cannot be written (disk full, no permission); the previous file then stays as
            it was.
    """
    header = {
        "format": FORMAT,
        "spec": checkpoint.spec.model_dump_json(),
        "step": str(checkpoint.step),
        "facts": json.dumps(checkpoint.metadata),  # the format's first name for them
    }
    write_tensors(path, checkpoint.tensors, header)


def load(path: Path, *, prefixes: tuple[str, ...] | None = None) -> Checkpoint:
    """Read a checkpoint's header and tensors, and check that they are undamaged.

    Args:
        path: the path of the file, or of the run's folder.
        prefixes: read only the tensors whose names begin with one of these; None reads all.

    Raises:
        ValueError: if the file is missing, truncated, damaged, or no checkpoint of this project.
    """
    path = _file(path)
    file = read_tensors(path, KIND, prefixes)
    try:
        spec = parse(read_json(file.header["spec"]))
        step = _step(file.header["step"])
        metadata = _metadata(file.header["facts"])
    except ValueError as error:
        raise damaged(path, str(error)) from None
    return Checkpoint(spec, step, file.tensors, metadata, str(path))


def load_network(path: Path) -> tuple[RunSpec, UNet]:
    """Read a run's network with its averaged (EMA) weights, in evaluation mode on the CPU.

    Args:
        path: the path of the file, or of the run's folder.

    Raises:
        ValueError: if the file is missing or unreadable, its weights belong to another architecture than its
            specification says (the differing field is named), or a weight is not finite.
    """
    checkpoint = load(path, prefixes=("ema/",))
    weights = checkpoint.part("ema/")
    with torch.device("meta"):
        network = build_network(checkpoint.spec)
    check_weights(weights, network, _file(path))
    network.to_empty(device="cpu").load_state_dict(weights)
    return checkpoint.spec, network.eval()


def weights_digest(source: Path | Mapping[str, Tensor]) -> str:
    """Return the digest of the averaged weights: of their names, types, shapes and values.

    It is computed from the weights themselves, so that a result can never be taken for one of other weights.

    Args:
        source: a checkpoint's file or folder, or its tensors (those named ``ema/...`` count).
    """
    tensors = load(source, prefixes=("ema/",)).tensors if isinstance(source, Path) else source
    content = hashlib.sha256()  # not `files.content_digest`: the digests in existing results must stay valid
    for name in sorted(name for name in tensors if name.startswith("ema/")):
        value = tensors[name].detach().cpu().contiguous()
        content.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        content.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()[:DIGEST_DIGITS]


def averaged(saved: Checkpoint) -> Checkpoint:
    """Return a checkpoint of the averaged weights and the log alone, which can be measured but not trained.

    Args:
        saved: read with at least the prefixes ``ema/`` and ``log/``. Its status becomes ``averaged`` unless
            it is a result (``diverged``) or says where the weights come from (``imported``).
    """
    tensors = {name: value for name, value in saved.tensors.items() if name.startswith(("ema/", "log/"))}
    metadata = saved.metadata
    if metadata["status"] not in ("diverged", "imported"):
        metadata = metadata | {"status": "averaged", "reason": f"averaged weights of {saved.step:,} updates"}
    return Checkpoint(saved.spec, saved.step, tensors, metadata, saved.source)


def _step(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_UPDATES))):
        raise ValueError(f"the number of updates is {text[:40]!r}")
    return int(text)


def _metadata(text: str) -> dict[str, str | float]:
    found = read_json(text)
    if not isinstance(found, dict) or not all(_is_plain(value) for value in found.values()):
        raise ValueError("its metadata are not texts and finite numbers by name")
    return found


def _is_plain(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int | float) and abs(value) < LARGEST_NUMBER)


def _file(path: Path) -> Path:
    path = path / FILE_NAME if path.is_dir() else path
    if not path.exists():
        raise ValueError(f"there is no checkpoint {path} (has this run been trained?)")
    return path
