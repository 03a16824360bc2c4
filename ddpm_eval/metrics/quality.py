"""Sample quality: any images against a data set, through an extractor, as numbers with intervals.

Conventions: images are uint8 ``[n, channels, side, side]``. They stream through the network in batches;
features of many images lie in a temporary memory-mapped file, and statistics of the reference are accumulated
without holding images or features and kept under a key of everything that they depend on. Reference images
are the data set's own, never augmented.
"""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ddpm_eval.data.image_set import Images, ImageSet, as_images
from ddpm_eval.files import digest
from ddpm_eval.metrics.distances import (
    GROUPS,
    METRICS,
    PROTOCOLS,
    Float64,
    Moments,
    QualityProtocol,
    confidence,
    frechet,
    frechet_infinite,
    kernel_distance,
    moments_of,
    not_measured,
    precision_recall,
    score,
)
from ddpm_eval.metrics.features import Extractor, Float32
from ddpm_eval.results.fields import Array, Estimate, Record, fields_of_kind
from ddpm_eval.results.records import SQUARED_FEATURES, FeatureStatistics, Quality
from ddpm_eval.runtime import Progress, silent

STATISTICS = "statistics"
"""The name under which statistics of features are kept."""
MEMORY_LIMIT_BYTES = 64 * 2**20
"""Feature arrays beyond this size lie in a temporary file."""


class StatisticsCache(Protocol):
    """Where statistics of features are kept: a `ddpm_eval.results.store.Store`."""

    def has(self, name: str, key: str) -> bool:
        """Return whether a record of this name and key is kept."""

    def get(
        self, name: str, record_type: type[FeatureStatistics], key: str | None = None
    ) -> FeatureStatistics:
        """Return the record of this name and key."""

    def put(self, name: str, record: Record, *, key: str, provenance: Mapping[str, object]) -> None:
        """Keep a record."""


@dataclass(frozen=True, eq=False)
class FeatureArrays:
    """Features ``[n, width]`` and logits ``[n, classes]``, in memory or in temporary files.

    The files vanish with the arrays.
    """

    features: Float32
    logits: Float32


def check(n: int, width: int, protocol: QualityProtocol = PROTOCOLS["paper"]) -> str:
    """Return the caveat for a sample of size n ("" if none).

    Args:
        n: number of images.
        width: of the features.
        protocol: of the measurement.

    Raises:
        ValueError: if n images are too few, or a metric of the protocol is unknown.
    """
    if unknown := set(protocol.metrics) - set(METRICS):
        raise ValueError(f"there is no metric {min(unknown)!r} ({', '.join(METRICS)} are)")
    fewest = max(2 * protocol.splits, 2 * GROUPS, 2 * protocol.neighbours)
    if n < fewest:
        raise ValueError(
            f"{n} images are too few to be measured (at least {fewest}: two for each of {protocol.splits} "
            "splits)"
        )
    if n > width or "frechet_distance" not in protocol.metrics:
        return ""
    finding = (
        f"{n} images are too few for a Frechet distance of {width} features: their covariance is singular"
    )
    if not protocol.allow_singular:
        raise ValueError(f"{finding} (at least {width + 1} are needed, {10 * width} are better)")
    return f"{finding} and the distance far too large"


def evaluate_quality(
    images: Images | Array,
    reference: ImageSet,
    extractor: Extractor,
    *,
    test: ImageSet | None = None,
    protocol: QualityProtocol = PROTOCOLS["paper"],
    statistics_cache: StatisticsCache | None = None,
    progress: Progress = silent,
) -> Quality:
    """Measure samples against reference images, all numbers with 95% intervals.

    Args:
        images: samples, uint8 ``[n, channels, side, side]`` or anything with `len` and `take`.
        reference: the images that distances are taken to; the paper's are the training split.
        extractor: the network whose features are compared.
        test: held-out images whose own distance to the reference is reported as the yardstick.
        protocol: what is measured, and how; kid and precision_recall hold the reference's features, in a
            temporary file if they are many.
        statistics_cache: where the reference's statistics are looked up and kept.
        progress: called while features are computed.

    Raises:
        ValueError: if there are too few images, they do not suit the extractor, or a metric is unknown.
    """
    samples = as_images(images)
    caveat = check(len(samples), extractor.width, protocol)
    sampled = collect_features(samples, extractor, progress=progress)
    pairwise = not {"kid", "precision_recall"}.isdisjoint(protocol.metrics)
    real = collect_features(reference, extractor, progress=progress).features if pairwise else None
    target = feature_statistics(
        reference, extractor, features=real, statistics_cache=statistics_cache, progress=progress
    )
    numbers = _numbers(sampled, real, target, protocol, extractor.kernel_width)
    numbers.estimates["reference_distance"] = _yardstick(test, extractor, target, protocol, progress)
    return Quality(
        **numbers.estimates,
        class_counts=numbers.class_counts,
        score_splits=numbers.score_splits,
        score_std=float(np.std(numbers.score_splits)) if len(numbers.score_splits) else math.nan,
        kid_std=numbers.kid_std,
        n_samples=len(samples),
        n_reference=len(reference),
        n_test=0 if test is None else len(test),
        reference=reference.split,
        features=extractor.name,
        weights_digest=extractor.weights_digest,
        classifier_test_accuracy=extractor.test_accuracy,
        n_classifier_test=extractor.n_test,
        protocol=protocol.name,
        caption=_caption(len(samples), reference, extractor, protocol),
        caveat=caveat,
    )


def collect_features(images: Images, extractor: Extractor, *, progress: Progress = silent) -> FeatureArrays:
    """Compute the features and logits of all images, in temporary files if they are many.

    Raises:
        ValueError: if there are no images, or they do not suit the extractor.
    """
    arrays: FeatureArrays | None = None
    first = 0
    for features, logits in extractor.extract(images, progress=progress):
        if arrays is None:
            arrays = FeatureArrays(
                _allocate(len(images), features.shape[1]), _allocate(len(images), logits.shape[1])
            )
        last = first + len(features)
        arrays.features[first:last] = features
        arrays.logits[first:last] = logits
        first = last
    if arrays is None:
        raise ValueError("there are no images to measure (an empty set)")
    return arrays


def feature_statistics(
    images: ImageSet,
    extractor: Extractor,
    *,
    features: Float32 | None = None,
    statistics_cache: StatisticsCache | None = None,
    progress: Progress = silent,
) -> FeatureStatistics:
    """Return the mean and covariance of a set's features, accumulated in float64.

    Args:
        images: the set.
        extractor: the network.
        features: the set's features, if they are known already.
        statistics_cache: where the statistics are looked up first and kept, under a key of data, split,
            extractor, its weights and its resizing.
        progress: called while features are computed.
    """
    depends_on = {
        "data_digest": images.digest,
        "split": images.split,
        "features": extractor.name,
        "weights_digest": extractor.weights_digest,
        "resize": extractor.resize,
    }
    key = digest(depends_on)
    if statistics_cache is not None:
        missing = not statistics_cache.has(STATISTICS, key)
        if not extractor.runtime.any_process(missing):  # all processes extract, or none does
            return statistics_cache.get(STATISTICS, FeatureStatistics, key)
    moments = _moments(images, extractor, progress) if features is None else moments_of(features)
    found = FeatureStatistics(
        mean=moments.mean, covariance=moments.covariance, n_images=moments.n, **depends_on
    )
    if statistics_cache is not None and extractor.runtime.main:
        statistics_cache.put(STATISTICS, found, key=key, provenance=depends_on)
    return found


class _Numbers(NamedTuple):
    """What is measured of the samples, by the names of the record's fields."""

    estimates: dict[str, Estimate]
    class_counts: npt.NDArray[np.int64]
    score_splits: Float64
    kid_std: float


def _numbers(
    sampled: FeatureArrays,
    real: Float32 | None,
    target: FeatureStatistics,
    protocol: QualityProtocol,
    kernel_width: float | None,
) -> _Numbers:
    """Measure what the protocol asks for; estimates of all else are NaN."""
    estimates = {f.name: not_measured(f.metadata["unit"]) for f in fields_of_kind(Quality, "estimate")}
    class_counts, estimates["mean_confidence"] = confidence(sampled.logits)
    score_splits = np.empty(0)
    kid_std = math.nan
    if "frechet_distance" in protocol.metrics:
        estimates["frechet_distance"] = frechet(sampled.features, target)
    if "frechet_infinite" in protocol.metrics:
        estimates["frechet_infinite"] = frechet_infinite(sampled.features, target)
    if "score" in protocol.metrics and sampled.logits.shape[1]:
        estimates["score"], score_splits = score(sampled.logits, protocol)
    if "kid" in protocol.metrics and real is not None:
        estimates["kid"], kid_std = kernel_distance(sampled.features, real, protocol, kernel_width)
    if "precision_recall" in protocol.metrics and real is not None:
        precision, recall = precision_recall(sampled.features, real, protocol)
        estimates |= {"precision": precision, "recall": recall}
    return _Numbers(estimates, class_counts, score_splits, kid_std)


def _yardstick(
    test: ImageSet | None,
    extractor: Extractor,
    target: FeatureStatistics,
    protocol: QualityProtocol,
    progress: Progress,
) -> Estimate:
    """Return the test images' distance; NaN if it is not asked for or they are too few."""
    if test is None or "frechet_distance" not in protocol.metrics:
        return not_measured(SQUARED_FEATURES)
    if len(test) <= extractor.width and not protocol.allow_singular:
        return not_measured(SQUARED_FEATURES)
    return frechet(collect_features(test, extractor, progress=progress).features, target)


def _moments(images: ImageSet, extractor: Extractor, progress: Progress) -> Moments:
    """Accumulate the moments of a set's features without holding them."""
    moments = Moments()
    for features, _ in extractor.extract(images, progress=progress):
        moments.add(features)
    return moments


def _caption(n: int, reference: ImageSet, extractor: Extractor, protocol: QualityProtocol) -> str:
    accuracy = (
        f", {extractor.test_accuracy:.1%} of {extractor.n_test} test images right" if extractor.n_test else ""
    )
    width = extractor.kernel_width
    kernel = "" if width is None else f" with a Gaussian kernel of width {width:g} (as CMMD, but unbiased)"
    return (
        f"{protocol.caption(kernel, extractor.has_logits)}; {n} samples against the {len(reference)} images "
        f"of {reference.name}'s {reference.split} split; {extractor.name} (weights "
        f"{extractor.weights_digest}, resize {extractor.resize}{accuracy})"
    )


def _allocate(rows: int, columns: int) -> Float32:
    if rows * columns * 4 <= MEMORY_LIMIT_BYTES:
        return np.empty((rows, columns), np.float32)
    with tempfile.TemporaryFile() as file:  # the mapping keeps the file alive
        return np.memmap(file, np.float32, "w+", shape=(rows, columns))
