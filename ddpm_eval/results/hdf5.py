"""HDF5 files that are checked before the HDF5 library sees them; the only module that imports h5py.

A file begins with a header of `HEADER_BYTES` in the user block that HDF5 leaves to applications: the format,
the schema version and the SHA-256 of all that follows. Every reader compares it first, because the HDF5
library can return wrong values from a damaged file, or crash on it. A file that was checked and has not
changed since is not read again. The header of some files also says what the file is, so that one is never
taken for another. Any HDF5 program can open the files.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeAlias

import h5py
import numpy as np

from ddpm_eval.files import reserve
from ddpm_eval.results.fields import Array

SCHEMA_VERSION = 3
HEADER_BYTES = 512
FORMAT = b"ddpm_eval"
HDF5_SIGNATURE = b"\x89HDF"
# What arrays can need on disk: incomplete chunks are stored whole, and noise does not compress.
SIZE_MARGIN = 1.25
OVERHEAD_BYTES = 2**18
SMALL_SIZE = 64
"""Arrays of at most so many elements are stored without compression."""

File: TypeAlias = h5py.File
Group: TypeAlias = h5py.Group
Dataset: TypeAlias = h5py.Dataset
_checked: dict[tuple[Path, str | None], tuple[int, int, int]] = {}  # inode, time of change, size


class Damaged(ValueError):
    """A file is not what was written."""


def create(path: Path) -> None:
    """Write an empty file; `seal` must follow before anybody can read it."""
    path.write_bytes(bytes(HEADER_BYTES) + _empty_image())


@contextmanager
def editing(path: Path, arrays: Sequence[Array], label: str = "") -> Iterator[File]:
    """Open a file that nobody reads yet for writing ``arrays``, and seal it afterwards; see `seal`.

    The disk space is claimed first, because HDF5 does not survive a disk that fills while it writes.
    """
    needed = round(SIZE_MARGIN * sum(np.asarray(value).nbytes for value in arrays)) + OVERHEAD_BYTES
    reserve(path, path.stat().st_size + needed)
    with h5py.File(path, "a") as file:
        yield file
    seal(path, label)


def seal(path: Path, label: str = "") -> None:
    """Write the header: the digest of all that follows it, and a label that says what the file is."""
    header = _header(path, label)
    with path.open("r+b") as file:
        file.write(header)


@contextmanager
def reading(path: Path, label: str = "") -> Iterator[File]:
    """Open a file for reading after it was checked.

    Raises:
        ValueError: if it is missing, of another schema, or another kind of file.
        Damaged: if it is not what was written, or of another label.
    """
    check(path, label)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        raise Damaged(f"{path} cannot be read as it was written: {error}") from None


def check(path: Path, label: str | None = "") -> None:
    """Compare a file with its header; a file that has not changed since the last check is not read again.

    Args:
        path: of the file.
        label: what the file says that it is; None takes any.

    Raises:
        ValueError: if it is missing, of another schema, or another kind of file.
        Damaged: if it is not what was written, or of another label.
    """
    try:
        state = os.stat(path)
        stamp = (state.st_ino, state.st_mtime_ns, state.st_size)
        if _checked.get((path, label)) == stamp:
            return
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    _check_header(path, header, label)
    _checked[path, label] = stamp


def _check_header(path: Path, header: bytes, label: str | None) -> None:
    if header.startswith(HDF5_SIGNATURE):
        raise ValueError(
            f"{path} was written by an earlier version of this program (schema version 2 or older, this is "
            f"{SCHEMA_VERSION}): move it away and measure again"
        )
    words = header.split()
    if len(header) < HEADER_BYTES or len(words) not in (3, 4) or words[0] != FORMAT:
        raise Damaged(f"{path} is damaged, or no results file of this program: its header is not readable")
    if words[1] != str(SCHEMA_VERSION).encode():
        raise ValueError(
            f"{path} has schema version {words[1].decode(errors='replace')}, but this program reads version "
            f"{SCHEMA_VERSION}: move it away and measure again"
        )
    found = "".join(word.decode(errors="replace") for word in words[3:])
    if header != _header(path, found):
        raise Damaged(f"{path} is damaged: its content is not what was written (its digest differs)")
    if label not in (None, found):
        raise Damaged(f"{path} is damaged: it is the file {found or 'without a label'}, not {label}")


def write_arrays(path: Path, arrays: Mapping[str, Array], label: str = "") -> None:
    """Write named arrays as a file of their own; see `seal`."""
    create(path)
    with editing(path, list(arrays.values()), label) as file:
        for name, value in arrays.items():
            file[name] = value


def read_arrays(path: Path, label: str = "") -> dict[str, Array]:
    """Read what `write_arrays` wrote; errors as of `reading`."""
    with reading(path, label) as file:
        return {name: file[name][...] for name in file}


def write_dataset(group: Group, name: str, value: Array) -> Dataset:
    """Add an array to a group, compressed where it is large."""
    if value.size <= SMALL_SIZE:
        return group.create_dataset(name, data=value)
    return group.create_dataset(
        name, data=value, compression="gzip", compression_opts=4, shuffle=True, chunks=True
    )


def _header(path: Path, label: str) -> bytes:
    """Return the header that belongs to what follows it in a file of this label."""
    words = [FORMAT, str(SCHEMA_VERSION).encode(), _digest(path, label).encode(), label.encode()]
    return b" ".join(words).rstrip().ljust(HEADER_BYTES - 1) + b"\n"


def _digest(path: Path, label: str) -> str:
    with path.open("rb") as file:
        file.seek(HEADER_BYTES)
        content = hashlib.file_digest(file, "sha256")
    content.update(label.encode())
    return content.hexdigest()


@cache
def _empty_image() -> bytes:
    with h5py.File("empty", "w", driver="core", backing_store=False) as file:
        file.flush()
        return bytes(file.id.get_file_image())
