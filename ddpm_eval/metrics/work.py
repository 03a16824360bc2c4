"""How an estimator's work is carried out: here, in this process and in memory.

An estimator cuts its work into items and hands them to a `Work`, which computes every item once and joins the
results. `SERIAL` computes them one after the other. `ddpm_eval.stages.shared_work.SharedWork` keeps finished
items on disk and shares them among processes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from ddpm_eval.results.fields import Array
from ddpm_eval.runtime import Progress, silent

T = TypeVar("T")


class Work(Protocol):
    """Computes work items; see the module's header."""

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
        """Compute all items and join their arrays along the first axis, in the items' order.

        Args:
            name: of the work, shown as progress and naming what is kept on disk.
            key: digest of everything that the items depend on beside what the work itself knows.
            items: to be computed.
            compute: returns an item's arrays.
            cost_per_item: network evaluations of each item.
            everywhere: return the result on every process, and show no progress.

        Returns:
            The joined arrays; None on processes other than the main one, unless ``everywhere``.
        """

    def advance(self, evaluations: int) -> None:
        """Report that an item in progress has made so many more network evaluations."""


class SerialWork:
    """Computes items one after the other and keeps them in memory.

    Args:
        progress: called with the work's name, the network evaluations done and their total.
    """

    def __init__(self, progress: Progress = silent) -> None:
        self.progress = progress
        self._name = ""
        self._done = 0
        self._total = 0

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
        """Compute all items and join their arrays; see `Work.map`."""
        self._name = "" if everywhere else name
        self._done = 0
        self._total = sum(cost_per_item)
        results = []
        for item, cost in zip(items, cost_per_item, strict=True):
            before = self._done
            results.append(compute(item))
            self.advance(before + cost - self._done)
        return {field: np.concatenate([arrays[field] for arrays in results]) for field in results[0]}

    def advance(self, evaluations: int) -> None:
        """Report that an item in progress has made so many more network evaluations."""
        self._done += evaluations
        if self._name:
            self.progress(self._name, self._done, self._total)


SERIAL = SerialWork()
"""This process, in memory, without progress."""
