"""Training as a stage: its log and the tables of its noise schedule, stored in one step."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ddpm_eval.metrics.work import Work
from ddpm_eval.results.fields import Record
from ddpm_eval.results.records import ScheduleTables, TrainingLog
from ddpm_eval.results.store import Result
from ddpm_eval.stages.base import Output, Stage
from ddpm_eval.stages.run import Run
from ddpm_eval.training import loop
from ddpm_eval.training.loop import TrainingOptions

TRAINING = "training"
SCHEDULE = "schedule"
UPDATE_COST = 3
"""A training update costs about three times the evaluations of its images."""


@dataclass(frozen=True)
class TrainingStage(Stage):
    """Trains a run to its number of updates, or continues to it.

    Attributes:
        options: of `ddpm_eval.training.loop.train`.
    """

    options: TrainingOptions = field(default_factory=TrainingOptions)
    name = TRAINING
    record = TrainingLog

    def key(self, run: Run) -> str:
        """Return the digest of the weights that training has made."""
        return run.weights

    def is_stored(self, run: Run) -> bool:
        """Tell whether training is over and its log stored."""
        if not run.exists:
            return False
        run.check()
        log = stored_log(run)
        return log is not None and (log.over or (log.status == "ok" and log.steps >= run.spec.train.steps))

    def network_evaluations(self, run: Run, planned: Sequence[Stage] = ()) -> int:
        """Return the cost of all updates, as if none were done; 0 if training can never go on."""
        if not run.is_trained_here or (run.exists and run.training_log().over):
            return 0
        return UPDATE_COST * run.spec.train.steps * run.spec.train.batch_size

    def outputs(self, run: Run) -> tuple[Output, ...]:
        """Return the names of the results; their key is not known before training has ended."""
        key = run.weights if run.exists else ""
        return Output(TRAINING, key), Output(SCHEDULE, key)

    def compute(self, run: Run, work: Work) -> Record | None:
        """Train, and return the log; of a network that is not trained here return what is known."""
        if not run.is_trained_here:
            return run.training_log()
        log = loop.train(
            run.spec,
            run.train_images,
            run.runtime,
            run.checkpoint,
            options=self.options,
            progress=lambda _, done, total: run.progress("train", done, total),
        )
        run.forget_weights()
        return log

    def compute_all(self, run: Run, work: Work) -> list[Result]:
        """Train, and return the log and the schedule's tables."""
        return _results(run, self.compute(run, work))

    def wall_seconds(self, results: Sequence[Result], elapsed: float) -> float:
        """Return the time of the whole training, which may have been continued."""
        log = results[0].record
        assert isinstance(log, TrainingLog)
        return log.seconds


def stored_log(run: Run) -> TrainingLog | None:
    """Return the stored log of the checkpoint's training, None if there is none of its present weights."""
    if not run.exists or not run.results.has(TRAINING, run.weights):
        return None
    log = run.results.get(TRAINING, TrainingLog, run.weights)
    return log if log.steps == run.steps_done else None


def record_training(run: Run) -> None:
    """Store what the checkpoint says of its training, so that results are known to be of these weights."""
    run.check()
    if run.runtime.any_process(stored_log(run) is None or not run.results.has(SCHEDULE, run.weights)):
        log = run.training_log()
        run.results.put_all(_results(run, log), seconds=log.seconds)
    run.runtime.barrier()


def record_divergence(run: Run, reason: str) -> None:
    """Store that the run's samples diverged, which is a result."""
    log = stored_log(run)
    if log is not None:
        diverged = replace(log, status="diverged", reason=reason)
        run.results.put_all(_results(run, diverged), seconds=log.seconds)


def _results(run: Run, log: Record | None) -> list[Result]:
    assert log is not None
    return [Result(TRAINING, log, run.weights), Result(SCHEDULE, _tables(run), run.weights)]


def _tables(run: Run) -> ScheduleTables:
    schedule = run.schedule().to("cpu")
    return ScheduleTables(
        beta=schedule.beta.numpy()[1:],
        alpha_bar=schedule.alpha_bar.numpy()[1:],
        beta_tilde=schedule.beta_tilde.numpy()[1:],
        fixed_large=schedule.fixed_variance("fixed-large").numpy()[1:],
        fixed_small=schedule.fixed_variance("fixed-small").numpy()[1:],
    )
