"""The bound of a run's images as a stage: under several protocols, by either estimator, on any chain."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ddpm_eval.data.datasets import check_number
from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.files import content_digest
from ddpm_eval.metrics import bound, evaluation_memory, timestep_sampling
from ddpm_eval.metrics.bound import (
    Estimator,
    EstimatorName,
    Model,
    NotFinite,
    evaluate_bound,
    exact_positions,
)
from ddpm_eval.metrics.work import Work
from ddpm_eval.protocol import PROTOCOLS, Protocol
from ddpm_eval.results.bound_terms import BoundTerms, FullBoundTerms, StratifiedBoundTerms, bound_name
from ddpm_eval.results.fields import Array, Record
from ddpm_eval.results.store import Result
from ddpm_eval.stages.base import Output, Stage, not_finite, result_key
from ddpm_eval.stages.run import Run

RECORDS: dict[EstimatorName, type[BoundTerms]] = {"full": FullBoundTerms, "stratified": StratifiedBoundTerms}
SUBSET_SEED = 0
"""Seed of the fixed random subset of images where the specification limits their number."""


@dataclass(frozen=True)
class Pairing:
    """What the bound of one run shares with another's, so that their difference is paired by image.

    Attributes:
        noise_seed: seed of the noise, which is otherwise the run's own.
        inclusion: probabilities of the times of the stratified estimator; None lets the run's pilot decide.
    """

    noise_seed: int
    inclusion: tuple[float, ...] | None = None


@dataclass(frozen=True)
class BoundStage(Stage):
    """The bound of one split.

    Attributes:
        split: train or test.
        protocols: how it is computed; they share their network evaluations.
        estimator: full or stratified.
        evaluations_per_image: of the stratified estimator; None takes the specification's number.
        num_steps: of a shorter chain of evenly spaced steps; None takes all.
        pairing: noise and times that are shared with another run; None takes the run's own.
    """

    split: str
    protocols: tuple[Protocol, ...]
    estimator: EstimatorName = "full"
    evaluations_per_image: int | None = None
    num_steps: int | None = None
    pairing: Pairing | None = None

    @property
    def name(self) -> str:  # type: ignore[override] # of the first protocol; see `outputs`
        """The name of the first protocol's result."""
        return self.result_name(self.protocols[0])

    @property
    def record(self) -> type[BoundTerms]:  # type: ignore[override]
        """The type of the results."""
        return RECORDS[self.estimator]

    def result_name(self, protocol: Protocol) -> str:
        """Return the name under which a protocol's result is stored."""
        paired = self.pairing is not None
        return bound_name(self.split, protocol, self.estimator, self.num_steps, paired)

    def key(self, run: Run) -> str:
        """Return the key of the first protocol's result."""
        return self.result_key(run, self.protocols[0])

    def result_key(self, run: Run, protocol: Protocol) -> str:
        """Return the digest of everything that a protocol's result depends on."""
        parts: list[object] = [self.images(run).digest, content_digest([self.positions(run)]), self.num_steps]
        if self.estimator == "stratified":
            parts += [
                "stratified",
                self._estimator(run).evaluations_per_image,
                timestep_sampling.DESIGN_CONSTANTS,
            ]
        parts += [required.key(run) for required in self._optimal_requires(protocol)]
        if self.pairing is not None:
            parts += ["paired", self.pairing.noise_seed, self.pairing.inclusion]
        return result_key(run, protocol.model_dump_json(), *parts)

    def outputs(self, run: Run) -> tuple[Output, ...]:
        """Return where each protocol's result is stored."""
        names = (run.results.qualified(self.result_name(protocol)) for protocol in self.protocols)
        keys = (self.result_key(run, protocol) for protocol in self.protocols)
        return tuple(map(Output, names, keys))

    def requires(self, run: Run) -> Sequence[Stage]:
        """Return the bound of the training images that variance ``optimal`` is estimated from."""
        return [stage for protocol in self.protocols for stage in self._optimal_requires(protocol)]

    def obstacle(self, run: Run) -> str:
        """Return why the network does not serve a chain of so many steps."""
        return "" if self.num_steps is None else run.no_fewer_steps

    def network_evaluations(self, run: Run, planned: Sequence[Stage] = ()) -> int:
        """Return the evaluations of what is missing; protocols of equal numbers of draws share them."""
        n = len(self.positions(run))
        steps = self.num_steps or run.spec.diffusion.timesteps
        per_image = _terms_per_image(self, run)
        pilot = 0
        if self.estimator == "stratified":
            estimator = self._estimator(run)
            pilot = timestep_sampling.pilot_evaluations(n, steps) if estimator.inclusion is None else 0
        known = {output for stage in planned for output in stage.outputs(run)}
        draws = {p.draws for p, output in self._missing(run).items() if output not in known}
        return sum(draws) * (n * per_image + pilot)

    def compute(self, run: Run, work: Work) -> Record | None:
        """Measure under the first protocol."""
        found = self._evaluate(run, self.protocols[:1], work)
        return found[0] if found else None

    def compute_all(self, run: Run, work: Work) -> list[Result]:
        """Measure under every protocol whose result is missing."""
        missing = self._missing(run)
        found = self._evaluate(run, list(missing), work)
        return [
            Result(output.name, terms, output.key)
            for output, terms in zip(missing.values(), found, strict=False)
        ]

    def recorded_choices(self, run: Run) -> dict[str, object]:
        """Return how many images were scored, and of the stratified estimator the evaluations of each."""
        choices: dict[str, object] = {"n_images": len(self.positions(run))}
        if self.estimator == "stratified":
            choices["evaluations_per_image"] = self._estimator(run).evaluations_per_image
        return choices

    def read(self, run: Run, protocol: Protocol) -> BoundTerms:
        """Read a stored result."""
        name = run.results.qualified(self.result_name(protocol))
        return run.results.get(name, self.record, self.result_key(run, protocol))

    def images(self, run: Run) -> ImageSet:
        """Return the images of the split."""
        return run.test_images if self.split == "test" else run.train_images

    def positions(self, run: Run) -> Array:
        """Return the positions of the images that are scored.

        Raises:
            ValueError: if more test images are asked for than there are.
        """
        evaluation = run.spec.evaluation
        images = self.images(run)
        if self.split == "test":
            check_number(images, evaluation.n_test_images)
        asked = evaluation.n_train_images if self.split == "train" else evaluation.n_test_images
        limits = [asked, evaluation.n_full_images if self.estimator == "full" else None]
        return scored_positions(images, min((n for n in limits if n is not None), default=None))

    def _missing(self, run: Run) -> dict[Protocol, Output]:
        outputs = zip(self.protocols, self.outputs(run), strict=True)
        return {protocol: output for protocol, output in outputs if not run.results.has(*output)}

    def _estimator(self, run: Run) -> Estimator:
        per_image = self.evaluations_per_image or run.spec.evaluation.evaluations_per_image
        inclusion = None if self.pairing is None else self.pairing.inclusion
        return Estimator(self.estimator, per_image, inclusion)

    def _evaluate(self, run: Run, protocols: Sequence[Protocol], work: Work) -> list[BoundTerms]:
        terms = len(self.positions(run)) * _terms_per_image(self, run)
        needed = evaluation_memory.bound(run.spec, protocols, terms, run.runtime)
        evaluation_memory.check(needed, min(run.batch_size, terms))
        try:
            with run.runtime.evaluation_precision():
                found = evaluate_bound(
                    self._model(run, protocols),
                    self.images(run),
                    protocols,
                    positions=self.positions(run),
                    estimator=self._estimator(run),
                    seed=run.spec.seed if self.pairing is None else self.pairing.noise_seed,
                    batch_size=run.batch_size,
                    work=work,
                )
        except NotFinite as error:
            raise not_finite(run, str(error)) from error
        problem = _not_finite(found)
        if run.runtime.any_process(bool(problem)):
            raise not_finite(run, problem or "terms are not finite")
        return found

    def _model(self, run: Run, protocols: Sequence[Protocol]) -> Model:
        model = run.model(self.num_steps)
        tables = {
            protocol.clip: optimal_variance(run, protocol, self.num_steps)
            for protocol in protocols
            if protocol.variance == "optimal"
        }
        return replace(model, optimal_variance=tables)

    def _optimal_requires(self, protocol: Protocol) -> list["BoundStage"]:
        return [training_errors(protocol)] if protocol.variance == "optimal" else []


def _terms_per_image(stage: BoundStage, run: Run) -> int:
    steps = stage.num_steps or run.spec.diffusion.timesteps
    return steps if stage.estimator == "full" else min(steps, stage._estimator(run).evaluations_per_image)


def _not_finite(found: Sequence[BoundTerms]) -> str:
    """Name the first term that overflowed although the network's output did not; empty if none did."""
    for terms in found:
        try:
            terms.term_values()
        except ValueError as error:
            return str(error)
    return ""


def scored_positions(images: ImageSet, limit: int | None) -> Array:
    """Return the positions of all exact images, or of a fixed random subset of ``limit``."""
    exact = exact_positions(images)
    if limit is None or limit >= len(exact):
        return exact
    return np.sort(np.random.default_rng(SUBSET_SEED).permutation(exact)[:limit])


def training_errors(protocol: Protocol) -> BoundStage:
    """Return the stage whose errors of x0_hat the optimal variance of a protocol is estimated from."""
    return BoundStage("train", (PROTOCOLS["paper" if protocol.clip else "exact"],))


def optimal_variance(run: Run, protocol: Protocol, num_steps: int | None = None) -> Array:
    """Return the optimal variance of a protocol from the stored bound of training images, indexed 0..T."""
    stage = training_errors(protocol)
    terms = stage.read(run, stage.protocols[0])
    assert isinstance(terms, FullBoundTerms)
    return bound.optimal_variance(terms, run.schedule(), run.schedule(num_steps))


def evaluations_for_total(run: Run, stage: BoundStage, evaluations: int) -> int:
    """Return how many stratified evaluations per image make so many over all images, the pilot's included.

    Raises:
        ValueError: if that is less than two per image after the pilot.
    """
    n = len(stage.positions(run))
    steps = stage.num_steps or run.spec.diffusion.timesteps
    pilot = timestep_sampling.pilot_evaluations(n, steps)
    per_image = (evaluations - pilot) // n
    if per_image < 2:
        raise ValueError(
            f"{evaluations} network evaluations for {n} images are too few: the pilot takes {pilot} and each "
            f"image needs at least 2, together {pilot + 2 * n}"
        )
    return per_image
