"""When the training loop looks at the loss, the clock and the signals: by number of updates, and by time."""

import time
from collections.abc import Iterable

import torch

from ddpm_eval.runtime import Runtime

CHECK_SECONDS = 10.0
"""The longest time between checks, but for the update that is under way."""


class CheckTimes:
    """Tells after which updates there is a check, the same ones in all processes.

    A single process looks at its clock after each update. Several cannot, because their clocks differ: at
    each check they agree on how many updates fit into `CHECK_SECONDS`, judging by those since the last one.

    Args:
        intervals: there is a check after every multiple of one of these numbers of updates.
        step: the number of updates done before.
        runtime: the process.
    """

    def __init__(self, intervals: Iterable[int], step: int, runtime: Runtime) -> None:
        self.intervals = tuple(intervals)
        self.runtime = runtime
        self.step = step
        self.next_step = step + 1
        self.time = time.monotonic()

    def due(self, step: int, *, urgent: bool) -> bool:
        """Tell whether there is a check after update ``step``.

        Args:
            step: the number of updates done.
            urgent: whether this process knows a reason for a check, which only a single one may act on.
        """
        if any(step % interval == 0 for interval in self.intervals):
            return True
        if self.runtime.world_size > 1:
            return step >= self.next_step
        return urgent or time.monotonic() - self.time >= CHECK_SECONDS

    def checked(self, step: int) -> None:
        """Note that there was a check after update ``step``; all processes must call this."""
        now = time.monotonic()
        if self.runtime.world_size > 1:
            elapsed = torch.tensor(now - self.time, device=self.runtime.device)
            seconds_per_update = max(self.runtime.mean(elapsed).item(), 1e-6) / (step - self.step)
            self.next_step = step + max(1, int(CHECK_SECONDS / seconds_per_update))
        self.step = step
        self.time = now
