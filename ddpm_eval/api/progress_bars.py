"""Progress as bars on stderr, one for each stage."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm

from ddpm_eval.runtime import Progress, silent


class ProgressBars:
    """A bar on stderr for each stage, one after the other."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is; another stage, total or a new beginning starts another bar."""
        bar = self._bar
        if bar is None or (bar.desc, bar.total) != (f"{stage}: ", total) or done < bar.n:
            self.close()
            bar = self._bar = tqdm(desc=stage, total=total, file=sys.stderr, dynamic_ncols=True)
        bar.update(done - bar.n)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


@contextmanager
def shown(progress: bool | Progress) -> Iterator[Progress]:
    """Give the function that shows progress while the block runs."""
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield silent
    else:
        bars = ProgressBars()
        try:
            yield bars
        finally:
            bars.close()
