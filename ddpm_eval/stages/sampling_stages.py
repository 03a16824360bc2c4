"""Samples of a run, their estimates of x_0 over the reverse process, and interpolations, as stages."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.data.pixels import to_model_range, to_pixels
from ddpm_eval.metrics import evaluation_memory
from ddpm_eval.metrics.bound import NotFinite
from ddpm_eval.metrics.drawing import draw_samples
from ddpm_eval.metrics.work import Work
from ddpm_eval.model import samplers
from ddpm_eval.model.diffusion import ReverseProcess
from ddpm_eval.model.respacing import evenly_spaced
from ddpm_eval.model.samplers import AncestralSampler, Sampler, make_sampler
from ddpm_eval.results.fields import Array, Record
from ddpm_eval.results.records import Interpolations, Samples, Trajectory
from ddpm_eval.results.store import Result
from ddpm_eval.spec import Method, Spacing
from ddpm_eval.stages.base import Output, Stage, not_finite, result_key
from ddpm_eval.stages.run import SAMPLING, Run
from ddpm_eval.stages.training_stage import record_divergence

DEFAULT_SPACING: Spacing = "trailing"
"""The spacing that is no part of a result's name and key: that of all results from before there was a choice.
"""
OTHER_VARIANCE: dict[str, Literal["fixed-large", "fixed-small"]] = {
    "fixed-large": "fixed-small",
    "fixed-small": "fixed-large",
}
CONDITIONAL = "the network is class-conditional, and a mixture of two images has no class of its own"
OTHER_VARIANCE_SAMPLES = "samples-other-variance"
TRAJECTORY_STEPS = 20
PAIRING = "the first images, in pairs of different classes"
PAIRING_WITHOUT_CLASSES = "each of the first images with the next"
EIGHTHS = 8
INTERPOLATION_WEIGHTS = tuple(np.linspace(0, 1, 11).tolist())


@dataclass(frozen=True)
class SamplesStage(Stage):
    """The first samples of a run; only those that are not stored yet are drawn.

    Attributes:
        n: how many; None takes the specification's number.
        num_steps: of the sampler; None takes all steps.
        method: ancestral or ddim.
        spacing: of the times of fewer steps, see `evenly_spaced`.
    """

    n: int | None = None
    num_steps: int | None = None
    method: Method = "ancestral"
    spacing: Spacing = DEFAULT_SPACING
    record = Samples
    tells_of_the_run: ClassVar[bool] = True
    """Whether the run diverged if samples are not finite."""

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the result: ``samples``, or ``samples-ddim-50`` or ``samples-ddim-50-leading``."""
        if self.num_steps is None:
            return "samples" if self.method == "ancestral" else f"samples-{self.method}-all"
        name = f"samples-{self.method}-{self.num_steps}"
        return name if self.spacing == DEFAULT_SPACING else f"{name}-{self.spacing}"

    def key(self, run: Run) -> str:
        """Return the digest of everything that each sample depends on; their number is no part of it."""
        steps = self._steps(run)
        usual = self.spacing == DEFAULT_SPACING or steps == run.spec.diffusion.timesteps
        spacing = () if usual else (self.spacing,)
        return result_key(run, *run.sampling_choices, steps, self.method, *spacing)

    def outputs(self, run: Run) -> tuple[Output, ...]:
        """Return where the samples are stored; a chain of all steps is the run's own, however it is named."""
        whole = self.num_steps == run.spec.diffusion.timesteps
        name = replace(self, num_steps=None).name if whole else self.name
        return (Output(run.results.qualified(name), self.key(run)),)

    def obstacle(self, run: Run) -> str:
        """Return why the network does not serve a chain of so many steps."""
        whole = self._steps(run) == run.spec.diffusion.timesteps
        return "" if whole else run.no_fewer_steps

    def is_stored(self, run: Run) -> bool:
        """Tell whether enough samples are stored."""
        return self.n_stored(run) >= self.count(run)

    def n_stored(self, run: Run) -> int:
        """Return the number of stored samples, without reading them."""
        (output,) = self.outputs(run)
        return n_stored(run, output)

    def network_evaluations(self, run: Run, planned: Sequence[Stage] = ()) -> int:
        """Return the evaluations of the samples that are missing."""
        found = [stage for stage in planned if isinstance(stage, SamplesStage | TrajectoryStage)]
        counts = [stage.count(run) for stage in found if stage.samples(run) == self.samples(run)]
        return max(0, self.count(run) - max([self.n_stored(run), *counts])) * self._steps(run)

    def compute(self, run: Run, work: Work) -> Record | None:
        """Draw the samples that are missing, and append them to the stored ones."""
        have = self.n_stored(run)
        sampler = make_sampler(self.process(run), run.spec.seed, self.method)
        ids = range(have, self.count(run))
        drawn = draw_of_run(run, sampler, ids, work)
        return None if drawn is None else self.extended(run, drawn)

    def process(self, run: Run) -> ReverseProcess:
        """Return the reverse process that is sampled from."""
        return run.process(self.num_steps, self.spacing)

    def extended(self, run: Run, drawn: Mapping[str, Array]) -> Samples:
        """Return the stored samples with newly drawn ones behind them."""
        arrays = {name: drawn[name] for name in ("images", "out_of_range", "seconds")}
        if self.n_stored(run):
            stored = self.read(run)
            arrays = {name: np.concatenate([getattr(stored, name), value]) for name, value in arrays.items()}
        bad = np.flatnonzero(np.isnan(arrays["out_of_range"]))
        if len(bad) and self.tells_of_the_run:
            count = len(arrays["images"])
            seed = run.spec.seed
            reason = f"{len(bad)} of {count} samples are not finite, the first is {bad[0]} (seed {seed})"
            record_divergence(run, reason)
        return Samples(**arrays, method=self.method, num_steps=self._steps(run), seed=run.spec.seed)

    def read(self, run: Run) -> Samples:
        """Read the stored samples of the run's present weights.

        Raises:
            ValueError: if there are none.
        """
        (output,) = self.outputs(run)
        if not run.results.has(*output):
            path = run.results.store.path
            raise ValueError(
                f"{path} holds no {output.name} of the run's present weights (draw them with sample)"
            )
        return run.results.get(output.name, Samples, output.key)

    def count(self, run: Run) -> int:
        """Return how many samples are wanted."""
        return self.n or run.spec.evaluation.n_samples

    def samples(self, run: Run) -> Output:
        """Return where the samples are stored."""
        return self.outputs(run)[0]

    def _steps(self, run: Run) -> int:
        return self.num_steps or run.spec.diffusion.timesteps


@dataclass(frozen=True)
class OtherVarianceSamplesStage(SamplesStage):
    """The first samples with the fixed reverse variance that is not the run's own (Section 3.2).

    Training on the unweighted error does not depend on a fixed variance, so that the network serves both.
    """

    tells_of_the_run: ClassVar[bool] = False

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the result."""
        return OTHER_VARIANCE_SAMPLES

    def key(self, run: Run) -> str:
        """Return the digest of everything that each sample depends on."""
        return result_key(run, super().key(run), OTHER_VARIANCE[run.spec.diffusion.variance])

    def outputs(self, run: Run) -> tuple[Output, ...]:
        """Return where the samples are stored."""
        return (Output(run.results.qualified(self.name), self.key(run)),)

    def obstacle(self, run: Run) -> str:
        """Return why no other variance is served: it is not fixed, or training depended on it."""
        diffusion = run.spec.diffusion
        variance, objective = diffusion.variance, diffusion.objective
        free = variance in OTHER_VARIANCE and objective == "mse"
        return "" if free else f"the network was trained with variance {variance} on objective {objective}"

    def process(self, run: Run) -> ReverseProcess:
        """Return the run's reverse process with the other variance."""
        process = run.process()
        other = OTHER_VARIANCE[run.spec.diffusion.variance]
        return replace(process, variance=process.schedule.fixed_variance(other))


@dataclass(frozen=True)
class TrajectoryStage(Stage):
    """The estimates x0_hat of the first samples, which it draws (Figs. 6 and 10)."""

    name = "progressive"
    record = Trajectory

    def key(self, run: Run) -> str:
        """Return the digest of everything that each trajectory depends on; their number is no part of it."""
        return result_key(run, *run.sampling_choices, self.times(run))

    def is_stored(self, run: Run) -> bool:
        """Tell whether enough trajectories are stored."""
        (output,) = self.outputs(run)
        return n_stored(run, output) >= self.count(run)

    def network_evaluations(self, run: Run, planned: Sequence[Stage] = ()) -> int:
        """Return the evaluations of all trajectories."""
        return self.count(run) * run.spec.diffusion.timesteps

    def compute(self, run: Run, work: Work) -> Record | None:
        """Return the trajectories."""
        results = self.compute_all(run, work)
        return results[0].record if results else None

    def compute_all(self, run: Run, work: Work) -> list[Result]:
        """Return the trajectories, and the samples that they end in behind those that are stored."""
        times = self.times(run)
        sampler = AncestralSampler(run.process(), run.spec.seed)
        drawn = draw_of_run(run, sampler, range(self.count(run)), work, times)
        if drawn is None:
            return []
        estimates = np.moveaxis(drawn.pop("x_0_hat"), 1, 0)
        (output,) = self.outputs(run)
        results = [Result(output.name, Trajectory(t=np.array(times), x_0_hat=estimates), output.key)]
        samples = SamplesStage()
        have = samples.n_stored(run)
        if have < self.count(run):
            more = {name: values[have:] for name, values in drawn.items()}
            where = self.samples(run)
            results.append(Result(where.name, samples.extended(run, more), where.key))
        return results

    def times(self, run: Run) -> list[int]:
        """Return the times at which x0_hat is kept, decreasing."""
        total = run.spec.diffusion.timesteps
        return sorted({1, *evenly_spaced(total, min(TRAJECTORY_STEPS, total))}, reverse=True)

    def count(self, run: Run) -> int:
        """Return the number of samples that the figures need."""
        evaluation = run.spec.evaluation
        return max(evaluation.n_progressive, evaluation.curve_samples)

    def samples(self, run: Run) -> Output:
        """Return where the samples are stored that the trajectories end in."""
        return SamplesStage().samples(run)


@dataclass(frozen=True)
class InterpolationStage(Stage):
    """Interpolations between test images in the latent spaces of one or several times (Figs. 8 and 9).

    Attributes:
        times: times of the latent spaces, each of which has a result of its own; none takes T / 2, as in the
            paper's Fig. 8.
        pairs: number of pairs of test images, of different classes where there are any.
    """

    times: tuple[int, ...] = ()
    pairs: int = 4
    name = "interpolation"
    record = Interpolations

    def key(self, run: Run) -> str:
        """Return the key of the first time's result."""
        return self.outputs(run)[0].key

    def outputs(self, run: Run) -> tuple[Output, ...]:
        """Return where the results are stored: ``interpolation``, at another time ``interpolation-750``."""
        half = half_time(run.spec.diffusion.timesteps)
        names = (self.name if t == half else f"{self.name}-{t}" for t in self.latent_times(run))
        return tuple(
            Output(run.results.qualified(name), self._key(run, t))
            for name, t in zip(names, self.latent_times(run), strict=True)
        )

    def obstacle(self, run: Run) -> str:
        """Return why there are no mixtures: the network takes classes, or the test set has too few images."""
        if run.spec.is_conditional:
            return CONDITIONAL
        wanted, found = 2 * self.pairs, len(run.test_images)
        return "" if wanted <= found else f"interpolations need {wanted} test images, but there are {found}"

    def network_evaluations(self, run: Run, planned: Sequence[Stage] = ()) -> int:
        """Return the evaluations of all mixtures."""
        return self.pairs * sum(self.latent_times(run)) * len(INTERPOLATION_WEIGHTS)

    def compute(self, run: Run, work: Work) -> Record | None:
        """Interpolate at the first time."""
        return next(iter(self._interpolate(run)), None)

    def compute_all(self, run: Run, work: Work) -> list[Result]:
        """Interpolate at all times."""
        outputs = self.outputs(run)
        return [
            Result(output.name, found, output.key)
            for output, found in zip(outputs, self._interpolate(run), strict=False)
        ]

    def check(self, run: Run) -> None:
        """Raise ValueError if the chain has no such time, or the test set too few images."""
        if run.spec.is_conditional:
            raise ValueError(CONDITIONAL)
        timesteps = run.spec.diffusion.timesteps
        for t in self.latent_times(run):
            if not 1 <= t <= timesteps:
                raise ValueError(f"t is {t}, but this chain has times 1 to {timesteps}")
        if not 1 <= self.pairs <= len(run.test_images) // 2:
            raise ValueError(
                f"{self.pairs} pairs asked for, but the test set has {len(run.test_images)} images"
            )

    def latent_times(self, run: Run) -> tuple[int, ...]:
        """Return the times of the latent spaces."""
        return self.times or (half_time(run.spec.diffusion.timesteps),)

    def _key(self, run: Run, t: int) -> str:
        """Return the digest of everything that the images of a time depend on."""
        pairing = PAIRING_WITHOUT_CLASSES if run.test_images.labels is None else PAIRING
        choices = (t, self.pairs, pairing, INTERPOLATION_WEIGHTS)
        return result_key(run, *run.sampling_choices, run.test_images.digest, *choices)

    def _interpolate(self, run: Run) -> list[Interpolations]:
        """Encode pairs of test images, mix and decode them, on the main process."""
        self.check(run)
        if not run.runtime.main:
            return []
        times = self.latent_times(run)
        ends = run.test_images.take(different_pairs(run.test_images, self.pairs).reshape(-1))
        source, target = to_model_range(torch.from_numpy(ends).to(run.runtime.arithmetic_device)).chunk(2)
        sampler = AncestralSampler(run.process(), run.spec.seed)
        with run.runtime.evaluation_precision():
            mixed = samplers.interpolate(
                sampler, source, target, times, INTERPOLATION_WEIGHTS, run.batch_size
            )
        for t in times:
            if not mixed[t].isfinite().all():
                raise not_finite(run, f"an interpolation in the latent space of t = {t} is not finite")
        return [
            Interpolations(
                source=ends[: self.pairs],
                target=ends[self.pairs :],
                weight=np.array(INTERPOLATION_WEIGHTS),
                images=to_pixels(mixed[t]).cpu().numpy(),
                t=t,
            )
            for t in times
        ]


def half_time(timesteps: int) -> int:
    """Return T / 2, the time of the paper's Fig. 8."""
    return max(1, timesteps // 2)


def other_times(timesteps: int) -> tuple[int, ...]:
    """Return the times of Fig. 9, the eighths of T, without that of Fig. 8."""
    return tuple(t for t in evenly_spaced(timesteps, min(EIGHTHS, timesteps)) if t != half_time(timesteps))


def different_pairs(images: ImageSet, pairs: int) -> Array:
    """Return the positions of pairs of the first images, of different classes as long as that is possible.

    Args:
        images: at least twice as many as pairs; without labels each image is paired with the next.
        pairs: their number; fewer pairs are the first of more.

    Returns:
        int64 ``[end, pair]``.
    """
    if images.labels is None:
        return np.arange(2 * pairs).reshape(pairs, 2).T
    left = list(range(len(images)))
    found = []
    for _ in range(pairs):
        first = left.pop(0)
        second = next((k for k in left if images.labels[k] != images.labels[first]), left[0])
        left.remove(second)
        found.append((first, second))
    return np.array(found, dtype=np.int64).T


def draw_of_run(
    run: Run, sampler: Sampler, ids: range, work: Work, times: Sequence[int] = ()
) -> dict[str, Array] | None:
    """Draw samples of a run, see `draw_samples`; with ``times`` as the work "progressive".

    A run whose samples are not finite in fp32 has diverged, which is a result. In a lower precision that says
    nothing of the run.

    Raises:
        NotFinite: if a sample is not finite in a lower precision than fp32.
        ValueError: if there is too little memory.
    """
    evaluation_memory.check(
        evaluation_memory.sampling(run.spec, SAMPLING, max(1, len(times)) * len(ids), run.runtime),
        min(run.batch_size, len(ids)),
    )
    try:
        with run.runtime.evaluation_precision():
            return draw_samples(
                sampler,
                run.shape,
                ids,
                batch_size=run.batch_size,
                times=times,
                work=work,
                name="progressive" if times else "sample",
                only_finite=run.runtime.precision != "fp32",
            )
    except NotFinite as error:
        raise not_finite(run, str(error)) from error


def n_stored(run: Run, output: Output) -> int:
    """Return of how many samples a stored result is, without reading them; 0 if there is none."""
    entry = run.results.entry(*output)
    if entry is None:
        return 0
    sizes: Sequence[tuple[str, int]] = list(itertools.chain(*entry.sizes))
    return dict(sizes)["sample"]
