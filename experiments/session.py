"""Running an experiment's jobs with progress on the terminal, and rendering as results arrive."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ddpm_eval.protocol import SAMPLING_STEPS
from ddpm_eval.reporting.page import Section
from ddpm_eval.results.records import QUALITY_OVER_STEPS
from ddpm_eval.stages.scheduler import STORED, Job, pending, run_all
from experiments import reproduce
from experiments.workspace import Workspace

PREVIEW_DELAY_SECONDS = 2
TRAINING_COST = 3
"""A training update costs about three times the evaluations of its images."""


def perform(
    workspace: Workspace,
    jobs: Callable[[Workspace], Sequence[Job]],
    tables: Sequence[str],
    *,
    dry_run: bool,
    echo: Callable[[str], None],
) -> Path | None:
    """Bring all jobs through their missing stages, then render the report and print the named tables.

    Args:
        workspace: where.
        jobs: makes the experiment's jobs.
        tables: files of the report's tables folder to print, without suffix.
        dry_run: only print what would be done.
        echo: prints a line.

    Returns:
        The report's page, or None on a dry run.
    """
    todo = list(jobs(workspace))
    missing = {job.name: pending(job) for job in todo}
    if dry_run:
        for job in todo:
            echo(f"{job.folder}: to do: {', '.join(missing[job.name]) or 'nothing'}")
            echo(json.dumps(job.spec.model_dump(mode="json"), indent=2))
        return None
    main = int(os.environ.get("RANK", "0")) == 0
    kept: dict[int, list[Section]] = {}
    if any(missing.values()):
        with Progress(todo, missing, main) as progress:

            def show(job: Job) -> None:
                if main:
                    page = reproduce.write(workspace, kept)
                    progress.bar.write(f"{job.name}: {reproduce.summary(workspace, job)} ({page})")

            def on_progress(name: str, stage: str, done: int, total: int) -> None:
                progress.update(name, stage, done, total)
                if stage == FIRST_RESULT and name == todo[0].name:
                    show(todo[0])

            def on_done(job: Job) -> None:
                progress.finished(job.name)
                show(job)

            run_all(todo, missing, _workers(workspace), on_progress, on_done)
    if not main:
        return None
    page = reproduce.write(workspace, kept)
    for name in tables:
        path = workspace.tables / f"{name}.md"
        if path.exists():
            echo(path.read_text())
    echo(f"Report: {page}")
    return page


FIRST_RESULT = "quality" + STORED
"""The stage of the first job after which its results are shown at once; what comes later deepens them."""


class Progress:
    """One bar over all jobs in units of network evaluations, with the time that is left.

    Args:
        jobs: to be run.
        missing: the stages that each still needs.
        shown: whether this process shows anything.
    """

    def __init__(self, jobs: Sequence[Job], missing: dict[str, list[str]], shown: bool) -> None:
        self.total = {job.name: {stage: work(job, stage) for stage in missing[job.name]} for job in jobs}
        self.done: dict[tuple[str, str], int] = {}
        self.doing: dict[str, str] = {}
        everything = sum(sum(stages.values()) for stages in self.total.values())
        self.bar = tqdm(
            total=everything, unit="eval", unit_scale=True, disable=not shown, smoothing=0.05, **_pace()
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()

    def update(self, job: str, stage: str, done: int, total: int) -> None:
        """Note that a stage of a job has come to ``done`` of ``total``."""
        stage, stored = stage.removesuffix(STORED), stage.endswith(STORED)
        if stage not in self.total[job] or total == 0:  # it was not expected
            return
        self._advance(job, stage, 1.0 if stored else min(1.0, done / total))
        self.doing[job] = f"{job} {stage} {100 * done // total}%"
        self.bar.set_postfix_str("; ".join(self.doing.values()), refresh=False)

    def finished(self, job: str) -> None:
        """Note that a job is done."""
        for stage in self.total[job]:
            self._advance(job, stage, 1.0)
        self.doing.pop(job, None)

    def _advance(self, job: str, stage: str, share: float) -> None:
        units = round(share * self.total[job][stage])
        self.bar.update(units - self.done.get((job, stage), 0))
        self.done[job, stage] = units


def work(job: Job, stage: str) -> int:
    """Estimate a stage's cost in network evaluations."""
    train, evaluation, steps = job.spec.train, job.spec.evaluation, job.spec.diffusion.timesteps
    kept = max(evaluation.n_progressive, evaluation.curve_samples)
    drawn_before = min(kept, evaluation.n_samples) if "progressive" in job.stages else 0
    skipped = sum(count for count in SAMPLING_STEPS if count < steps)
    return {
        "train": TRAINING_COST * train.steps * train.batch_size,
        "bound-train": evaluation.n_train_images * steps,
        "bound-test-protocols": evaluation.n_train_images * steps,
        "bound-test": evaluation.n_train_images * steps,
        "bound-test-stratified": evaluation.n_train_images * evaluation.evaluations_per_image,
        "progressive": kept * steps,
        "sample": (evaluation.n_samples - drawn_before) * steps,
        **dict.fromkeys(QUALITY_OVER_STEPS.values(), evaluation.curve_samples * skipped),
    }.get(stage, 0)


def bar() -> Callable[[str, int, int], None]:
    """Return a progress callback that shows one bar per stage (of the main process), a preview's only if and
    while it lasts.
    """
    if int(os.environ.get("RANK", "0")) != 0:
        return lambda stage, done, total: None
    bars: dict[str, tqdm] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage in bars and (bars[stage].total != total or done < bars[stage].n):  # again
            bars.pop(stage).close()
        if stage not in bars and done < total:
            passing = {"leave": False, "delay": PREVIEW_DELAY_SECONDS} if stage.startswith("preview") else {}
            bars[stage] = tqdm(total=total, desc=stage, unit_scale=True, **_pace(), **passing)
        if stage in bars:
            bars[stage].update(done - bars[stage].n)
            if done >= total:
                bars.pop(stage).close()

    return show


def _pace() -> dict[str, Any]:
    """Refresh a terminal's bar often, a log file's seldom."""
    return {"dynamic_ncols": True, "mininterval": 0.2 if sys.stderr.isatty() else 15.0}


def _workers(workspace: Workspace) -> int:
    import torch

    on_gpu = workspace.device.startswith("cuda") or (workspace.device == "auto" and torch.cuda.is_available())
    return 1 if on_gpu else os.cpu_count() or 1
