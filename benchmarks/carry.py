"""What travels to a lent machine and back, within what one call may carry.

    python benchmarks/carry.py split FILE FOLDER       # at home: FOLDER/1, FOLDER/2, ..., one for each call
    python benchmarks/carry.py receive FOLDER PLACE    # there: gather the parts of a data set
    python benchmarks/carry.py collect OUT TARGET      # there: take the next files along
    python benchmarks/carry.py bring FILES HOME        # at home: gather them, and say what is complete
    python benchmarks/carry.py unpack HOME RUNS        # at home: restore what is complete below RUNS

There OUT is the folder of `gpu_run.py`, and HOME becomes its copy: a later stay continues from it. A call
carries at most 8 files of 16 MiB back, 64 MiB in all: the most important come first. See docs/scaling.md.
"""

import argparse
import fcntl
import hashlib
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import parts

MIB = 2**20
SETS = ("notes", "weights", "results", "state")
"""What a stay leaves, each as parts in a folder of its own, in the order of importance."""
MANIFEST = "MANIFEST"
"""The file of a call that lists the present parts of all sets; the others are called SET.PART."""
DELIVERED = "delivered.txt"
"""The file in OUT that lists what earlier calls took along."""
BUSY = ".lock"
"""The file in OUT that a stay locks as long as it lasts."""
CALL_BYTES = 52 * MIB
"""Data of one call to the machine, where the repository and packages travel, too."""


@dataclass(frozen=True)
class Limits:
    """What one call may carry back.

    Attributes:
        files: the number of files.
        file_bytes: the size of each.
        total_bytes: the size of all.
    """

    files: int = 8
    file_bytes: int = 16 * MIB
    total_bytes: int = 64 * MIB


LIMITS = Limits()


# To the machine


def split(file: Path, folder: Path, call_bytes: int = CALL_BYTES) -> list[Path]:
    """Cut a file into equal parts, one for each call, as few as there can be.

    Args:
        file: to be carried.
        folder: of the calls' folders 1, 2, ...; it must not exist.
        call_bytes: the largest size of a part.

    Returns:
        The calls' folders, each with its part and a ``SHA256SUMS`` of all parts.
    """
    folder.mkdir(parents=True)
    n_calls = -(-file.stat().st_size // call_bytes)
    size = -(-file.stat().st_size // n_calls)
    digests: dict[str, str] = {}
    calls = [folder / str(number) for number in range(1, n_calls + 1)]
    with file.open("rb") as source:
        for number, call in enumerate(calls):
            block = source.read(size)
            name = f"{file.name}.part{number:03d}"
            call.mkdir()
            (call / name).write_bytes(block)
            digests[name] = hashlib.sha256(block).hexdigest()
    for call in calls:
        parts.write_sums(call, digests)
    return calls


def receive(folder: Path, place: Path) -> int:
    """Check the parts that came with a call, and add them to those of earlier calls.

    Returns:
        The number of parts that are still to come.

    Raises:
        ValueError: if a part is damaged, or there is none.
    """
    sums = parts.read_sums(folder)
    here = {name: digest for name, digest in sums.items() if (folder / name).is_file()}
    if not here:
        raise ValueError(f"{folder} holds no parts that a {parts.SUMS} in it names")
    place.mkdir(parents=True, exist_ok=True)
    for path in parts.checked(folder, here):
        shutil.copyfile(path, place / path.name)
    shutil.copyfile(folder / parts.SUMS, place / parts.SUMS)
    return sum(not (place / name).is_file() for name in sums)


# Back


def collect(out: Path, target: Path, limits: Limits = LIMITS, *, again: bool = False) -> tuple[int, int]:
    """Copy the next parts that no call has taken along, as many as one may carry.

    Args:
        out: a stay's folder.
        target: of the files to carry.
        limits: of a call.
        again: begin anew, because a call was lost.

    Returns:
        The numbers of the parts that are copied, and of those that remain.
    """
    delivered = out / DELIVERED
    if again:
        delivered.unlink(missing_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    with parts.exclusive(out):
        present = _present(out)
        known = set(delivered.read_text().split()) if delivered.exists() else set()
        manifest = "".join(f"{digest}  {name}\n" for name, digest in present.items())
        (target / MANIFEST).write_text(manifest)
        waiting = {name: (out / name).stat().st_size for name in present if name not in known}
        chosen = _fitting(waiting, len(manifest), limits)
        for name in chosen:
            shutil.copyfile(out / name, target / name.replace("/", "."))
        with delivered.open("a") as file:
            file.writelines(f"{name}\n" for name in chosen)
    return len(chosen), len(waiting) - len(chosen)


def _present(out: Path) -> dict[str, str]:
    """Return the SHA-256 of every part of all sets by SET/PART, the most important first."""
    sums = {name: parts.read_sums(out / name) for name in SETS}
    return {f"{name}/{part}": digest for name, found in sums.items() for part, digest in found.items()}


def _fitting(sizes: Mapping[str, int], manifest_bytes: int, limits: Limits) -> list[str]:
    """Return the first names whose files one call may carry beside the manifest."""
    chosen: list[str] = []
    total = manifest_bytes
    for name, size in sizes.items():
        if size > limits.file_bytes:
            raise ValueError(
                f"{name} has {size / MIB:.1f} MiB, but a call carries files of {limits.file_bytes / MIB:g} "
                "MiB (begin the stay with a smaller --part-mb)"
            )
        total += size
        if len(chosen) + 2 > limits.files or total > limits.total_bytes:
            break
        chosen.append(name)
    return chosen


def bring(files: Path, home: Path) -> dict[str, list[str]]:
    """Add the files of one call to those of earlier calls.

    A set that is complete replaces the one before it; until then that one stays.

    Returns:
        The parts of each set that are still to come.

    Raises:
        ValueError: if a file is damaged, or there is no list of them.
    """
    if not (files / MANIFEST).is_file():
        raise ValueError(f"{files} holds no {MANIFEST} (it is no folder of collected files)")
    sets: dict[str, dict[str, str]] = {}
    for line in (files / MANIFEST).read_text().splitlines():
        digest, name = line.split(maxsplit=1)
        group, part = name.split("/")
        sets.setdefault(group, {})[part] = digest
    missing = {}
    for group, digests in sets.items():
        (home / group).mkdir(parents=True, exist_ok=True)
        for part, digest in digests.items():
            came = files / f"{group}.{part}"
            if came.is_file():
                parts.check(came, digest)
                shutil.copyfile(came, home / group / part)
        missing[group] = [part for part in digests if not (home / group / part).is_file()]
        if not missing[group]:
            parts.write_sums(home / group, digests)
            parts.delete_others(home / group, digests)
    return missing


# Waiting


def is_busy(out: Path) -> bool:
    """Tell whether a stay goes on in a folder."""
    with suppress(FileNotFoundError), (out / BUSY).open("r") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def wait(out: Path, seconds: float, poll_seconds: float = 1) -> bool:
    """Wait until the stay in a folder is over, so many seconds at most; return whether it is."""
    end = time.monotonic() + seconds
    while is_busy(out) and time.monotonic() < end:
        time.sleep(min(poll_seconds, max(0, end - time.monotonic())))
    return not is_busy(out)


# Options


def main() -> None:
    """Do what the first word says; exit 2 if the user must change something."""
    options = parse()
    try:
        print(VERBS[options.verb](options))
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def say_split(options: argparse.Namespace) -> str:
    """Split a file, and name the folders."""
    calls = split(options.source, options.target, int(options.call_mb * MIB))
    return f"{len(calls)} calls: {', '.join(map(str, calls))}"


def say_received(options: argparse.Namespace) -> str:
    """Receive parts, and say how many are to come."""
    missing = receive(options.source, options.target)
    return f"{missing} parts are still to come" if missing else f"{options.target} is complete"


def say_collected(options: argparse.Namespace) -> str:
    """Wait, collect, and say what remains."""
    over = wait(options.source, options.wait)
    limits = Limits(options.files, int(options.file_mb * MIB), int(options.total_mb * MIB))
    taken, left = collect(options.source, options.target, limits, again=options.again)
    state = "The stay is over" if over else "The stay goes on"
    log = options.source / "log.txt"
    last = log.read_text().splitlines()[-options.lines :] if log.exists() else []
    return "\n".join([*last, f"{state}; {taken} parts collected, {left} remain."])


def say_brought(options: argparse.Namespace) -> str:
    """Bring files home, and say what is complete."""
    missing = bring(options.source, options.target)
    return "\n".join(
        f"{name}: {f'{len(names)} parts are still to come' if names else 'complete'}"
        for name, names in missing.items()
    )


def say_unpacked(options: argparse.Namespace) -> str:
    """Restore what is complete, and name it."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import kept_state  # needs the project and torch, which take seconds; nothing else here does

    return f"restored: {', '.join(kept_state.unpack(options.source, options.target)) or 'nothing'}"


VERBS = {
    "split": say_split,
    "receive": say_received,
    "collect": say_collected,
    "bring": say_brought,
    "unpack": say_unpacked,
}


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, function in VERBS.items():
        verb = verbs.add_parser(name, help=function.__doc__)
        verb.add_argument("source", type=Path)
        verb.add_argument("target", type=Path)
        if name == "split":
            verb.add_argument("--call-mb", type=float, default=CALL_BYTES / MIB, help="MiB of a call")
        if name == "collect":
            verb.add_argument("--wait", type=float, default=0, help="seconds to wait for the stay's end")
            verb.add_argument("--files", type=int, default=LIMITS.files, help="files of a call")
            verb.add_argument("--file-mb", type=float, default=LIMITS.file_bytes / MIB, help="MiB of a file")
            verb.add_argument("--total-mb", type=float, default=LIMITS.total_bytes / MIB, help="MiB of all")
            verb.add_argument("--again", action="store_true", help="begin anew: a call was lost")
            verb.add_argument("--lines", type=int, default=20, help="of the log to print")
    return parser.parse_args()


if __name__ == "__main__":
    main()
