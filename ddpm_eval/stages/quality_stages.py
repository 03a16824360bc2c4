"""Sample quality of a run as stages.

The same samples are followed over the reverse process (Fig. 10) and over numbers of sampling steps, in the
features of the data set's classifier or of Inception.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ddpm_eval.files import file_digest
from ddpm_eval.metrics import coverage, distances, quality
from ddpm_eval.metrics.classifier import FEATURE_WIDTH as CLASSIFIER_WIDTH
from ddpm_eval.metrics.classifier import classifier_key, load_or_train_classifier
from ddpm_eval.metrics.distances import PROTOCOLS, QualityProtocol
from ddpm_eval.metrics.features import Extractor
from ddpm_eval.metrics.inception import FEATURE_WIDTH as INCEPTION_WIDTH
from ddpm_eval.metrics.inception import load_inception
from ddpm_eval.metrics.neighbours import NEIGHBOURS, SHOWN, find_neighbours
from ddpm_eval.metrics.quality import evaluate_quality
from ddpm_eval.metrics.work import Work
from ddpm_eval.protocol import SAMPLING_STEPS
from ddpm_eval.results.fields import Array, Estimate, Record
from ddpm_eval.results.records import (
    QUALITY_OF_OTHER_VARIANCE,
    QUALITY_OVER_STEPS,
    QUALITY_OVER_TIME,
    Coverage,
    Neighbours,
    Quality,
    QualityCurve,
    Samples,
    Trajectory,
)
from ddpm_eval.results.store import Store
from ddpm_eval.spec import Method
from ddpm_eval.stages.base import Stage, result_key
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.run_folders import runs_above
from ddpm_eval.stages.sampling_stages import (
    DEFAULT_SPACING,
    OtherVarianceSamplesStage,
    SamplesStage,
    TrajectoryStage,
)

NO_FEATURES = "the images have no labels to train a classifier on (--inception-weights FILE needs none)"
CURVE_METRICS = ("frechet_distance", "score")
ESTIMATOR_CONSTANTS = (
    distances.IMAGES_PER_FEATURE,
    distances.SIZES,
    distances.PERMUTATIONS,
    distances.ANCHORS,
    distances.GROUPS,
)
"""Everything that the estimators of quality depend on beside their protocol."""
CLASSIFIERS = "classifiers"
STATISTICS_FILE = "statistics.h5"


@dataclass(frozen=True)
class FeatureSource:
    """Where a run's features come from: Inception, or the classifier of its data set.

    Attributes:
        inception_weights: file of Inception's weights; None takes the classifier.
    """

    inception_weights: Path | None = None

    @property
    def width(self) -> int:
        """The number of features, which needs no network."""
        return CLASSIFIER_WIDTH if self.inception_weights is None else INCEPTION_WIDTH

    def exists(self, run: Run) -> bool:
        """Tell whether there are labels for a classifier, or Inception's weights."""
        return self.inception_weights is not None or run.train_images.labels is not None

    def key(self, run: Run) -> str:
        """Return the digest of what the features depend on beside the images.

        Raises:
            ValueError: if there is no file of Inception's weights.
        """
        if self.inception_weights is None:
            return classifier_key(run.train_images, run.test_images)
        if not self.inception_weights.is_file():
            raise ValueError(f"there is no weights file {self.inception_weights}")
        return file_digest(self.inception_weights)

    def extractor(self, run: Run) -> Extractor:
        """Return the feature extractor; the classifier is trained first if it does not exist yet."""
        if self.inception_weights is not None:
            return load_inception(self.inception_weights, runtime=run.runtime)
        folder = classifiers_folder(run)
        return load_or_train_classifier(
            run.train_images, run.test_images, folder, runtime=run.runtime, progress=run.progress
        )


@dataclass(frozen=True)
class _QualityStage(Stage):
    """A measurement of some of a run's samples in features.

    Attributes:
        source: of the features.
    """

    source: FeatureSource = field(default_factory=FeatureSource)

    def obstacle(self, run: Run) -> str:
        """Return what is missing: features, or samples to measure."""
        if not self.source.exists(run):
            return NO_FEATURES
        return "" if self.n(run) > 0 else "no samples are asked for (evaluation.n_curve is 0)"

    def key(self, run: Run) -> str:
        """Return the digest of everything that the result depends on."""
        images = (run.train_images.digest, run.test_images.digest)
        measured = [stage.key(run) for stage in self.requires(run)]
        return result_key(run, *images, self.source.key(run), measured, self.n(run), *self.choices(run))

    def recorded_choices(self, run: Run) -> dict[str, object]:
        """Return where the features come from, with the digest of what they depend on."""
        weights = self.source.inception_weights
        name = "the data set's classifier" if weights is None else f"Inception of {weights}"
        return {"features": name, "features_digest": self.source.key(run)}

    def n(self, run: Run) -> int:
        """Return the number of samples that are measured."""
        return run.spec.evaluation.curve_samples

    def choices(self, run: Run) -> tuple[object, ...]:
        """Return the choices and constants that the result depends on."""
        return (quality_protocol(run, CURVE_METRICS).model_dump_json(), ESTIMATOR_CONSTANTS)


class _SamplesQualityStage(_QualityStage):
    """A measurement of all of the run's samples."""

    def requires(self, run: Run) -> Sequence[Stage]:
        """Return the samples."""
        return [SamplesStage()]

    def n(self, run: Run) -> int:
        """Return the number of the run's samples."""
        return run.spec.evaluation.n_samples


class QualityStage(_SamplesQualityStage):
    """The quality of the run's samples against the training images."""

    name = "quality"
    record = Quality

    def choices(self, run: Run) -> tuple[object, ...]:
        """Return the protocol and the constants of the estimators."""
        return (quality_protocol(run).model_dump_json(), ESTIMATOR_CONSTANTS)

    def compute(self, run: Run, work: Work) -> Record | None:
        """Measure the samples."""
        images = SamplesStage().read(run).finite_images(self.n(run))
        return _evaluate(run, images, self.source.extractor(run), quality.METRICS)

    def read(self, run: Run) -> Quality:
        """Return the stored result."""
        (output,) = self.outputs(run)
        return run.results.get(output.name, Quality, output.key)


class CoverageStage(_SamplesQualityStage):
    """Density and coverage of the run's samples among the training images, and their classes."""

    name = "coverage"
    record = Coverage

    def choices(self, run: Run) -> tuple[object, ...]:
        """Return the constants of the estimators."""
        return (coverage.NEIGHBOURS, distances.GROUPS)

    def compute(self, run: Run, work: Work) -> Record | None:
        """Measure the samples."""
        images = SamplesStage().read(run).finite_images(self.n(run))
        extractor = self.source.extractor(run)
        return coverage.evaluate_coverage(images, run.train_images, extractor, progress=run.progress)

    def read(self, run: Run) -> Coverage:
        """Return the stored result."""
        (output,) = self.outputs(run)
        return run.results.get(output.name, Coverage, output.key)


class QualityOverTimeStage(_QualityStage):
    """The quality of x0_hat at each kept time of the reverse process (Fig. 10)."""

    name = QUALITY_OVER_TIME
    record = QualityCurve

    def requires(self, run: Run) -> Sequence[Stage]:
        """Return the trajectories."""
        return [TrajectoryStage()]

    def compute(self, run: Run, work: Work) -> Record | None:
        """Measure the estimates at each time."""
        stage = TrajectoryStage()
        path = run.results.get(run.results.qualified(stage.name), Trajectory, stage.key(run))
        extractor = self.source.extractor(run)
        points = {
            int(t): _evaluate(run, images[: self.n(run)], extractor, CURVE_METRICS)
            for t, images in zip(path.t, path.x_0_hat, strict=True)
        }
        return _curve("t", "ancestral", points, {})


@dataclass(frozen=True)
class QualityOverStepsStage(_QualityStage):
    """The quality of the samples of shorter chains, and the time that they take.

    Attributes:
        method: the sampler.
    """

    method: Method = "ancestral"
    record = QualityCurve

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the result."""
        return QUALITY_OVER_STEPS[self.method]

    def obstacle(self, run: Run) -> str:
        """Return what is missing: features, samples, or a network that serves shorter chains."""
        if run.no_fewer_steps:
            return run.no_fewer_steps
        none = "" if self._samples(run) else f"a chain of {run.spec.diffusion.timesteps} steps is too short"
        return super().obstacle(run) or none

    def requires(self, run: Run) -> Sequence[Stage]:
        """Return the samples of every number of steps."""
        return list(self._samples(run).values())

    def compute(self, run: Run, work: Work) -> Record | None:
        """Measure the samples of every number of steps."""
        n = self.n(run)
        extractor = self.source.extractor(run)
        drawn: dict[int, Samples] = {steps: stage.read(run) for steps, stage in self._samples(run).items()}
        points = {
            steps: _evaluate(run, samples.finite_images(n), extractor, CURVE_METRICS)
            for steps, samples in drawn.items()
        }
        seconds = {steps: float(samples.seconds[:n].mean()) for steps, samples in drawn.items()}
        curve = _curve("steps", self.method, points, seconds)
        spacing = run.spec.evaluation.spacing
        if spacing == DEFAULT_SPACING:
            return curve
        return replace(curve, caption=f"{curve.caption}; steps of {spacing} spacing")

    def _samples(self, run: Run) -> dict[int, SamplesStage]:
        """Return the samples by number of steps, those of all steps last for the ancestral sampler."""
        total = run.spec.diffusion.timesteps
        n = self.n(run)
        counts = [steps for steps in SAMPLING_STEPS if steps < total]
        spacing = run.spec.evaluation.spacing
        stages = {steps: SamplesStage(n, steps, self.method, spacing) for steps in counts}
        if self.method == "ancestral":
            stages[total] = SamplesStage(n)
        return stages


class OtherVarianceQualityStage(_QualityStage):
    """The quality of samples with the fixed reverse variance that is not the run's own."""

    name = QUALITY_OF_OTHER_VARIANCE
    record = Quality

    def obstacle(self, run: Run) -> str:
        """Return what is missing: features, or a network that serves the other variance."""
        return super().obstacle(run) or OtherVarianceSamplesStage().obstacle(run)

    def requires(self, run: Run) -> Sequence[Stage]:
        """Return the samples."""
        return [OtherVarianceSamplesStage(self.n(run))]

    def compute(self, run: Run, work: Work) -> Record | None:
        """Measure the samples."""
        images = OtherVarianceSamplesStage().read(run).finite_images(self.n(run))
        return _evaluate(run, images, self.source.extractor(run), CURVE_METRICS)


class NeighboursStage(_QualityStage):
    """The training images nearest to the samples (Fig. 15), and whether these are copies."""

    name = "neighbours"
    record = Neighbours

    def requires(self, run: Run) -> Sequence[Stage]:
        """Return the samples."""
        return [SamplesStage(self.n(run))]

    def choices(self, run: Run) -> tuple[object, ...]:
        """Return the numbers of neighbours and of samples that are shown."""
        return (NEIGHBOURS, SHOWN, run.spec.data.flips)

    def compute(self, run: Run, work: Work) -> Record | None:
        """Search the training images, and their mirror images where training flipped them."""
        images = SamplesStage().read(run).finite_images(self.n(run))
        return find_neighbours(
            images,
            run.train_images,
            run.test_images,
            self.source.extractor(run),
            mirrored=run.spec.data.flips,
            progress=run.progress,
        )


def check_sample_counts(run: Run, source: FeatureSource) -> None:
    """Raise ValueError before hours of sampling if quality could not be measured of the samples."""
    if not source.exists(run):
        return
    evaluation = run.spec.evaluation
    quality.check(evaluation.n_samples, source.width, quality_protocol(run))
    if evaluation.curve_samples:
        try:
            quality.check(evaluation.curve_samples, source.width, quality_protocol(run, CURVE_METRICS))
        except ValueError as error:
            raise ValueError(f"evaluation.n_curve: {error}; 0 leaves the curves out") from None
    source.extractor(run)  # weights or labels that do not serve are found now, too


def classifiers_folder(run: Run) -> Path:
    """Return the folder of the classifiers and reference statistics that all runs share."""
    return runs_above(run.folder, run.spec) / CLASSIFIERS


def quality_protocol(run: Run, metrics: tuple[str, ...] = quality.METRICS) -> QualityProtocol:
    """Return the protocol of a run's quality figures, for some of the metrics."""
    changes = {"splits": run.spec.evaluation.n_score_splits, "metrics": metrics}
    return PROTOCOLS["paper"].model_copy(update=changes)


def _evaluate(run: Run, images: Array, extractor: Extractor, metrics: tuple[str, ...]) -> Quality:
    return evaluate_quality(
        images,
        run.train_images,
        extractor,
        test=run.test_images if metrics == quality.METRICS else None,
        protocol=quality_protocol(run, metrics),
        statistics_cache=Store(classifiers_folder(run) / STATISTICS_FILE),
        progress=run.progress,
    )


def _curve(
    axis: str, method: Method, points: Mapping[int, Quality], seconds: Mapping[int, float]
) -> QualityCurve:
    """Join the quality at several positions of an axis."""
    found = list(points.values())
    first = found[0]
    return QualityCurve(
        position=np.array(list(points)),
        seconds_per_image=np.array([seconds.get(position, np.nan) for position in points]),
        frechet_distance=_bounds([each.frechet_distance for each in found]),
        score=_bounds([each.score for each in found]),
        axis=axis,
        method=method,
        n_samples=first.n_samples,
        features=first.features,
        weights_digest=first.weights_digest,
        caption=first.caption,
    )


def _bounds(estimates: Sequence[Estimate]) -> Array:
    """Return values and bounds as ``[position, interval]``."""
    return np.array([estimate[:3] for estimate in estimates])
