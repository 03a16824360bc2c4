"""What an experiment would do: its stages, which of them are stored, and about how long the others take.

Times are network evaluations over a rate that is measured at once on this machine. What that leaves out is
said below the table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ddpm_eval import runtime
from ddpm_eval.reporting.provenance_rows import format_seconds
from ddpm_eval.stages.run_folders import run_in
from ddpm_eval.stages.scheduler import Job, threads_each
from ddpm_eval.stages.speed import evaluations_per_second
from ddpm_eval.stages.training_stage import UPDATE_COST
from experiments.json_document import Document

NOT_ESTIMATED = "not estimated"
NOTE = (
    "Times are network evaluations over the rate that was measured just now, {rates}, in full batches of one "
    f"run. A training update is taken for {UPDATE_COST} evaluations of its batch, and a stage that was begun "
    "for one that was not. Not estimated: stages that evaluate no network, the classifier and the features "
    "that quality needs, compilation, and reports. A stage that a run cannot have counts as stored."
)
HOW_TO_SEE_ALL = "The full specifications: --dry-run --json"


@dataclass(frozen=True)
class JobPlan:
    """What a job would do.

    Attributes:
        job: a run and its stages.
        missing: the network evaluations of each stage that is missing.
        rate: measured network evaluations per second; None if none are missing.
    """

    job: Job
    missing: Mapping[str, int]
    rate: float | None

    def stage_seconds(self, stage: str) -> float | None:
        """Return the estimated time of a missing stage, None if it evaluates no network."""
        cost = self.missing[stage]
        return cost / self.rate if cost and self.rate else None

    @property
    def seconds(self) -> float:
        """The estimated time of all missing stages."""
        return sum(self.stage_seconds(stage) or 0.0 for stage in self.missing)


@dataclass(frozen=True)
class Plan:
    """What an experiment would do.

    Attributes:
        jobs: in order of importance.
        workers: how many run side by side.
        device: on which the rates were measured.
    """

    jobs: Sequence[JobPlan]
    workers: int
    device: str

    @property
    def seconds(self) -> float:
        """The estimated time until the last job has ended: each is taken by the first worker that is free."""
        busy = [0.0] * self.workers
        for plan in self.jobs:
            first = busy.index(min(busy))
            busy[first] += plan.seconds
        return max(busy)

    @property
    def text(self) -> str:
        """The plan for people: the total, a row for each stage, and what is to do of each run."""
        parts = [self._total(), self._table(), "\n".join(map(_run_line, self.jobs))]
        rates = dict.fromkeys(round(plan.rate) for plan in self.jobs if plan.rate)
        if rates:
            measured = " and ".join(f"{rate:,}" for rate in rates)
            parts.append(NOTE.format(rates=f"{measured} per second on {self.device}"))
        return "\n\n".join([*parts, HOW_TO_SEE_ALL])

    @property
    def document(self) -> Document:
        """The plan for programs, with the full specification of each run."""
        return {
            "seconds": self.seconds,
            "side_by_side": self.workers,
            "device": self.device,
            "runs": [_run_document(plan) for plan in self.jobs],
        }

    def _total(self) -> str:
        missing = sum(len(plan.missing) for plan in self.jobs)
        every = sum(len(plan.job.stages) for plan in self.jobs)
        if not missing:
            return f"Nothing to do: all {every} stages of {_runs(len(self.jobs))} are stored."
        beside = f", {self.workers} runs side by side" if self.workers > 1 else ""
        return (
            f"To do: {missing} of {every} stages of {_runs(len(self.jobs))}, "
            f"about {format_seconds(self.seconds)}{beside}"
        )

    def _table(self) -> str:
        names = dict.fromkeys(stage for plan in self.jobs for stage in plan.job.stages)
        lines = [f"{'stage':<33}{'stored':>8}{'missing':>9}{'evaluations':>14}  time"]
        return "\n".join([*lines, *map(self._row, names)])

    def _row(self, stage: str) -> str:
        """Return a stage's row: in how many runs it is stored and missing, and its cost in those together."""
        concerned = [plan for plan in self.jobs if stage in plan.job.stages]
        missing = [plan for plan in concerned if stage in plan.missing]
        stored = len(concerned) - len(missing)
        if not missing:
            return f"{stage:<33}{stored:>8}{0:>9}"
        cost = sum(plan.missing[stage] for plan in missing)
        known = [seconds for plan in missing if (seconds := plan.stage_seconds(stage)) is not None]
        time = format_seconds(sum(known)) if known else NOT_ESTIMATED
        return f"{stage:<33}{stored:>8}{len(missing):>9}{cost:>14,}  {time}"


def make_plan(jobs: Sequence[Job], missing: Mapping[str, Mapping[str, int]], workers: int) -> Plan:
    """Measure the rate of each distinct network, and return the plan.

    Args:
        jobs: of the experiment.
        missing: the stages that each job, by name, still needs; see `ddpm_eval.stages.scheduler.pending`.
        workers: how many may run side by side.
    """
    together = min(workers, len(jobs))
    threads_before = torch.get_num_threads()
    here = runtime.start(jobs[0].device, threads_each(together))
    rates: dict[str, float] = {}
    plans = []
    for job in jobs:
        needed = missing[job.name]
        rate = _rate(job, here, rates) if any(needed.values()) else None
        plans.append(JobPlan(job, needed, rate))
    device = here.describe()
    runtime.stop()
    torch.set_num_threads(threads_before)
    return Plan(plans, together if here.world_size == 1 else 1, device)


def _rate(job: Job, here: runtime.Runtime, known: dict[str, float]) -> float:
    """Return the rate of a job's network, which is measured unless one of its size is known."""
    network = f"{job.spec.network.model_dump_json()} {job.spec.data.model_dump_json()} {job.batch_size}"
    if network not in known:
        run = run_in(job.folder, job.spec, here, job.data_root)
        run.asked_batch_size = job.batch_size
        known[network] = evaluations_per_second(run)
    return known[network]


def _run_line(plan: JobPlan) -> str:
    time = f" (about {format_seconds(plan.seconds)})" if plan.missing else ""
    return f"{plan.job.folder}: to do: {', '.join(plan.missing) or 'nothing'}{time}"


def _run_document(plan: JobPlan) -> Document:
    missing = {
        stage: {"network_evaluations": cost, "seconds": plan.stage_seconds(stage)}
        for stage, cost in plan.missing.items()
    }
    stored = [stage for stage in plan.job.stages if stage not in plan.missing]
    return {
        "folder": plan.job.folder,
        "stored": stored,
        "missing": missing,
        "seconds": plan.seconds,
        "evaluations_per_second": plan.rate,
        "specification": plan.job.spec.model_dump(mode="json"),
    }


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"
