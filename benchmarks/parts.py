"""Large files in parts small enough to carry, each checked by its SHA-256.

A folder of parts holds `SHA256SUMS`, in the form that ``sha256sum`` writes and checks, and the parts, whose
names sort in their order, so that ``cat NAME.*`` joins them by hand. A new set of parts is complete before
`SHA256SUMS` names it, and the old one is deleted after that: whenever the writer is killed, the folder holds
one complete set.
"""

import fcntl
import hashlib
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SUMS = "SHA256SUMS"
BLOCK_BYTES = 2**22
JOINED = re.compile(r"(.+?\.(?:npz|tar\.gz|tgz|tar|zip))(?:[._-]?(.*))")
"""The name of a file of which a part's name begins with it, and what tells the parts apart."""


class PartWriter:
    """A stream that becomes files ``NAME.000-DIGEST``, ``NAME.001-DIGEST``, ... of at most ``limit`` bytes.

    The first 8 digits of a part's SHA-256 are in its name: parts of equal content have equal names, so that a
    part that is already carried need not be carried again, and two sets of parts do not disturb each other.
    """

    def __init__(self, folder: Path, name: str, limit: int) -> None:
        self.folder, self.name, self.limit = folder, name, limit
        self.digests: dict[str, str] = {}
        self._begin()

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> int:
        """Append data, beginning a new part wherever one is full."""
        view = memoryview(data)
        while len(view):
            if self.size == self.limit:
                self._finish()
                self._begin()
            piece = view[: self.limit - self.size]
            self.file.write(piece)
            self.digest.update(piece)
            self.size += len(piece)
            view = view[len(piece) :]
        return len(data)

    def close(self) -> dict[str, str]:
        """End the last part; return the SHA-256 of each part by its name."""
        self._finish()
        return self.digests

    def _begin(self) -> None:
        self.temporary = self.folder / f".{self.name}.writing"
        self.file, self.digest, self.size = self.temporary.open("wb"), hashlib.sha256(), 0

    def _finish(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        digest = self.digest.hexdigest()
        part = f"{self.name}.{len(self.digests):03d}-{digest[:8]}"
        self.temporary.replace(self.folder / part)
        self.digests[part] = digest


def pack(files: Iterable[Path], root: Path, folder: Path, name: str, limit: int) -> list[str]:
    """Write files as the parts of one tar archive, in place of what the folder held.

    Args:
        files: in the order of the archive: what changes least first, so that its parts stay the same.
        root: to which the names in the archive are relative.
        folder: of the parts; created.
        name: of the archive.
        limit: of a part, bytes.

    Returns:
        The names of the parts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with PartWriter(folder, name, limit) as writer:
        with tarfile.open(fileobj=writer, mode="w|") as archive:
            for file in files:
                archive.add(file, file.relative_to(root))
        digests = writer.close()
    write_sums(folder, digests)
    delete_others(folder, digests)
    return list(digests)


def unpack(folder: Path, root: Path) -> list[Path]:
    """Check the parts of an archive and restore its files below ``root``; return their paths.

    A file appears when it is complete, the archive's first one last.

    Raises:
        ValueError: if a part is missing or damaged.
    """
    parts = checked(folder, read_sums(folder))
    staging = root / f".restoring-{os.getpid()}"
    staging.mkdir(parents=True)
    try:
        joined = staging / "archive.tar"
        concatenate(parts, joined)
        with tarfile.open(joined) as archive:
            names = [member.name for member in archive if member.isfile()]
            archive.extractall(staging / "files", filter="data")
        for name in reversed(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / "files" / name).replace(root / name)
    finally:
        shutil.rmtree(staging)
    return [root / name for name in names]


def is_complete(folder: Path) -> bool:
    """Tell whether a folder holds all the files that its ``SHA256SUMS`` names, without checking them."""
    sums = read_sums(folder)
    return bool(sums) and all((folder / name).is_file() for name in sums)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep every other process that asks for this folder waiting while the block runs."""
    with (folder / ".parts.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_sums(folder: Path, digests: Mapping[str, str]) -> None:
    """Write ``SHA256SUMS``, which appears when it is complete."""
    temporary = folder / f".{SUMS}.writing"
    temporary.write_text("".join(f"{digest}  {part}\n" for part, digest in digests.items()))
    temporary.replace(folder / SUMS)


def delete_others(folder: Path, names: Container[str]) -> None:
    """Delete the files of a folder of parts that are not among ``names``."""
    for path in folder.iterdir():
        if path.name not in names and path.name != SUMS:
            path.unlink()


def read_sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that ``SHA256SUMS`` names; none where there is no such file."""
    path = folder / SUMS
    if not path.exists():
        return {}
    lines = [line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip()]
    if not all(len(line) == 2 and re.fullmatch(r"[0-9a-fA-F]{64}", line[0]) for line in lines):
        raise ValueError(f"{path} is no list of SHA-256 and names, as sha256sum writes it")
    return {name.lstrip("*").strip(): digest.lower() for digest, name in lines}


def checked(folder: Path, digests: dict[str, str]) -> list[Path]:
    """Return the files that ``digests`` names, in order; raise ValueError if one is missing or damaged."""
    missing = [name for name in digests if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of the {len(digests)} files that its {SUMS} names, the first is "
            f"{missing[0]}"
        )
    for name, digest in digests.items():
        check(folder / name, digest)
    return [folder / name for name in sorted(digests)]


def check(path: Path, digest: str) -> None:
    """Raise ValueError unless a file has this SHA-256."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise ValueError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., not {digest[:12]}... (copy it again)"
        )


def concatenate(parts: Iterable[Path], path: Path) -> None:
    """Write files one after the other into one, which appears when it is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.joining")
    try:
        with temporary.open("wb") as target:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, target, BLOCK_BYTES)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def join_data(folder: Path, root: Path) -> list[Path]:
    """Join the data files that lie in a folder, whole or in parts, into the root of the data sets.

    The parts of FILE are named FILE followed by anything that tells their order, such as
    ``cifar10.npz.part00`` or ``cifar-10-python.tar.gz.aa``. If the folder has a ``SHA256SUMS``, the parts or
    files that it names are checked.

    Returns:
        The paths of the joined files.

    Raises:
        ValueError: if there are no parts, one is missing or damaged, or the result is.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} of data files or their parts")
    sums, groups = read_sums(folder), grouped(folder)
    joined = set(groups)
    checked(
        folder,
        {name: digest for name, digest in sums.items() if name not in joined or (folder / name).is_file()},
    )
    root.mkdir(parents=True, exist_ok=True)
    for name, parts in groups.items():
        target = root / name
        if not target.exists() or target.stat().st_size != sum(part.stat().st_size for part in parts):
            concatenate(parts, target)
        if name in sums:
            check(target, sums[name])
        check_container(target, len(parts))
    return [root / name for name in groups]


def grouped(folder: Path) -> dict[str, list[Path]]:
    """Return the parts of each file in order.

    Raises:
        ValueError: if a name is no part's, or a number is left out.
    """
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name == SUMS or path.name.startswith(".") or not path.is_file():
            continue
        match = JOINED.fullmatch(path.name)
        if match is None:
            raise ValueError(
                f"{path} is neither a data file nor a part of one (FILE.npz or FILE.tar.gz, followed by "
                "anything)"
            )
        groups.setdefault(match[1], []).append(path)
    if not groups:
        raise ValueError(f"{folder} holds no data files and no parts of any")
    return {name: _ordered(name, parts) for name, parts in groups.items()}


def _ordered(name: str, parts: Sequence[Path]) -> list[Path]:
    """Sort the parts of a file, by their number where all have one."""
    numbers = [re.fullmatch(r"\D*(\d+)", part.name.removeprefix(name)) for part in parts]
    if not all(numbers):
        return sorted(parts)
    order = {int(number[1]): part for number, part in zip(numbers, parts, strict=True) if number}
    first, last = min(order), max(order)
    missing = sorted(set(range(first, last + 1)) - set(order))
    if missing or first > 1 or len(order) != len(parts):
        raise ValueError(f"the parts of {name} are numbered {sorted(order)}: one is missing, or there twice")
    return [order[number] for number in sorted(order)]


def check_container(path: Path, count: int) -> None:
    """Raise ValueError if a zip or npz file is incomplete or damaged.

    The archives of torchvision's sets are checked by torchvision.
    """
    if path.suffix not in (".npz", ".zip"):
        return
    try:
        with zipfile.ZipFile(path) as file:
            bad = file.testzip()
    except zipfile.BadZipFile as error:
        bad = str(error)
    if bad is not None:
        path.unlink()
        raise ValueError(
            f"{path.name}, joined from {count} parts, is damaged ({bad}): is a part missing at the end?"
        )
