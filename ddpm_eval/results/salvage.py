"""What can be kept of a damaged results file.

The HDF5 library can crash, hang or ask for any amount of memory on a damaged file. So a process of its own
reads the file, and its crash or its silence condemns the result that it was reading. A result is kept only if
the digest of all that its group holds is the one that was written with it.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

from ddpm_eval.results import hdf5
from ddpm_eval.results.result_groups import groups_of, is_intact

SILENT_SECONDS = 60.0
"""A process that reads one result for longer is taken to hang."""
LARGEST_EXPANSION = 1032
"""DEFLATE, which compresses the arrays, makes no content smaller than this."""

Answer: TypeAlias = str | bool


def examine(path: Path, *, checked: bool) -> dict[str, bool]:
    """Tell of each result of a file, by its ``NAME/KEY``, whether it is what was written.

    Args:
        path: of the file.
        checked: whether the file is known to be intact; results without a digest are then, too.
    """
    names = [str(name) for name in _answers(_list, path)]
    states: dict[str, bool] = {}
    while left := [name for name in names if name not in states]:
        answers = [bool(answer) for answer in _answers(_compare, path, left, checked)]
        states.update(zip(left, answers, strict=False))
        if len(answers) < len(left):
            states[left[len(answers)]] = False  # reading it was the end of the process
    return states


def copy(source: Path, target: Path, names: Sequence[str]) -> None:
    """Write the named results of a file, which must be intact, to a new file.

    Raises:
        ValueError: if they cannot be copied (disk full?).
    """
    hdf5.create(target)
    if list(_answers(_copy, source, target, names)) != list(names):
        raise ValueError(f"the intact results of {source} cannot be copied (disk full?)")
    hdf5.seal(target)


def _answers(function: Callable[..., Iterator[Answer]], *arguments: object) -> Iterator[Answer]:
    """Yield what a function yields in a process of its own, until that ends or is silent for too long."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    with receiver, suppress(EOFError):
        while receiver.poll(SILENT_SECONDS):
            yield receiver.recv()
    process.kill()
    process.join()


def _send(
    sender: Connection, function: Callable[..., Iterator[Answer]], arguments: tuple[object, ...]
) -> None:
    with suppress(Exception):  # what the library raises on a damaged file; the answers end here
        for answer in function(*arguments):
            sender.send(answer)


def _list(path: Path) -> Iterator[str]:
    with hdf5.File(path, "r") as file:
        yield from [str(group.name).strip("/") for group in groups_of(file)]


def _compare(path: Path, names: Sequence[str], checked: bool) -> Iterator[bool]:
    with hdf5.File(path, "r") as file:
        for name in names:
            intact = False
            with suppress(Exception):  # as above; the next result may be intact
                intact = _is_possible(file[name], path) and is_intact(file[name], checked=checked)
            yield intact


def _copy(source: Path, target: Path, names: Sequence[str]) -> Iterator[str]:
    with hdf5.File(source, "r") as old, hdf5.File(target, "a") as new:
        for name in names:
            old.copy(name, new.require_group(name.rpartition("/")[0]))
            if not is_intact(new[name], checked=True):
                return
            yield name


def _is_possible(group: hdf5.Group, path: Path) -> bool:
    """Tell whether the arrays of a group are no larger than what the file can hold."""
    return sum(data.nbytes for data in group.values()) <= LARGEST_EXPANSION * path.stat().st_size
