"""Training from the first update, or from a checkpoint, to the last.

Batch n of a run is a function of (seed, n). A resumed run therefore needs no generator state and is
bit-identical to an uninterrupted one on the same machine with the same number of threads, which the
checkpoint remembers. A run whose loss or gradient stops being finite is a result: it ends, recorded as
diverged.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.results.records import TrainingLog
from ddpm_eval.runtime import Progress, Runtime, silent
from ddpm_eval.spec import RunSpec
from ddpm_eval.spec_text import differences
from ddpm_eval.training import checkpoint, memory
from ddpm_eval.training.batches import Batches
from ddpm_eval.training.check_times import CheckTimes
from ddpm_eval.training.checkpoint import Checkpoint
from ddpm_eval.training.interruption import Interruption, end
from ddpm_eval.training.saved_state import check_log, check_state
from ddpm_eval.training.threads import fitting_threads
from ddpm_eval.training.trainer import Trainer

log = logging.getLogger(__name__)

CHECK_STEPS = 50
"""The most updates between checks of the loss, which are where the host waits for the device.

Checks are more frequent where updates are slow, see `ddpm_eval.training.check_times`.
"""


class Callback(Protocol):
    """Something that is called with the trainer while a run trains, and changes nothing.

    It is called on every process, before the first update and after every check of the loss.
    """

    @property
    def every(self) -> int:
        """Call the callback every this many updates, besides the checks that are made anyway."""

    def __call__(self, trainer: Trainer) -> None:
        """Report on the training after its update ``trainer.step``."""


@dataclass(frozen=True)
class TrainingOptions:
    """What may differ between two trainings of one run without changing its weights.

    Attributes:
        max_minutes: stop with a checkpoint after this time; None sets no limit.
        callbacks: see `Callback`. Their time counts towards ``max_minutes``, but not as training time.
        ignore_memory: train even where `ddpm_eval.training.memory` finds too little memory.
    """

    max_minutes: float | None = None
    callbacks: Sequence[Callback] = ()
    ignore_memory: bool = False


DEFAULT_OPTIONS = TrainingOptions()


def train(
    spec: RunSpec,
    images: ImageSet,
    runtime: Runtime,
    path: Path,
    *,
    options: TrainingOptions = DEFAULT_OPTIONS,
    progress: Progress = silent,
) -> TrainingLog:
    """Train a run to its number of updates, starting from its checkpoint if there is one.

    Args:
        spec: the run.
        images: the training split.
        runtime: where to train; under torchrun every process calls this.
        path: the path of the checkpoint.
        options: limits and callbacks.
        progress: called with ``"train"``, the updates done and the updates in all.

    Returns:
        The log of the whole run so far. Its status is ``ok``, ``stopped`` (by ``max_minutes``) or
        ``diverged``. An imported checkpoint has no optimiser state: it is left as it is, and its status is
        ``imported``.

    Raises:
        ValueError: if the checkpoint is of another run or damaged, the batch size is not divisible by the
            number of processes, or there is too little memory.
        KeyboardInterrupt: after SIGINT, once a checkpoint of the status ``stopped`` is written.
        SystemExit: after SIGTERM, likewise.
    """
    saved = checkpoint.load(path) if path.exists() else None
    if saved is not None:
        check_same_run(saved, spec, path)
        finished = _finished_log(saved, spec)
        if finished is not None:
            return finished
        check_state(saved)
    with fitting_threads(spec, runtime.world_size), Interruption() as interruption:
        if saved is not None:
            _note_arithmetic(saved, runtime)
        if not options.ignore_memory:
            memory.check(spec, runtime, images)
        trainer = Trainer(spec, runtime, saved)
        batches = Batches(spec, images, runtime)
        try:
            status, reason = _train(trainer, batches, path, options, progress, interruption)
        except torch.OutOfMemoryError:
            raise ValueError(
                f"{runtime.describe()} ran out of memory with batches of {spec.train.batch_size} "
                "(take a smaller --set train.batch_size)"
            ) from None
        saved = _save(trainer, path, status, reason)
    received = interruption.agreed(runtime)
    if received is not None:
        end(received)
    return training_log(saved)


def training_log(saved: Checkpoint) -> TrainingLog:
    """Return the log that a checkpoint holds.

    Args:
        saved: a checkpoint read with at least the prefixes ``ema/`` and ``log/``.

    Raises:
        ValueError: if it holds no log.
    """
    check_log(saved)
    return TrainingLog(
        loss=saved.tensors["log/loss"].numpy(),
        gradient_norm=saved.tensors["log/gradient_norm"].numpy(),
        status=str(saved.metadata["status"]),
        reason=str(saved.metadata["reason"]),
        steps=saved.step,
        images=saved.step * saved.spec.train.batch_size,
        seconds=float(saved.metadata["seconds"]),
        parameters=sum(weight.numel() for weight in saved.part("ema/").values()),
    )


def check_same_run(saved: Checkpoint, spec: RunSpec, path: Path) -> None:
    """Raise ValueError, naming the fields, if a checkpoint belongs to another run than ``spec``."""
    different = differences(saved.spec, spec)
    if different:
        raise ValueError(
            f"{path} belongs to another run ({'; '.join(different[:4])}): name another folder with --runs, "
            "or delete it"
        )


def _finished_log(saved: Checkpoint, spec: RunSpec) -> TrainingLog | None:
    """Return the log of a checkpoint that needs no more training, None if it does."""
    found = training_log(saved)
    if found.over:
        return found
    if saved.step >= spec.train.steps:  # whatever stopped it, it has all the updates that are asked for
        return replace(found, status="ok", reason="")
    return None


def _note_arithmetic(saved: Checkpoint, runtime: Runtime) -> None:
    """Log that a run continues in another precision or with other threads than before."""
    if saved.metadata.get("mixed_precision", runtime.mixed_precision) != runtime.mixed_precision:
        log.info("resuming in %s", "mixed precision, not float32" if runtime.mixed_precision else "float32")
    threads = torch.get_num_threads()
    before = saved.metadata.get("threads")
    if runtime.device.type == "cpu" and before != threads:
        log.info("resuming with %d threads, not %s: equal to rounding only", threads, before)


def _train(
    trainer: Trainer,
    batches: Batches,
    path: Path,
    options: TrainingOptions,
    progress: Progress,
    interruption: Interruption,
) -> tuple[str, str]:
    """Take the updates that are missing, and return the status and its reason."""
    train = trainer.spec.train
    intervals = (CHECK_STEPS, train.checkpoint_steps, *(callback.every for callback in options.callbacks))
    began = time.monotonic()
    seconds_before = trainer.seconds
    callback_seconds = _call(options.callbacks, trainer)
    checks = CheckTimes(intervals, trainer.step, trainer.runtime)
    for batch in batches.stream(trainer.step, train.steps):
        trainer.seeded_update(batch)
        last = trainer.step == train.steps
        if not last and not checks.due(trainer.step, urgent=interruption.received is not None):
            continue
        diverged_at = trainer.diverged_at(since=checks.step)
        trainer.seconds = seconds_before + time.monotonic() - began - callback_seconds
        progress("train", trainer.step, train.steps)
        if diverged_at is not None:
            return "diverged", _describe_divergence(trainer, diverged_at)
        received = interruption.agreed(trainer.runtime)
        if received is not None and not last:
            return "stopped", f"by {received.name}"
        if not last and trainer.step % train.checkpoint_steps == 0:
            _save(trainer, path, "running", "")
        callback_seconds += _call(options.callbacks, trainer)
        limit = options.max_minutes
        late = limit is not None and time.monotonic() - began > 60 * limit
        if trainer.runtime.any_process(late) and not last:
            return "stopped", f"after {limit:g} minutes"
        checks.checked(trainer.step)
    return "ok", ""


def _call(callbacks: Sequence[Callback], trainer: Trainer) -> float:
    """Call the callbacks, and return the seconds that they took."""
    began = time.monotonic()
    for callback in callbacks:
        callback(trainer)
    return time.monotonic() - began


def _describe_divergence(trainer: Trainer, update: int) -> str:
    loss, norm = trainer.log[:, update].tolist()
    in_bf16 = "; in bf16 autocast: --no-mixed-precision trains in float32"
    advice = in_bf16 if trainer.runtime.mixed_precision else ""
    return f"loss {loss:g}, gradient norm {norm:g} at update {update + 1} (seed {trainer.spec.seed}{advice})"


def _save(trainer: Trainer, path: Path, status: str, reason: str) -> Checkpoint:
    snapshot = trainer.snapshot(status, reason)
    if trainer.runtime.main:
        checkpoint.save(path, snapshot)
    trainer.runtime.barrier()
    return snapshot
