"""Work items that survive a kill and are divided among the processes of torchrun."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ddpm_eval.files import digest
from ddpm_eval.metrics.bound import NotFinite
from ddpm_eval.results.fields import Array
from ddpm_eval.results.partial import PartialResults
from ddpm_eval.runtime import Progress, Runtime, silent

T = TypeVar("T")
COMPLETE = "complete"
"""A file among the finished items of work of which all items are finished."""


class SharedWork:
    """Computes work items, each on one of the processes, and keeps finished ones on disk.

    Args:
        folder: where finished items are kept, and nothing else.
        key: digest of everything that the items depend on beside the key that is given to `map`.
        runtime: the processes.
        progress: called with the work's name, the network evaluations done and their total, over all
            processes.
    """

    def __init__(self, folder: Path, key: str, runtime: Runtime, progress: Progress = silent) -> None:
        self.folder = folder
        self.key = key
        self.runtime = runtime
        self.progress = progress
        self._name = ""
        self._total = self._share = self._done = 0

    def map(
        self,
        name: str,
        key: str,
        items: Sequence[T],
        compute: Callable[[T], Mapping[str, Array]],
        cost_per_item: Sequence[int],
        *,
        everywhere: bool = False,
    ) -> dict[str, Array] | None:
        """Compute the items that are not finished yet, and join all; see `ddpm_eval.metrics.work.Work.map`.

        Raises:
            NotFinite: if the network's output is not finite here or on another process: on all of them.
        """
        partial = self._open(name, key)
        shard = self.runtime.shard(range(len(items)))
        finished = {index for index in shard if partial.done(index)}
        self._start("" if everywhere else name, cost_per_item, shard, finished)
        failure = None
        try:
            for index in shard:
                if index not in finished:
                    before = self._done
                    partial.put(index, compute(items[index]))
                    self.advance(before + cost_per_item[index] - self._done)
        except NotFinite as error:
            failure = error
        if self.runtime.any_process(failure is not None):
            raise failure or NotFinite("the network's output is not finite on another process")
        return partial.collect(len(items)) if everywhere or self.runtime.main else None

    def advance(self, evaluations: int) -> None:
        """Report that an item in progress has made so many more network evaluations."""
        self._done += evaluations
        if self._name and self._share:
            self.progress(self._name, self._total * self._done // self._share, self._total)

    def clear(self) -> None:
        """Delete the finished items, once what was made of them is stored; all processes call this."""
        self.runtime.barrier()  # all have read them
        if self.runtime.main:
            shutil.rmtree(self.folder, ignore_errors=True)

    def complete(self) -> None:
        """Note that what was made of the finished items is about to be stored; all processes call this."""
        self.runtime.barrier()  # all have read them
        if self.runtime.main and self.folder.exists():
            with suppress(OSError):  # the result itself says why nothing can be written
                (self.folder / COMPLETE).touch()

    def clear_left_behind(self) -> None:
        """Delete finished items that a kill left after what was made of them was stored."""
        if self.runtime.main and (self.folder / COMPLETE).exists():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _open(self, name: str, key: str) -> PartialResults:
        if self.runtime.main:
            (self.folder / COMPLETE).unlink(missing_ok=True)
        folder = self.folder / name.replace(" ", "-")
        return PartialResults(folder, digest(self.key, key), may_clear=self.runtime.main)

    def _start(self, name: str, costs: Sequence[int], shard: Sequence[int], finished: set[int]) -> None:
        self._name = name
        self._total = sum(costs)
        self._share = sum(costs[index] for index in shard)
        self._done = sum(costs[index] for index in finished)
        self.advance(0)
