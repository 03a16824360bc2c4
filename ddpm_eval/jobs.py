"""Running several runs' stages, side by side where that is faster.

Small networks use two cores better as two single-threaded runs than as one run of two threads. Jobs are therefore taken in
groups of as many as there are cores; each job of a group is a process of its own with an equal share of the threads. The
grouping depends on the list of jobs alone, so a job that continues after a kill gets the same number of threads. Under
torchrun and on GPUs jobs run one after the other.
"""

import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ddpm_eval.spec import RunSpec

log = logging.getLogger(__name__)
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """A run and the stages to bring it through, named as in `ddpm_eval.pipeline.stages`."""

    folder: Path
    spec: RunSpec
    stages: tuple[str, ...]
    data_root: Path | None = None
    inception_weights: Path | None = None
    device: str = "auto"

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name


OnProgress = Callable[[str, str, int, int], None]
"""Called with the job's name, the stage, the work done and the work in all."""


def groups(jobs: Sequence[Job], workers: int, first_alone: bool = True) -> list[list[Job]]:
    """Split jobs into groups that run side by side; the first job has the machine for itself so that it is done soon."""
    head = [[jobs[0]]] if first_alone and jobs else []
    rest = list(jobs[1:] if first_alone else jobs)
    return head + [rest[i : i + workers] for i in range(0, len(rest), workers)]


def run_all(
    jobs: Sequence[Job],
    missing: Mapping[str, Sequence[str]],
    workers: int,
    on_progress: OnProgress,
    on_done: Callable[[Job], None],
) -> None:
    """Run all jobs that miss something.

    Args:
        jobs: in order of importance.
        missing: the stages that each job, by name, still needs (see `pending`).
        workers: how many may run side by side.
        on_progress: see `OnProgress`.
        on_done: called in this process after each job.

    Raises:
        ValueError: what a job raised, or that its process died.
    """
    if "WORLD_SIZE" in os.environ:
        from ddpm_eval.runtime import stop

        for job in (job for job in jobs if missing[job.name]):
            execute(job, None, lambda stage, done, total, name=job.name: on_progress(name, stage, done, total))  # type: ignore[misc]
            on_done(job)
        stop()
        return
    for group in groups(jobs, workers):
        threads = max(1, (os.cpu_count() or 1) // len(group))
        _run_group([job for job in group if missing[job.name]], threads, on_progress, on_done)


def execute(job: Job, threads: int | None, progress: Callable[[str, int, int], None]) -> None:
    """Bring one run through its stages in this process."""
    from ddpm_eval import runtime
    from ddpm_eval.pipeline import Run, stages
    from ddpm_eval.store import exclusive

    here = runtime.start(job.device, threads)
    run = Run(job.folder, job.spec, here, job.data_root)
    known = stages(job.inception_weights)
    with exclusive(job.folder) if here.main else nullcontext():
        for stage in job.stages:
            run.progress = lambda _, done, total, stage=stage: progress(stage, done, total)  # type: ignore[misc]
            if here.agree(not known[stage].done(run)):  # all have looked before one begins to write
                known[stage].perform(run)
            if stage == "train" and run.train().diverged:
                break


def pending(job: Job) -> list[str]:
    """List the stages of a job whose results are not stored yet."""
    import torch

    from ddpm_eval.pipeline import Run, stages
    from ddpm_eval.runtime import Runtime

    run = Run(job.folder, job.spec, Runtime(torch.device("cpu")), job.data_root)
    known = stages(job.inception_weights)
    if not known["train"].done(run):
        return list(job.stages)
    if run.train().diverged:
        return []
    return [stage for stage in job.stages if not known[stage].done(run)]


def _run_group(group: Sequence[Job], threads: int, on_progress: OnProgress, on_done: Callable[[Job], None]) -> None:
    context = multiprocessing.get_context("spawn")
    events: multiprocessing.Queue[tuple[Any, ...]] = context.Queue()
    processes = {job.name: context.Process(target=_child, args=(job, threads, events), daemon=True) for job in group}
    try:
        for process in processes.values():
            process.start()
        _follow({job.name: job for job in group}, processes, events, on_progress, on_done)
    finally:
        for process in processes.values():
            process.terminate()
            process.join(timeout=10)


def _follow(
    jobs: dict[str, Job],
    processes: Mapping[str, BaseProcess],
    events: "multiprocessing.Queue[tuple[Any, ...]]",
    on_progress: OnProgress,
    on_done: Callable[[Job], None],
) -> None:
    left = set(jobs)
    while left:
        try:
            kind, name, *details = events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            for name in left:
                if processes[name].exitcode not in (None, 0):
                    code = processes[name].exitcode
                    raise ValueError(
                        f"the process of run {name} died with exit code {code} (killed, or out of memory?); "
                        "the same command continues where it was"
                    ) from None
            continue
        if kind == "progress":
            on_progress(name, *details)
        elif kind == "done":
            left.remove(name)
            on_done(jobs[name])
        else:
            raise ValueError(details[0])


def _child(job: Job, threads: int, events: "multiprocessing.Queue[tuple[Any, ...]]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        execute(job, threads, lambda stage, done, total: events.put(("progress", job.name, stage, done, total)))
        events.put(("done", job.name))
    except ValueError as error:
        events.put(("failed", job.name, str(error)))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
