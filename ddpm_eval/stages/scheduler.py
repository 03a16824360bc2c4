"""Running the stages of several runs, side by side where that is faster.

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

from ddpm_eval import runtime
from ddpm_eval.files import locked_folder
from ddpm_eval.host_memory import usable_cores
from ddpm_eval.results.obstacles import note_left_out
from ddpm_eval.runtime import ALONE, Progress, ProgressEvent
from ddpm_eval.spec import RunSpec
from ddpm_eval.stages.base import Stage, ensure, is_done
from ddpm_eval.stages.quality_stages import FeatureSource, check_sample_counts
from ddpm_eval.stages.registry import stages
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.run_folders import run_in
from ddpm_eval.stages.training_stage import stored_log

POLL_SECONDS = 0.25
OnProgress = Callable[[ProgressEvent], None]
_events: "multiprocessing.Queue[ProgressEvent] | None" = None  # of a worker process, to its parent


@dataclass(frozen=True)
class Job:
    """A run and the stages to bring it through, named as in `ddpm_eval.stages.registry`.

    Attributes:
        folder: of the run.
        spec: what the run is.
        stages: their names, in order.
        data_root: where data sets lie that are not embedded.
        inception_weights: file of Inception's weights; None measures quality with the data set's classifier.
        device: auto, cpu, cuda or cuda:N.
        batch_size: images in each network evaluation; None takes a number that suits the device.
        label: the job's name, if it is not its folder's.
    """

    folder: Path
    spec: RunSpec
    stages: tuple[str, ...]
    data_root: Path | None = None
    inception_weights: Path | None = None
    device: str = "auto"
    batch_size: int | None = None
    label: str = ""

    @property
    def name(self) -> str:
        """The job's name, distinct among those that are run together."""
        return self.label or self.folder.name


def pending(job: Job) -> dict[str, int]:
    """Return the network evaluations that each stage of a job still needs."""
    run = run_in(job.folder, job.spec, ALONE, job.data_root)
    log = stored_log(run)
    if log is not None and log.diverged:
        return {}
    known = stages(run, job.inception_weights)
    planned: list[Stage] = []
    return {
        name: sum(_evaluations(stage, run, planned) for stage in known[name])
        for name in job.stages
        if not _done(known[name], run)
    }


def _evaluations(stage: Stage, run: Run, planned: list[Stage]) -> int:
    """Return about the network evaluations of a stage and of what it requires, and add them to the plan."""
    if stage in planned or is_done(stage, run):
        return 0
    before = sum(_evaluations(required, run, planned) for required in stage.requires(run))
    own = stage.network_evaluations(run, planned)
    planned.append(stage)
    return before + own


def run_all(
    jobs: Sequence[Job],
    missing: Mapping[str, Mapping[str, int]],
    workers: int,
    on_progress: OnProgress,
    on_done: Callable[[Job], None],
) -> None:
    """Run all jobs that miss something.

    Args:
        jobs: in order of importance.
        missing: the stages that each job, by name, still needs; see `pending`.
        workers: how many may run side by side.
        on_progress: called in this process with each event.
        on_done: called in this process after each job.

    Raises:
        ValueError: what a job raised, or that its process died.
    """
    todo = [job for job in jobs if missing[job.name]]
    if "WORLD_SIZE" not in os.environ:
        _side_by_side(todo, min(workers, len(jobs)), on_progress, on_done)
        return
    for job in todo:
        execute(job, None, on_progress)
        on_done(job)
    runtime.stop()


def execute(job: Job, threads: int | None, on_progress: OnProgress) -> None:
    """Bring one run through its stages in this process; a run that diverges ends there."""
    here = runtime.start(job.device, threads)
    run = run_in(job.folder, job.spec, here, job.data_root, _reporting(job, on_progress))
    run.asked_batch_size = job.batch_size
    known = stages(run, job.inception_weights)
    with locked_folder(job.folder) if here.main else nullcontext():
        if "quality" in job.stages and not _done([*known["train"], *known["quality"]], run):
            check_sample_counts(run, FeatureSource(job.inception_weights))
        for name in job.stages:
            _bring_about(name, known[name], run, job, on_progress)
            log = stored_log(run)
            if log is not None and log.diverged:
                break


def _bring_about(name: str, parts: Sequence[Stage], run: Run, job: Job, on_progress: OnProgress) -> None:
    run.progress = _reporting(job, on_progress, name)
    missing = run.runtime.any_process(not _done(parts, run))
    try:
        for stage in parts:
            if stage.applies(run):
                ensure(stage, run)
    except ValueError as error:
        _note_left_out(run, name, f"the stage {name} failed: {error}")
        raise
    obstacles = [obstacle for stage in parts if (obstacle := stage.obstacle(run))]
    none = "" if parts else f"a chain of {run.spec.diffusion.timesteps} steps is too short"
    _note_left_out(run, name, obstacles[0] if obstacles else none)
    if missing:
        on_progress(ProgressEvent(job.name, name, 1, 1, stored=True))


def _note_left_out(run: Run, name: str, reason: str) -> None:
    if run.runtime.main:
        note_left_out(run.folder, name, reason)


def _reporting(job: Job, on_progress: OnProgress, stage: str | None = None) -> Progress:
    """Return how a stage tells its progress; None takes the name that each part of the work has."""

    def report(part: str, done: int, total: int) -> None:
        on_progress(ProgressEvent(job.name, stage or part, done, total))

    return report


def _done(parts: Sequence[Stage], run: Run) -> bool:
    return all(is_done(stage, run) for stage in parts)


def _side_by_side(
    jobs: Sequence[Job], workers: int, on_progress: OnProgress, on_done: Callable[[Job], None]
) -> None:
    context = multiprocessing.get_context("spawn")
    events: multiprocessing.Queue[ProgressEvent] = context.Queue()
    threads = threads_each(workers)
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(events,))
    try:
        futures = {pool.submit(_work, job, threads): job for job in jobs}
        while futures:
            finished, _ = wait_for(futures, POLL_SECONDS, return_when=FIRST_COMPLETED)
            _deliver(events, on_progress)
            for future in finished:
                job = futures.pop(future)
                _raise_failure(future)
                on_done(job)
    except BaseException:
        for child in multiprocessing.active_children():  # no longer wanted
            child.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def threads_each(workers: int) -> int:
    """Return the number of threads of each of so many worker processes."""
    return max(1, usable_cores() // workers)


def _raise_failure(future: "Future[None]") -> None:
    try:
        future.result()
    except BrokenProcessPool:
        raise ValueError(
            "a worker process died (killed, or out of memory?); the same command continues where it was"
        ) from None


def _deliver(events: "multiprocessing.Queue[ProgressEvent]", on_progress: OnProgress) -> None:
    while True:
        try:
            on_progress(events.get_nowait())
        except queue.Empty:
            return


def _begin(events: "multiprocessing.Queue[ProgressEvent]") -> None:
    """Set up a worker process."""
    global _events
    _events = events
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _work(job: Job, threads: int) -> None:
    assert _events is not None
    execute(job, threads, _events.put)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
