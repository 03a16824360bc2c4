"""Progress on the terminal: one bar over all jobs of an experiment, or one for each stage of a command.

The bar of an experiment counts network evaluations, in which the scheduler states what each stage costs.
"""

import sys
from collections.abc import Callable, Mapping

from tqdm import tqdm

from ddpm_eval.runtime import Progress, ProgressEvent, is_main_process, silent

PREVIEW_DELAY_SECONDS = 2
TERMINAL_SECONDS = 0.2
LOG_FILE_SECONDS = 15.0
"""How often a bar is drawn again, on a terminal and in a log file."""
COUNTED_IN_UPDATES = "train"
"""The stage whose progress is not counted in network evaluations."""


class StageMeter:
    """The network evaluations of one stage, counted from the progress of its parts, which follow each other.

    Args:
        stage: name of the stage.
        cost: network evaluations of the stage.
    """

    def __init__(self, stage: str, cost: int) -> None:
        self.stage = stage
        self.cost = cost
        self.evaluations = 0
        self._earlier_parts = 0
        self._done = 0
        self._total = 0

    def update(self, event: ProgressEvent) -> None:
        """Count an event: a part whose total differs, or that begins again, is another part."""
        if self.stage == COUNTED_IN_UPDATES:
            self.evaluations = round(self.cost * event.done / event.total)
            return
        if event.total != self._total or event.done < self._done:
            self._earlier_parts += self._done
            self._total = event.total
        self._done = event.done
        self.evaluations = min(self.cost, self._earlier_parts + self._done)

    def finish(self) -> None:
        """Count the whole stage."""
        self.evaluations = self.cost


class ExperimentBar:
    """One bar over all jobs in units of network evaluations, with the time that is left.

    Args:
        missing: the stages that each job still needs, in their order, with their network evaluations.
        shown: whether this process shows anything.
    """

    def __init__(self, missing: Mapping[str, Mapping[str, int]], shown: bool) -> None:
        self.meters = {
            job: {stage: StageMeter(stage, cost) for stage, cost in stages.items()}
            for job, stages in missing.items()
        }
        self._doing: dict[str, str] = {}
        self.bar = tqdm(
            total=sum(sum(stages.values()) for stages in missing.values()),
            unit="eval",
            unit_scale=True,
            disable=not shown,
            smoothing=0.05,
            dynamic_ncols=True,
            miniters=0,  # what costs no evaluations is shown, too
            mininterval=_refresh_seconds(),
        )

    def __enter__(self) -> "ExperimentBar":
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()

    @property
    def evaluations(self) -> int:
        """The network evaluations that are counted so far, over all jobs."""
        return sum(meter.evaluations for stages in self.meters.values() for meter in stages.values())

    def update(self, event: ProgressEvent) -> None:
        """Show an event, and count it if its stage has a cost: the data set's classifier has none."""
        if event.total == 0:
            return
        if event.stage in self.meters[event.job]:
            self._count(event)
        self._doing[event.job] = f"{event.job} {event.stage} {100 * event.done // event.total}%"
        self._draw()

    def _count(self, event: ProgressEvent) -> None:
        """Count an event; the stages before it are done, because a job takes its stages in their order."""
        meters = self.meters[event.job]
        names = list(meters)
        for earlier in names[: names.index(event.stage)]:
            meters[earlier].finish()
        if event.stored:
            meters[event.stage].finish()
        else:
            meters[event.stage].update(event)

    def finish(self, job: str) -> None:
        """Show that a job is done."""
        for meter in self.meters[job].values():
            meter.finish()
        self._doing.pop(job, None)
        self._draw()

    def write(self, line: str, echo: Callable[[str], None]) -> None:
        """Print a line above the bar by ``echo``."""
        with self.bar.external_write_mode():
            echo(line)

    def _draw(self) -> None:
        self.bar.set_postfix_str("; ".join(self._doing.values()), refresh=False)
        self.bar.update(self.evaluations - self.bar.n)


class StageBars:
    """A progress callback that shows a bar for each stage, and a preview's only while and if it lasts."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        bar = self._bars.get(stage)
        if bar is not None and (bar.total != total or done < bar.n):  # the stage begins again
            self._close(stage)
        if stage not in self._bars and done < total:
            self._bars[stage] = _stage_bar(stage, total)
        if stage in self._bars:
            self._bars[stage].update(done - self._bars[stage].n)
            if done >= total:
                self._close(stage)

    def _close(self, stage: str) -> None:
        self._bars.pop(stage).close()


def stage_bars() -> Progress:
    """Return a progress callback that shows a bar for each stage, on the main process only."""
    return StageBars() if is_main_process() else silent


def _stage_bar(stage: str, total: int) -> tqdm:
    preview = stage.startswith("preview")
    return tqdm(
        total=total,
        desc=stage,
        unit_scale=True,
        dynamic_ncols=True,
        mininterval=_refresh_seconds(),
        leave=not preview,
        delay=PREVIEW_DELAY_SECONDS if preview else 0,
    )


def _refresh_seconds() -> float:
    """Return how often a bar is drawn again: often on a terminal, seldom in a log file."""
    return TERMINAL_SECONDS if sys.stderr.isatty() else LOG_FILE_SECONDS
