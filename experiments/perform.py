"""Running an experiment: its jobs with progress on the terminal, and the report as results arrive."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ddpm_eval.host_memory import usable_cores
from ddpm_eval.runtime import ProgressEvent, is_main_process
from ddpm_eval.stages.scheduler import Job, pending, run_all
from experiments.progress import ExperimentBar
from experiments.report import Report, summary
from experiments.study import Study

FIRST_RESULTS = ("baseline", "bound-test-stratified", "bound-test-protocols-stratified", "quality")
"""The stages after which the main runs' results are shown at once; what comes later deepens them."""


def perform(
    study: Study,
    jobs: Sequence[Job],
    tables: Sequence[str],
    echo: Callable[[str], None],
) -> Path | None:
    """Bring all jobs through their missing stages, then render the report and print the named tables.

    Args:
        study: the runs and the report's folder.
        jobs: of the experiment, from `experiments.plan`; some of their results are shown at once.
        tables: files of the report's tables folder to print, without suffix.
        echo: prints a line.

    Returns:
        The report's page; None on processes other than the main one.

    Raises:
        ValueError: if a job cannot be done, or the report cannot be written.
    """
    missing = {job.name: pending(job) for job in jobs}
    report = Report(study)
    if any(missing.values()):
        _run(study, jobs, missing, report, echo)
    if not is_main_process():
        return None
    page = report.write()
    _print_tables(study, tables, echo)
    echo(f"Report: {page}")
    return page


def _run(
    study: Study,
    jobs: Sequence[Job],
    missing: Mapping[str, Mapping[str, int]],
    report: Report,
    echo: Callable[[str], None],
) -> None:
    """Run all jobs; render the report after the main runs' first results, and whenever a job is done."""
    runs = {run.folder: run for run in study.every_run}
    subjects = {job.name: job for job in jobs if runs[job.folder] in study.subjects}
    with ExperimentBar(missing, shown=is_main_process()) as bar:

        def show(job: Job) -> None:
            if is_main_process():
                page = report.write()
                bar.write(f"{job.name}: {summary(runs[job.folder])} ({page})", echo)

        def on_progress(event: ProgressEvent) -> None:
            bar.update(event)
            if event.stored and event.stage in FIRST_RESULTS and event.job in subjects:
                show(subjects[event.job])

        def on_done(job: Job) -> None:
            bar.finish(job.name)
            show(job)

        run_all(jobs, missing, workers(study.options.device), on_progress, on_done)


def _print_tables(study: Study, names: Sequence[str], echo: Callable[[str], None]) -> None:
    """Print those of the named tables that exist."""
    for path in (study.tables / f"{name}.md" for name in names):
        if path.exists():
            echo(path.read_text())


def workers(device: str) -> int:
    """Return how many jobs may run side by side: one on a GPU, else one for each core."""
    on_gpu = device.startswith(("cuda", "mps")) or (device == "auto" and torch.cuda.is_available())
    return 1 if on_gpu else usable_cores()
