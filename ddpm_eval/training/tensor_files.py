"""Safetensors files that carry a digest of all that they hold, so that damage is found before it is used.

The header of a file that is written here has two fields more than the writer gives. ``digests`` is a JSON
object: the SHA-256 of each tensor's type, shape and bytes, by the tensor's name. ``digest`` is the SHA-256 of
all other fields. A reader that wants a few tensors therefore checks the header and just these tensors. A file
without both fields, as earlier versions wrote it, is read as it is.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ddpm_eval.files import atomic_write
from ddpm_eval.spec_text import read_json

DIGEST, DIGESTS = "digest", "digests"
REMEDY = "restore it, or delete it to train again"


@dataclass(frozen=True)
class FileKind:
    """What a file must say in its header.

    Attributes:
        name: what such a file is called in messages.
        field: the name of the field that says what the file is.
        value: what that field says.
        others: the names of all other fields.
        foreign: what is said of a safetensors file of another kind.
    """

    name: str
    field: str
    value: str
    others: frozenset[str]
    foreign: str


@dataclass(frozen=True)
class TensorFile:
    """What was read of a file: the fields of its header, and tensors by name, on the CPU."""

    header: dict[str, str]
    tensors: dict[str, Tensor]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a file atomically, with its digests; its folder is created.

    Args:
        path: the path of the file.
        tensors: by name, on any device and in any memory format, of types that NumPy has, too.
        header: the fields of the header.

    Raises:
        ValueError: if the file cannot be written.
    """
    on_cpu = _writable(tensors)
    fields = {**header, DIGESTS: json.dumps({name: tensor_digest(value) for name, value in on_cpu.items()})}
    with atomic_write(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # that of any new file; safetensors lets only the owner read its own
        try:
            save_file(on_cpu, temporary, {**fields, DIGEST: _fields_digest(fields)})
        except SafetensorError as error:
            raise OSError(error) from None
        temporary.chmod(mode)


def read_tensors(path: Path, kind: FileKind, prefixes: tuple[str, ...] | None = None) -> TensorFile:
    """Read a file, and check all of it that is read.

    Args:
        path: the path of the file.
        kind: what the file must be.
        prefixes: read only the tensors whose names begin with one of these; None reads all.

    Raises:
        ValueError: if there is no such file, or it is unreadable, of another kind, or damaged.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file" if path.exists() else f"there is no file {path}")
    try:
        with safe_open(path, framework="np") as file:  # for torch, safetensors 0.8 leaks 63 bytes per tensor
            header = file.metadata() or {}
            names = list(file.keys())
            _check_kind(path, kind, header)
            wanted = [name for name in names if prefixes is None or name.startswith(prefixes)]
            tensors = {name: torch.from_numpy(file.get_tensor(name)) for name in wanted}
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: a type that NumPy lacks
        raise ValueError(
            f"{path} is not a readable {kind.name} (truncated, or another kind of file? {REMEDY}): {error}"
        ) from None
    check_digests(path, header, names, tensors)
    return TensorFile(header, tensors)


def check_digests(
    path: Path,
    header: Mapping[str, str],
    names: Iterable[str],
    tensors: Mapping[str, Tensor],
    remedy: str = REMEDY,
) -> None:
    """Check what was read of a file against the digests in its header, if it has some.

    Args:
        path: the path of the file.
        header: its fields.
        names: those of all its tensors.
        tensors: by name, those that were read.
        remedy: what to do with a damaged file.

    Raises:
        ValueError: if a digest differs.
    """
    if not header.keys() & {DIGEST, DIGESTS}:
        return
    fields = {name: value for name, value in header.items() if name != DIGEST}
    if header.get(DIGEST) != _fields_digest(fields):
        raise damaged(path, "its header does not match its digest", remedy)
    digests = _read_digests(header.get(DIGESTS, ""))
    if digests.keys() != set(names):
        raise damaged(path, "its tensors are not those that its header lists", remedy)
    for name, value in tensors.items():
        if digests[name] != tensor_digest(value):
            raise damaged(path, f"tensor {name} does not match its digest", remedy)


def tensor_digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a contiguous CPU tensor's type, shape and bytes, in hexadecimal digits."""
    content = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    if tensor.numel():
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


def damaged(path: object, what: str, remedy: str = REMEDY) -> ValueError:
    """Return the error that says how a file is damaged, and what to do."""
    return ValueError(f"{path} is damaged: {what} ({remedy})")


def _check_kind(path: Path, kind: FileKind, header: Mapping[str, str]) -> None:
    if header.get(kind.field) != kind.value:
        raise ValueError(f"{path} {kind.foreign}")
    fields = {kind.field, *kind.others}
    if lacking := fields - header.keys():
        raise damaged(path, f"its header lacks {', '.join(sorted(lacking))}")
    if unknown := header.keys() - fields - {DIGEST, DIGESTS}:
        raise damaged(path, f"its header has the unknown fields {', '.join(map(repr, sorted(unknown)))}")


def _read_digests(text: str) -> dict[str, object]:
    try:
        found = read_json(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _fields_digest(fields: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(fields), sort_keys=True).encode()).hexdigest()


def _writable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to contiguous CPU memory where needed; those that share memory get copies of their own."""
    seen: set[int] = set()
    result = {}
    for name, value in tensors.items():
        value = value.detach().cpu().contiguous()
        pointer = value.untyped_storage().data_ptr()
        result[name] = value.clone() if pointer in seen else value
        seen.add(pointer)
    return result
