"""Running several runs' stages, side by side where that is faster.

Small networks use two cores better as two single-threaded runs than as one run of two threads. Jobs are
therefore taken by as many worker processes as there are cores (or jobs, if fewer), each with an equal share
of the threads, so that a job that continues after a kill gets the same number of threads. Under torchrun and
on GPUs jobs run one after the other.
"""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from ddpm_eval.spec import RunSpec

POLL_SECONDS = 0.25
_events: "multiprocessing.Queue[tuple[Any, ...]] | None" = None  # of a worker process, to its parent


@dataclass(frozen=True)
class Job:
    """A run and the stages to bring it through, named as in `ddpm_eval.stages.pipeline.stages`."""

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
STORED = " stored"
"""Ends the stage's name in the progress call that says that its result is stored."""


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
            execute(
                job, None, lambda stage, done, total, name=job.name: on_progress(name, stage, done, total)
            )  # type: ignore[misc]
            on_done(job)
        stop()
        return
    workers = min(workers, len(jobs))
    _side_by_side([job for job in jobs if missing[job.name]], workers, on_progress, on_done)


def execute(job: Job, threads: int | None, progress: Callable[[str, int, int], None]) -> None:
    """Bring one run through its stages in this process."""
    from ddpm_eval import runtime
    from ddpm_eval.results.store import locked_folder
    from ddpm_eval.stages.pipeline import Run, stages
    from ddpm_eval.stages.sample_quality import SampleQuality

    here = runtime.start(job.device, threads)
    run = Run(job.folder, job.spec, here, job.data_root)
    known = stages(job.inception_weights)
    with locked_folder(job.folder) if here.main else nullcontext():
        if "quality" in job.stages and not (known["train"].done(run) and known["quality"].done(run)):
            SampleQuality(run, job.inception_weights).check()
        for stage in job.stages:
            run.progress = lambda _, done, total, stage=stage: progress(stage, done, total)  # type: ignore[misc]
            if here.any_process(not known[stage].done(run)):  # all have looked before one begins to write
                known[stage].perform(run)
                progress(stage + STORED, 1, 1)
            if stage in ("train", "progressive", "sample") and run.train().diverged:
                break


def pending(job: Job) -> list[str]:
    """List the stages of a job whose results are not stored yet."""
    import torch

    from ddpm_eval.runtime import Runtime
    from ddpm_eval.stages.pipeline import Run, stages

    run = Run(job.folder, job.spec, Runtime(torch.device("cpu")), job.data_root)
    known = stages(job.inception_weights)
    if not known["train"].done(run):
        return list(job.stages)
    if run.train().diverged:
        return []
    return [stage for stage in job.stages if not known[stage].done(run)]


def _side_by_side(
    jobs: Sequence[Job], workers: int, on_progress: OnProgress, on_done: Callable[[Job], None]
) -> None:
    context = multiprocessing.get_context("spawn")
    events: multiprocessing.Queue[tuple[Any, ...]] = context.Queue()
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(events,))
    try:
        futures = {pool.submit(_work, job, threads): job for job in jobs}
        while futures:
            finished, _ = wait_for(futures, POLL_SECONDS, return_when=FIRST_COMPLETED)
            _drain(events, on_progress)
            for future in finished:
                job = futures.pop(future)
                _outcome(future)
                on_done(job)
    except BaseException:
        for child in multiprocessing.active_children():  # no longer wanted
            child.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _outcome(future: "Future[None]") -> None:
    try:
        future.result()
    except BrokenProcessPool:
        raise ValueError(
            "a worker process died (killed, or out of memory?); the same command continues where it was"
        ) from None


def _drain(events: "multiprocessing.Queue[tuple[Any, ...]]", on_progress: OnProgress) -> None:
    while True:
        try:
            on_progress(*events.get_nowait())
        except queue.Empty:
            return


def _begin(events: "multiprocessing.Queue[tuple[Any, ...]]") -> None:
    """Set up a worker process."""
    global _events
    _events = events
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _work(job: Job, threads: int) -> None:
    events = _events
    assert events is not None
    execute(job, threads, lambda stage, done, total: events.put((job.name, stage, done, total)))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
