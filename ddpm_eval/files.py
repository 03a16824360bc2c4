"""Files that are whole or absent, locks, and the digests that identify content.

Every file of the project is written by `atomic_write`: under a temporary name, synchronised and renamed, so
that a reader never meets half a file and a kill leaves the previous one in place. A digest is 12 hexadecimal
digits of SHA-256.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

try:
    import fcntl
except ImportError:  # Windows has no fcntl; msvcrt locks bytes instead
    fcntl = None  # type: ignore[assignment]

DIGEST_DIGITS = 12
BLOCK_BYTES = 2**20
LOCKED_BYTE = 2**30
"""Position of the byte that Windows locks, beyond anything that is written into the file."""
LOCK_POLL_SECONDS = 0.05


def digest(*parts: object) -> str:
    """Return the digest of JSON-serialisable parts: the key of a result."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]


def content_digest(parts: Iterable[str | npt.NDArray[Any]]) -> str:
    """Return the digest of texts and arrays in their order: of an array its type, shape and values count."""
    content = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            content.update(part.encode())
            continue
        values = np.ascontiguousarray(part)
        content.update(f"{values.dtype} {part.shape}".encode())
        content.update(values.reshape(-1).view(np.uint8).data)
    return content.hexdigest()[:DIGEST_DIGITS]


def file_digest(path: Path) -> str:
    """Return the digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_DIGITS]


@contextmanager
def atomic_write(final: Path) -> Iterator[Path]:
    """Give the name of a temporary file that becomes ``final`` if the block succeeds.

    If the block fails, the temporary file is removed and ``final`` stays as it was. Temporary files that
    killed writers of ``final`` left behind are removed first. The folder is created.

    Raises:
        ValueError: if the file cannot be written.
    """
    temporary = final.with_name(f"{final.name}.{os.getpid()}.tmp")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(final)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(final)
        sync_folder(final.parent)
    except (OSError, RuntimeError) as error:  # h5py raises either
        raise ValueError(f"cannot write {final} (disk full, or no permission?): {error}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(final: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8.

    Raises:
        ValueError: if the file cannot be written.
    """
    with atomic_write(final) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield a folder that takes the place of ``final`` when the block ends, and disappears if it fails.

    Raises:
        ValueError: if ``final`` exists and is not an empty folder, or cannot be written.
    """
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise ValueError(f"{final} exists and is not an empty folder (name another one with --out)")
    temporary = final.with_name(f"{final.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(final)
        sync_folder(final.parent)
    except OSError as error:
        raise ValueError(f"cannot write {final} (disk full, or no permission?): {error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def set_aside(path: Path) -> Path:
    """Give a damaged file the name ``NAME.damaged``, in place of an earlier one of that name, and return it.

    Raises:
        ValueError: if the file cannot be renamed.
    """
    aside = path.with_name(f"{path.name}.damaged")
    try:
        path.replace(aside)
        sync_folder(path.parent)
    except OSError as error:
        raise ValueError(f"cannot rename {path} (no permission?): {error}") from None
    return aside


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder survive a power cut."""
    if os.name == "nt":  # Windows cannot open folders, and keeps renames itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a run's folder for this process while the block runs.

    Raises:
        ValueError: if another process has locked it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as lock:
        try:
            _lock(lock, wait=False)
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


@contextmanager
def file_lock(final: Path) -> Iterator[None]:
    """Wait for every other process that holds the lock of ``final``, then hold it while the block runs.

    The end of the process releases the lock, too.

    Raises:
        ValueError: if the lock cannot be created.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = final.with_name(f".{final.name}.lock").open("a")
    except OSError as error:
        raise ValueError(f"cannot write {final} (disk full, or no permission?): {error}") from None
    with lock:
        _lock(lock, wait=True)
        yield


def _remove_abandoned(final: Path) -> None:
    """Remove the temporary files of writers of ``final`` that no longer run on this machine."""
    for stale in final.parent.glob(f"{final.name}.*.tmp"):
        owner = stale.name.removeprefix(f"{final.name}.").removesuffix(".tmp")
        if owner == str(os.getpid()) or (owner.isdecimal() and not _runs(int(owner))):
            stale.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Tell whether a process of this number runs on this machine; on Windows, which cannot ask, always."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def reserve(path: Path, size: int) -> None:
    """Claim disk space for a file of ``size`` bytes; its content stays as it is, followed by zeros.

    Raises:
        OSError: if the disk is full.
    """
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        missing = size - file.seek(0, os.SEEK_END)  # macOS and Windows: only writing claims space
        while missing > 0:
            missing -= file.write(bytes(min(missing, BLOCK_BYTES)))


def _lock(file: IO[str], *, wait: bool) -> None:
    """Lock an open file for this process; without ``wait`` raise OSError if another process has locked it."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt  # Windows only

    while True:
        try:
            file.seek(LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
            return
        except OSError:
            if not wait:
                raise
            time.sleep(LOCK_POLL_SECONDS)
