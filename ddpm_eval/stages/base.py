"""What a stage is, and the one place that decides whether its results are computed.

A stage is one measurement of a run: a class in a file of its own. It says under which names and keys its
results are stored, which stages it needs first, and how to compute them; `ensure` does the rest. A key is a
digest of everything that a result depends on, so that a changed choice measures anew and an unchanged one
costs nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

from ddpm_eval.files import digest
from ddpm_eval.metrics.bound import NotFinite
from ddpm_eval.metrics.work import Work
from ddpm_eval.results.fields import Record
from ddpm_eval.results.store import Result
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.shared_work import SharedWork


class Output(NamedTuple):
    """The name and the key under which one result of a stage is stored."""

    name: str
    key: str


class Stage(ABC):
    """One measurement of a run.

    Attributes:
        name: under which its result is stored.
        record: type of its result.
        uses_network: whether the result depends on the network, and so on the precision of its arithmetic.
    """

    name: str
    record: type[Record]
    uses_network: bool = True

    def requires(self, run: Run) -> Sequence["Stage"]:
        """Return the stages whose results this one reads."""
        return ()

    def obstacle(self, run: Run) -> str:
        """Return why this cannot be measured of the run, a sentence without its stop; "" if it can."""
        return ""

    def applies(self, run: Run) -> bool:
        """Tell whether this can be measured of the run at all."""
        return not self.obstacle(run)

    @abstractmethod
    def key(self, run: Run) -> str:
        """Return the digest of everything that the result depends on."""

    def network_evaluations(self, run: Run, planned: Sequence["Stage"] = ()) -> int:
        """Return about how many network evaluations `compute` makes.

        Args:
            run: to be measured.
            planned: stages that are to be done before, whose results need not be computed again.
        """
        return 0

    @abstractmethod
    def compute(self, run: Run, work: Work) -> Record | None:
        """Measure, without storing; None on processes other than the main one."""

    def outputs(self, run: Run) -> tuple[Output, ...]:
        """Return where the results are stored."""
        name = run.results.qualified(self.name) if self.uses_network else self.name
        return (Output(name, self.key(run)),)

    def is_stored(self, run: Run) -> bool:
        """Tell whether the results are stored."""
        return all(run.results.has(*output) for output in self.outputs(run))

    def compute_all(self, run: Run, work: Work) -> list[Result]:
        """Measure everything that is missing; an empty list on processes other than the main one."""
        record = self.compute(run, work)
        if record is None:
            return []
        return [Result(output.name, record, output.key) for output in self.outputs(run)]

    def recorded_choices(self, run: Run) -> dict[str, object]:
        """Return what a reader must know of the measurement beside its name and the specification.

        It is stored in the provenance of the results.
        """
        return {}

    def wall_seconds(self, results: Sequence[Result], elapsed: float) -> float:
        """Return the time that the results took, of which ``elapsed`` seconds have passed just now."""
        return elapsed


def is_done(stage: Stage, run: Run) -> bool:
    """Tell whether nothing is left to do: the results are stored, or the stage does not apply to the run."""
    return not stage.applies(run) or stage.is_stored(run)


def ensure(stage: Stage, run: Run) -> None:
    """Compute and store what a stage requires, and its own results, unless they are stored.

    Under torchrun every process calls this, and they share the work.

    Raises:
        ValueError: if the stage cannot be had of this run, or the network's output is not finite.
    """
    # every process looks before one of them begins to write
    if not run.runtime.any_process(not stage.is_stored(run)):
        _work(stage, run).clear_left_behind()
        return
    for required in stage.requires(run):
        ensure(required, run)
    began = monotonic()
    work = _work(stage, run)
    results = stage.compute_all(run, work)
    seconds = stage.wall_seconds(results, monotonic() - began)
    work.complete()
    run.results.put_all(results, seconds=seconds, choices=stage.recorded_choices(run))
    work.clear()
    run.runtime.barrier()


def not_finite(run: Run, what: str) -> NotFinite:
    """Return the error that says of which run something is not finite, and what may help."""
    precision = run.runtime.precision
    advice = "" if precision == "fp32" else f" (computed in {precision}: --precision fp32 is the remedy)"
    return NotFinite(f"{run.folder}, {run.spec.cell}: {what}{advice}")


def _work(stage: Stage, run: Run) -> SharedWork:
    """Return how a stage's work is carried out."""
    return run.work(stage.name, digest(stage.outputs(run)))


def result_key(run: Run, *parts: object) -> str:
    """Return the key of a result that depends on the run's network and on ``parts``."""
    spec = run.spec
    diffusion = spec.diffusion.model_dump(mode="json", exclude={"training_decoder"})  # the weights say it
    return digest(run.weights, diffusion, spec.seed, run.runtime.precision, *parts)
