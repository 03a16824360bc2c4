"""Sample quality: any images against a data set, through an extractor, as numbers with intervals.

Conventions: images are uint8 ``[n, channels, side, side]``. They stream through the network in batches;
    features of many
images lie in a temporary memory-mapped file, statistics of the reference are accumulated without holding
either and kept under a key of everything that they depend on. Reference images are the data set's own, never
augmented.
"""

import hashlib
import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ddpm_eval.data.image_set import Images, ImageSet, as_images
from ddpm_eval.metrics.distances import (
    GROUPS,
    NOT_MEASURED,
    PROTOCOLS,
    Estimate,
    Float32,
    Moments,
    QualityProtocol,
    confidence,
    frechet,
    frechet_infinite,
    kernel_distance,
    moments_of,
    precision_recall,
    score,
)
from ddpm_eval.metrics.features import Extractor
from ddpm_eval.results.records import Array, FeatureStatistics, Quality, Record
from ddpm_eval.runtime import Progress, silent

METRICS = ("frechet_distance", "frechet_infinite", "score", "kid", "precision_recall")
MEMORY_LIMIT_BYTES = 64 * 2**20
"""Feature arrays beyond this size lie in a temporary file."""


class StatisticsCache(Protocol):
    """Where reference statistics are kept: a `ddpm_eval.results.store.Store`."""

    def has(self, name: str, key: str) -> bool:
        """Tell whether a record of this name and key is kept."""

    def get(self, name: str, record_type: type[FeatureStatistics]) -> FeatureStatistics:
        """Return a record."""

    def put(self, name: str, record: Record, *, key: str, provenance: Mapping[str, Any]) -> None:
        """Keep a record."""


@dataclass(frozen=True, eq=False)
class FeatureArrays:
    """Features ``[n, width]`` and logits ``[n, classes]``, in memory or in a temporary file that vanishes
    with them.
    """

    features: Float32
    logits: Float32


def check(
    n: int,
    extractor: Extractor,
    *,
    protocol: QualityProtocol = PROTOCOLS["paper"],
    metrics: Collection[str] = METRICS,
    allow_singular: bool = False,
) -> str:
    """Tell what must be said of numbers from n images (empty if nothing), before they are made; arguments as
    of `measure`.

    Raises:
        ValueError: if n images are too few, or a metric is unknown.
    """
    if unknown := set(metrics) - set(METRICS):
        raise ValueError(f"there is no metric {min(unknown)!r} ({', '.join(METRICS)} are)")
    fewest = max(2 * protocol.splits, 2 * GROUPS, 2 * protocol.neighbours)
    if n < fewest:
        raise ValueError(
            f"{n} images are too few to be measured (at least {fewest}: two for each of {protocol.splits} splits)"
        )
    if n > extractor.width or "frechet_distance" not in metrics:
        return ""
    finding = f"{n} images are too few for a Frechet distance of {extractor.width} features: their covariance is singular"
    if not allow_singular:
        raise ValueError(
            f"{finding} (at least {extractor.width + 1} are needed, {10 * extractor.width} are better)"
        )
    return f"{finding} and the distance far too large"


def measure(
    images: Images | Array,
    reference: ImageSet,
    extractor: Extractor,
    *,
    test: ImageSet | None = None,
    protocol: QualityProtocol = PROTOCOLS["paper"],
    metrics: Collection[str] = METRICS,
    allow_singular: bool = False,
    statistics_cache: StatisticsCache | None = None,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> Quality:
    """Measure samples against reference images, all numbers with 95% intervals.

    Args:
        images: samples, uint8 ``[n, channels, side, side]`` or anything with `len` and `take`.
        reference: the images that distances are taken to; the paper's are the training split.
        extractor: the network whose features are compared.
        test: held-out images whose own distance to the reference is reported as the yardstick.
        protocol: how the numbers are made.
        metrics: which of `METRICS` are measured; kid and precision_recall hold the reference's features in a
            temporary file.
        allow_singular: measure a distance with fewer images than features all the same, with a caveat and no
            interval.
        statistics_cache: where the reference's statistics are looked up and kept.
        batch_size: images per pass of the network (None: the extractor's own); changes numbers by rounding
            only.
        progress: called while features are computed.

    Raises:
        ValueError: if there are too few images, they do not suit the extractor, or a metric is unknown.
    """
    samples = as_images(images)
    caveat = check(len(samples), extractor, protocol=protocol, metrics=metrics, allow_singular=allow_singular)
    held = collect(samples, extractor, batch_size=batch_size, progress=progress)
    needs_features = not {"kid", "precision_recall"}.isdisjoint(metrics)
    real = (
        collect(reference, extractor, batch_size=batch_size, progress=progress).features
        if needs_features
        else None
    )
    target = statistics(
        reference,
        extractor,
        statistics_cache=statistics_cache,
        held=real,
        batch_size=batch_size,
        progress=progress,
    )
    yardstick = NOT_MEASURED
    if test is not None and "frechet_distance" in metrics and (len(test) > extractor.width or allow_singular):
        yardstick = frechet(
            collect(test, extractor, batch_size=batch_size, progress=progress).features, target
        )
    return Quality(
        **_numbers(held, real, target, protocol, metrics),
        **_flat({"reference_distance": yardstick}),
        n_samples=len(samples),
        n_reference=len(reference),
        n_test=0 if test is None else len(test),
        reference=reference.split,
        features=extractor.name,
        weights_digest=extractor.weights_digest,
        classifier_test_accuracy=extractor.test_accuracy,
        protocol=protocol.name,
        caption=_caption(len(samples), reference, extractor, protocol),
        caveat=caveat,
    )


def collect(
    images: Images, extractor: Extractor, *, batch_size: int | None = None, progress: Progress = silent
) -> FeatureArrays:
    """Compute the features and logits of all images, in a temporary file if they are many."""
    held: FeatureArrays | None = None
    first = 0
    for features, logits in extractor.extract(images, batch_size=batch_size, progress=progress):
        if held is None:
            held = FeatureArrays(
                _allocate(len(images), features.shape[1]), _allocate(len(images), logits.shape[1])
            )
        held.features[first : first + len(features)] = features
        held.logits[first : first + len(features)] = logits
        first += len(features)
    if held is None:
        raise ValueError("there are no images to measure (an empty set)")
    return held


def statistics(
    images: ImageSet,
    extractor: Extractor,
    *,
    statistics_cache: StatisticsCache | None = None,
    held: Float32 | None = None,
    batch_size: int | None = None,
    progress: Progress = silent,
) -> FeatureStatistics:
    """Return the mean and covariance of a set's features, accumulated in float64 without holding images or
    features.

    Args:
        images: the set.
        extractor: the network.
        statistics_cache: where they are looked up first and kept, under a key of data, split, extractor, its
            weights and its resizing.
        held: the features, if they are known already.
        batch_size: images per pass of the network.
        progress: called while features are computed.
    """
    identity = {
        "data_digest": images.digest,
        "split": images.split,
        "features": extractor.name,
        "weights_digest": extractor.weights_digest,
        "resize": extractor.resize,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    name = f"statistics/{key}"
    known = statistics_cache is not None and statistics_cache.has(name, key)
    if statistics_cache is not None and not extractor.runtime.any_process(
        not known
    ):  # all processes extract, or none
        return statistics_cache.get(name, FeatureStatistics)
    if held is not None:
        moments = moments_of(held)
    else:
        moments = Moments()
        for features, _ in extractor.extract(images, batch_size=batch_size, progress=progress):
            moments.add(features)
    found = FeatureStatistics(
        mean=moments.mean, covariance=moments.covariance, n_images=moments.n, **identity
    )
    if statistics_cache is not None and extractor.runtime.main:
        statistics_cache.put(name, found, key=key, provenance=identity)
    return found


def _numbers(
    held: FeatureArrays,
    real: Float32 | None,
    target: FeatureStatistics,
    protocol: QualityProtocol,
    metrics: Collection[str],
) -> dict[str, Any]:
    """Return the record's fields that are made from features; NaN where they were not asked for."""
    class_counts, mean_confidence = confidence(held.logits)
    splits, found = np.empty(0), {"mean_confidence": mean_confidence}
    kid_std = float("nan")
    if "frechet_distance" in metrics:
        found["frechet_distance"] = frechet(held.features, target)
    if "frechet_infinite" in metrics:
        found["frechet_infinite"] = frechet_infinite(held.features, target)
    if "score" in metrics:
        found["score"], splits = score(held.logits, protocol)
    if "kid" in metrics and real is not None:
        found["kid"], kid_std = kernel_distance(held.features, real, protocol)
    if "precision_recall" in metrics and real is not None:
        found["precision"], found["recall"] = precision_recall(held.features, real, protocol)
    names = ("frechet_distance", "frechet_infinite", "score", "kid", "precision", "recall")
    score_std = float(np.std(splits)) if len(splits) else float("nan")
    spread = {
        "class_counts": class_counts,
        "score_splits": splits,
        "score_std": score_std,
        "kid_std": kid_std,
    }
    return spread | _flat(dict.fromkeys(names, NOT_MEASURED) | found)


def _flat(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        f"{name}{suffix}": number
        for name, estimate in estimates.items()
        for suffix, number in zip(("", "_low", "_high"), estimate, strict=True)
    }


def _caption(n: int, reference: ImageSet, extractor: Extractor, protocol: QualityProtocol) -> str:
    accuracy = (
        ""
        if extractor.is_inception
        else f", {extractor.test_accuracy:.1%} of {extractor.n_test} test images right"
    )
    return (
        f"{protocol.caption()}; {n} samples against the {len(reference)} images of {reference.name}'s {reference.split} split; "
        f"{extractor.name} (weights {extractor.weights_digest}, resize {extractor.resize}{accuracy})"
    )


def _allocate(rows: int, columns: int) -> Float32:
    if rows * columns * 4 <= MEMORY_LIMIT_BYTES:
        return np.empty((rows, columns), np.float32)
    with tempfile.TemporaryFile() as file:  # the mapping keeps the file alive
        return np.memmap(file, np.float32, "w+", shape=(rows, columns))
