"""The results file: one HDF5 file per run, the only place that imports h5py.

A result is a record in a group of its own. `put` copies the file, adds the group, marks it complete, and
renames the copy into place, so that a reader never sees half a result and a kill loses at most the result
being written. Processes that write to one file take turns. Work in progress is kept by `PartialResults`, one
small file per chunk, each written under a temporary name and renamed; any number of processes can write
chunks, and a finished chunk is never computed again.
"""

import datetime
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from ddpm_eval.results.records import Array, Record, array_fields, scalar_fields

SCHEMA_VERSION = 2
# What a record can need on disk: incomplete chunks are stored whole, and noise does not compress. Tests hold
# it to be enough.
HDF5_MARGIN = 1.25
HDF5_OVERHEAD_BYTES = 2**18
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Entry:
    """A stored result's name, provenance and shape, without its arrays."""

    name: str
    record: str
    key: str
    provenance: dict[str, Any]
    arrays: dict[str, str]
    sizes: list[list[tuple[str, int]]]
    scalars: dict[str, Any]


class Store:
    """The results of one run.

    Args:
        path: of the HDF5 file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, name: str, record: Record, *, key: str, provenance: Mapping[str, Any]) -> None:
        """Store a record under ``name`` (atomic_write what is there), atomically; writers of one file wait
        for each other.

        Args:
            name: group path such as ``bound/test/paper``.
            record: what to store.
            key: digest of everything the result depends on; `has` compares it.
            provenance: JSON-serialisable facts about how it was made, beside those of `environment`.

        Raises:
            ValueError: if what is there is unreadable, or the disk is full or not writable; what is there is
                then untouched.
        """
        with _writers_queue(self.path), atomic_write(self.path) as temporary:
            if self.path.exists():
                self._check()
                shutil.copyfile(self.path, temporary)
            else:
                temporary.write_bytes(_empty_file())
            _reserve(temporary, [getattr(record, f.name) for f in array_fields(type(record))])
            with h5py.File(temporary, "a") as file:
                file.attrs["schema_version"] = SCHEMA_VERSION
                if name in file:
                    del file[name]
                group = file.create_group(name, track_order=True)
                _write(group, record)
                group.attrs["key"] = key
                group.attrs["provenance"] = json.dumps({"created": _now(), **environment(), **provenance})
                group.attrs["complete"] = True
                file.attrs["complete"] = True

    def has(self, name: str, key: str) -> bool:
        """Tell whether a complete result of this name and key is stored."""
        if not self.path.exists():
            return False
        with self._open() as file:
            return name in file and bool(file[name].attrs.get("complete")) and file[name].attrs["key"] == key

    def get(self, name: str, record_type: type[R]) -> R:
        """Read a record.

        Raises:
            ValueError: if the file or the result is missing, incomplete, of another schema or of another
                type.
        """
        with self._open() as file:
            if name not in file or not file[name].attrs.get("complete"):
                raise ValueError(
                    f"{self.path} holds no result {name!r} (it holds {', '.join(_names(file)) or 'nothing'})"
                )
            group = file[name]
            if group.attrs["record"] != record_type.__name__:
                raise ValueError(
                    f"{self.path}: {name} is a {group.attrs['record']}, not a {record_type.__name__}"
                )
            arrays = {f.name: group[f.name][...] for f in array_fields(record_type)}
            return record_type(
                **arrays, **{f.name: _scalar(group.attrs[f.name]) for f in scalar_fields(record_type)}
            )

    def entries(self) -> list[Entry]:
        """Describe all results, in the order of their names."""
        if not self.path.exists():
            return []
        with self._open() as file:
            return [_entry(name, file[name]) for name in _names(file)]

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        self._check()
        try:
            with h5py.File(self.path, "r") as file:
                yield file
        except (OSError, KeyError) as error:
            raise ValueError(f"{self.path} is damaged (delete it to measure again): {error}") from None

    def _check(self) -> None:
        if not self.path.exists():
            raise ValueError(
                f"there is no results file {self.path} (has this run been trained and measured?)"
            )
        try:
            with h5py.File(self.path, "r") as file:
                found, complete = file.attrs.get("schema_version"), file.attrs.get("complete")
        except OSError as error:
            raise ValueError(
                f"{self.path} is not a readable HDF5 file (truncated? delete it to measure again): {error}"
            ) from None
        if found != SCHEMA_VERSION:
            raise ValueError(
                f"{self.path} has schema version {found}, but this program reads version {SCHEMA_VERSION}"
            )
        if not complete:
            raise ValueError(f"{self.path} is incomplete (delete it to measure again)")


class PartialResults:
    """Finished pieces of a result in progress, each in a file of its own.

    Args:
        folder: where the pieces lie; removed by `clear`.
        key: digest of everything the pieces depend on; pieces of another key are deleted.
        enabled: whether this process may delete stale pieces (one process per job should).
    """

    def __init__(self, folder: Path, key: str, *, may_clear: bool = True) -> None:
        self.folder, self.key = folder / key, key
        if may_clear and folder.exists():
            for stale in folder.iterdir():
                if stale != self.folder:
                    shutil.rmtree(stale, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def done(self, index: int) -> bool:
        """Tell whether piece ``index`` is finished."""
        return self._path(index).exists()

    def put(self, index: int, arrays: Mapping[str, Array]) -> None:
        """Store piece ``index`` atomically; raise ValueError if the disk is full or not writable."""
        with atomic_write(self._path(index)) as temporary:
            temporary.write_bytes(_empty_file())
            _reserve(temporary, list(arrays.values()))
            with h5py.File(temporary, "a") as file:
                for name, value in arrays.items():
                    file[name] = value

    def collect(self, count: int) -> dict[str, Array]:
        """Concatenate pieces 0..count-1 along their first axis.

        Raises:
            ValueError: if a piece is missing or unreadable.
        """
        pieces = [self._read(index) for index in range(count)]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def clear(self) -> None:
        """Delete all pieces."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.h5"

    def _read(self, index: int) -> dict[str, Array]:
        try:
            with h5py.File(self._path(index), "r") as file:
                return {name: file[name][...] for name in file}
        except OSError as error:
            raise ValueError(
                f"{self._path(index)} is missing or damaged (delete it to compute it again): {error}"
            ) from None


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the run's folder for this process.

    Raises:
        ValueError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise ValueError(
                f"{folder} is in use by another process (pid {owner}): wait for it, or stop it"
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def digest(*parts: object) -> str:
    """Return 12 hexadecimal digits that identify JSON-serialisable parts: the key of a result."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]


@cache
def environment() -> dict[str, Any]:
    """Return what a number's provenance needs of this process: versions, machine, commit, command."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {
            name: _version(name)
            for name in ("ddpm_eval", "torch", "torch-fidelity", "numpy", "scipy", "h5py")
        },
        "git_commit": _git_commit(),
        "command": " ".join(sys.argv),
    }


def _write(group: h5py.Group, record: Record) -> None:
    group.attrs["record"] = type(record).__name__
    for f in array_fields(type(record)):
        value = np.asarray(getattr(record, f.name))
        options = (
            {"compression": "gzip", "compression_opts": 4, "shuffle": True, "chunks": True}
            if value.size > 64
            else {}
        )
        data = group.create_dataset(f.name, data=value, **options)
        data.attrs["unit"], data.attrs["meaning"] = f.metadata["unit"], f.metadata["meaning"]
        for axis, dim in enumerate(f.metadata["dims"]):
            data.dims[axis].label = dim
    for f in scalar_fields(type(record)):
        group.attrs[f.name] = getattr(record, f.name)


def _entry(name: str, group: h5py.Group) -> Entry:
    arrays, sizes, scalars = {}, [], {}
    for key, data in group.items():
        sizes.append([(dim.label, length) for dim, length in zip(data.dims, data.shape, strict=True)])
        dims = ", ".join(f"{name} {length}" for name, length in sizes[-1])
        arrays[key] = f"[{dims}] {data.dtype}, {data.attrs['unit']}"
    for key, value in group.attrs.items():
        if key not in ("record", "key", "provenance", "complete"):
            scalars[key] = _scalar(value)
    return Entry(
        name,
        group.attrs["record"],
        group.attrs["key"],
        json.loads(group.attrs["provenance"]),
        arrays,
        sizes,
        scalars,
    )


def _names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if item.attrs.get("complete") else None)
    return sorted(names)


def _scalar(value: Any) -> Any:  # noqa: ANN401 - whatever HDF5 held
    return value.item() if isinstance(value, np.generic) else value


@contextmanager
def _writers_queue(final: Path) -> Iterator[None]:
    """Wait for every other process that writes ``final``: each copies, adds and renames, so that two at once
    would lose one.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = final.with_name(f".{final.name}.lock").open("a")
    except OSError as error:
        raise ValueError(f"cannot write {final} (disk full, or no permission?): {error}") from None
    with lock:  # closing it lets the next one in, as does the end of the process
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def atomic_write(final: Path) -> Iterator[Path]:
    """Give the name of a temporary file that becomes ``final`` if the block succeeds, and is removed if it
    fails.
    """
    temporary = final.with_name(f"{final.name}.{os.getpid()}.tmp")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        for stale in final.parent.glob(
            f"{final.name}.*.tmp"
        ):  # of a writer that was killed; a living one has its turn
            stale.unlink(missing_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(final)
    except (OSError, RuntimeError) as error:  # h5py raises either
        raise ValueError(f"cannot write {final} (disk full, or no permission?): {error}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _reserve(path: Path, arrays: Sequence[Array]) -> None:
    """Claim the disk space that writing ``arrays`` can need: HDF5 does not survive a disk that fills while it
    writes.

    HDF5 cuts what it did not use when it closes the file.
    """
    room = round(HDF5_MARGIN * sum(np.asarray(value).nbytes for value in arrays)) + HDF5_OVERHEAD_BYTES
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size + room)


@cache
def _empty_file() -> bytes:
    with h5py.File("empty", "w", driver="core", backing_store=False) as file:
        file.flush()
        return bytes(file.id.get_file_image())


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _git_commit() -> str:
    here = Path(__file__).resolve().parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except OSError:
        return "unknown"
    return run.stdout.strip() or "unknown"
