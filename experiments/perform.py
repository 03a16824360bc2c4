"""Running an experiment: its jobs with progress on the terminal, and the report as results arrive."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ddpm_eval.stages.scheduler import Job
from experiments.study import Study


def perform(
    study: Study,
    jobs: Sequence[Job],
    tables: Sequence[str],
    *,
    dry_run: bool,
    echo: Callable[[str], None],
) -> Path | None:
    """Bring all jobs through their missing stages, then render the report and print the named tables.

    Args:
        study: the runs and the report's folder.
        jobs: of the experiment, from `experiments.plan`; the first is shown as soon as its quality is known.
        tables: files of the report's tables folder to print, without suffix.
        dry_run: only print what would be done.
        echo: prints a line.

    Returns:
        The report's page; None on a dry run, and on processes other than the main one.
    """
    raise NotImplementedError
