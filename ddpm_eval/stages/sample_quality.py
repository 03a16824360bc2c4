"""Sample quality of a run as stages: of its samples, over its reverse process, over its shorter chains, and
against copies.

`SampleQuality` brings together a run (samples, data, runtime, store) and `ddpm_eval.metrics.quality`: the
same n samples are followed over the reverse process (Fig. 10) and over numbers of sampling steps, in the
features of the data set's classifier or of Inception. torch-fidelity is imported only when something is
measured.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np

from ddpm_eval.protocol import SAMPLING_STEPS
from ddpm_eval.results.records import (
    QUALITY_OVER_STEPS,
    QUALITY_OVER_TIME,
    Array,
    Neighbours,
    Quality,
    QualityCurve,
    Record,
    Samples,
    Trajectory,
)
from ddpm_eval.results.store import Store, digest
from ddpm_eval.spec import Method

if TYPE_CHECKING:
    from ddpm_eval.metrics.distances import QualityProtocol
    from ddpm_eval.metrics.features import Extractor
    from ddpm_eval.stages.pipeline import Run

CURVE_METRICS = ("frechet_distance", "score")


@dataclass(frozen=True)
class SampleQuality:
    """One run's quality in the features of one network.

    Attributes:
        run: the run.
        inception_weights: file of Inception's weights; None: the data set's classifier.
    """

    run: "Run"
    inception_weights: Path | None = None

    def check(self) -> None:
        """Raise ValueError now, not after hours, if the samples to be drawn will be too few for the quality
        figures.
        """
        from ddpm_eval.metrics import quality

        if not self.possible:
            return
        extractor, evaluation = self._extractor(), self.run.spec.evaluation
        quality.check(evaluation.n_samples, extractor, protocol=self._protocol)
        if evaluation.curve_samples:
            try:
                quality.check(
                    evaluation.curve_samples, extractor, protocol=self._protocol, metrics=CURVE_METRICS
                )
            except ValueError as error:
                raise ValueError(f"evaluation.n_curve: {error}; 0 leaves the curves out") from None

    @property
    def possible(self) -> bool:
        """Whether there is a network to judge by: labels for a classifier, or Inception's weights."""
        return self.inception_weights is not None or self.run.train_images.labels is not None

    def done(self, name: str) -> bool:
        """Tell whether a result is stored, or cannot be had: no judge, no curves, or a network that needs all
        steps.
        """
        if not self.possible:
            return True
        if name != "quality" and not self.run.spec.evaluation.curve_samples:
            return True
        if name in QUALITY_OVER_STEPS.values() and not self.run.can_skip_steps:
            return True
        return self.run.has(name, self._key(name))

    def measure(self) -> None:
        """Measure the stored samples against the training set."""
        n = self.run.spec.evaluation.n_samples
        self._store("quality", lambda extractor: self._evaluate(self._samples().images[:n], extractor))

    def over_time(self) -> None:
        """Measure x0_hat at each kept time of the reverse process (Fig. 10)."""

        def curve(extractor: "Extractor") -> QualityCurve:
            path, n = self.run.store.get("progressive", Trajectory), self.run.spec.evaluation.curve_samples
            points = {
                int(t): self._evaluate(x[:n], extractor, CURVE_METRICS)
                for t, x in zip(path.t, path.x_0_hat, strict=True)
            }
            return _curve("t", "ancestral", points)

        self._store(QUALITY_OVER_TIME, curve)

    def over_steps(self, method: Method) -> None:
        """Measure samples of shorter chains of a sampler, and the time that they take."""
        n, total = self.run.spec.evaluation.curve_samples, self.run.spec.diffusion.timesteps
        counts = [steps for steps in SAMPLING_STEPS if steps < total]

        def curve(extractor: "Extractor") -> QualityCurve:
            for steps in counts:
                self.run.sample(n, steps, method)
            every = [*counts, total] if method == "ancestral" else counts
            drawn = {steps: self._samples(steps, method) for steps in every}
            points = {
                steps: self._evaluate(samples.images[:n], extractor, CURVE_METRICS)
                for steps, samples in drawn.items()
            }
            return _curve(
                "steps", method, points, [float(samples.seconds[:n].mean()) for samples in drawn.values()]
            )

        self._store(QUALITY_OVER_STEPS[method], curve)

    def nearest(self) -> None:
        """Find the training images nearest to the samples (Fig. 15), and say whether these are copies."""
        from ddpm_eval.metrics import neighbours

        run = self.run

        def find(extractor: "Extractor") -> Neighbours:
            images, splits = (
                self._samples().images[: run.spec.evaluation.curve_samples],
                (run.train_images, run.test_images),
            )
            return neighbours.neighbours(
                images, *splits, extractor, mirrored=run.spec.data.flips, progress=run.progress
            )

        self._store("neighbours", find)

    def _store(self, name: str, make: "Callable[[Extractor], Record]") -> None:
        """Make a result on all processes, if it is missing, and store it."""
        if self.run.runtime.any_process(not self.done(name)):  # all have looked before one begins to write
            began = monotonic()
            record = make(self._extractor())
            self.run.put(name, record, key=self._key(name), seconds=monotonic() - began)
        self.run.runtime.barrier()

    def _evaluate(
        self, images: Array, extractor: "Extractor", metrics: Sequence[str] | None = None
    ) -> Quality:
        from ddpm_eval.metrics import quality

        return quality.measure(
            images,
            self.run.train_images,
            extractor,
            test=None if metrics else self.run.test_images,
            protocol=self._protocol,
            metrics=metrics or quality.METRICS,
            statistics_cache=Store(self._classifiers / "statistics.h5"),
            progress=self.run.progress,
        )

    def _samples(self, steps: int | None = None, method: Method = "ancestral") -> Samples:
        return self.run.stored_samples(steps or self.run.spec.diffusion.timesteps, method)

    def _extractor(self) -> "Extractor":
        from ddpm_eval.metrics import features

        run = self.run
        if self.inception_weights is not None:
            return features.inception(self.inception_weights, runtime=run.runtime)
        return features.classifier(run.train_images, run.test_images, self._classifiers, runtime=run.runtime)

    @property
    def _classifiers(self) -> Path:
        return self.run.runs / "classifiers"

    @property
    def _protocol(self) -> "QualityProtocol":
        from ddpm_eval.metrics.distances import PROTOCOLS

        return PROTOCOLS["paper"].model_copy(update={"splits": self.run.spec.evaluation.n_score_splits})

    def _key(self, name: str) -> str:
        """Return the digest of all that a result depends on."""
        run, evaluation = self.run, self.run.spec.evaluation
        weights = (
            None
            if self.inception_weights is None
            else hashlib.sha256(self.inception_weights.read_bytes()).hexdigest()
        )
        _, samples = run.sample_key(run.spec.diffusion.timesteps, "ancestral")
        n = evaluation.n_samples if name == "quality" else evaluation.curve_samples
        counts = SAMPLING_STEPS if name in QUALITY_OVER_STEPS.values() else None
        return digest(
            samples,
            run.train_images.digest,
            run.test_images.digest,
            weights,
            n,
            evaluation.n_score_splits,
            counts,
        )


def _curve(
    axis: str, method: Method, points: Mapping[int, Quality], seconds: Sequence[float] = ()
) -> QualityCurve:
    """Join the quality at several positions of an axis."""
    found = list(points.values())
    numbers = {
        f"{metric}{end}": np.array([getattr(quality, f"{metric}{end}") for quality in found])
        for metric in CURVE_METRICS
        for end in ("", "_low", "_high")
    }
    first = found[0]
    return QualityCurve(
        position=np.array(list(points)),
        seconds_per_image=np.array(seconds or [np.nan] * len(found)),
        **numbers,
        axis=axis,
        method=method,
        n_samples=first.n_samples,
        features=first.features,
        weights_digest=first.weights_digest,
        caption=first.caption,
    )
