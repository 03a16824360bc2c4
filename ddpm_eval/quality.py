"""Features to numbers: Frechet distance, score, kernel distance, precision and recall, each with a 95% interval.

Conventions: images are uint8 ``[n, channels, side, side]``, features ``[n, width]``, logits ``[n, classes]``; distances are
in squared feature units, scores in effective classes. The numbers come from torch-fidelity's functions. Statistics
accumulate in float64; features of many images lie in a temporary memory-mapped file, never in memory all at once.

What an interval covers: the number's expectation over sample sets of the same size n, with the reference images held fixed.
A Frechet distance at n images is biased upwards by about a constant over n, so only distances at equal n are comparable;
see docs/quality.md.

Sources: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017 (FID); Salimans et al., "Improved Techniques for
Training GANs", 2016 (Inception score).
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from scipy import stats

from ddpm_eval.data import ImageSet
from ddpm_eval.features import Extractor, Images
from ddpm_eval.records import Array, FeatureStatistics, Quality
from ddpm_eval.runtime import Progress, silent
from ddpm_eval.spec import Frozen

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

NORMAL_QUANTILE = float(stats.norm.ppf(0.975))
MEMORY_LIMIT_BYTES = 64 * 2**20
"""Feature arrays beyond this size lie in a temporary file."""
ROWS = 4096
"""Rows of features that are worked on at a time."""


class QualityProtocol(Frozen):
    """How samples are measured: the choices that change a number without changing the samples.

    ``paper`` is what the authors' evaluation did, ``torch-fidelity`` that program's defaults.
    """

    name: str
    splits: int = Field(default=10, ge=1, description="of the samples, for the score")
    shuffle: bool = Field(description="samples shuffled (seed 2020) before they are split")
    logits_layer: str = Field(default="logits_unbiased", description="of Inception; a classifier has only one")

    def caption(self) -> str:
        """One phrase that says all of it."""
        order = "shuffled" if self.shuffle else "sequential"
        return f"protocol {self.name}: score over {self.splits} {order} splits"


PROTOCOLS = {
    "paper": QualityProtocol(name="paper", shuffle=False),
    "torch-fidelity": QualityProtocol(name="torch-fidelity", shuffle=True),
}


class Estimate(NamedTuple):
    """A number and its 95% interval."""

    value: float
    low: float
    high: float


NOT_MEASURED = Estimate(float("nan"), float("nan"), float("nan"))


def around(value: float, standard_error: float) -> Estimate:
    """Return the normal 95% interval around a value."""
    return Estimate(value, value - NORMAL_QUANTILE * standard_error, value + NORMAL_QUANTILE * standard_error)


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """An array of images, uint8 ``[n, channels, side, side]``, to be measured."""

    array: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.array)

    def take(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the images at positions ``index``."""
        return np.asarray(self.array[index])


@dataclass(frozen=True, eq=False)
class FeatureArrays:
    """Features and logits of a set of images, in memory or in a temporary file that vanishes with them."""

    features: Float32
    logits: Float32


class Moments:
    """Mean and covariance of rows that arrive in batches, in float64, shifted by the first row against cancellation."""

    def __init__(self) -> None:
        self.n = 0

    def add(self, rows: Array) -> None:
        """Take in rows ``[batch, width]``."""
        rows = rows.astype(np.float64)
        if self.n == 0:
            width = rows.shape[1]
            self._shift, self._sum, self._products = rows[0].copy(), np.zeros(width), np.zeros((width, width))
        rows -= self._shift
        self.n += len(rows)
        self._sum += rows.sum(axis=0)
        self._products += rows.T @ rows

    @property
    def mean(self) -> Float64:
        """Mean of all rows, ``[width]``."""
        return self._shift + self._sum / self.n

    @property
    def covariance(self) -> Float64:
        """Unbiased covariance of all rows, ``[width, width]``."""
        return (self._products - np.outer(self._sum, self._sum) / self.n) / (self.n - 1)


def as_images(images: Images | Array) -> Images:
    """Check a set of images and return it with `len` and `take`.

    Raises:
        ValueError: if there are none, or an array is not uint8 ``[n, 1 or 3, side, side]``.
    """
    if len(images) == 0:
        raise ValueError("there are no images to measure (an empty set)")
    if not isinstance(images, np.ndarray):
        return images
    if images.dtype != np.uint8:
        raise ValueError(f"images must be 8-bit levels (uint8), but are {images.dtype} (round them with data.to_pixels)")
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must have shape [n, 1 or 3, height, width], but have {list(images.shape)}")
    return ArrayImages(images)


def measure(
    images: Images | Array,
    reference: ImageSet,
    extractor: Extractor,
    *,
    test: ImageSet | None = None,
    protocol: QualityProtocol = PROTOCOLS["paper"],
    allow_singular: bool = False,
    batch_size: int = 256,
    progress: Progress = silent,
) -> Quality:
    """Measure samples against reference images, all numbers with 95% intervals.

    Args:
        images: samples, uint8 ``[n, channels, side, side]`` or anything with `len` and `take`.
        reference: the images that the distance is taken to; the paper's are the training split.
        extractor: the network whose features are compared.
        test: held-out images whose own distance to the reference is reported as the yardstick.
        protocol: how the numbers are made.
        allow_singular: measure a distance with fewer images than features all the same, with a caveat and no interval.
        batch_size: images per pass of the network; changes numbers by rounding only.
        progress: called while features are computed.

    Raises:
        ValueError: if there are too few images, or they do not suit the extractor.
    """
    samples = as_images(images)
    caveat = _too_few(len(samples), extractor, protocol, allow_singular)
    held = collect(samples, extractor, batch_size=batch_size, progress=progress)
    target = statistics(reference, extractor, batch_size=batch_size, progress=progress)
    yardstick = NOT_MEASURED
    if test is not None and (len(test) > extractor.width or allow_singular):
        yardstick = frechet(collect(test, extractor, batch_size=batch_size, progress=progress).features, target)
    mean_score, splits = score(held.logits, protocol)
    class_counts, mean_confidence = confidence(held.logits)
    numbers: dict[str, Any] = {
        **_named("frechet_distance", frechet(held.features, target)),
        **_named("frechet_infinite", NOT_MEASURED),
        **_named("score", mean_score),
        **_named("kid", NOT_MEASURED),
        **_named("precision", NOT_MEASURED),
        **_named("recall", NOT_MEASURED),
        **_named("mean_confidence", mean_confidence),
        **_named("reference_distance", yardstick),
    }
    facts: dict[str, Any] = {
        "n_samples": len(samples),
        "n_reference": len(reference),
        "n_test": 0 if test is None else len(test),
        "reference": reference.split,
        "features": extractor.name,
        "weights_digest": extractor.weights_digest,
        "classifier_test_accuracy": extractor.test_accuracy,
        "protocol": protocol.name,
        "caption": _caption(len(samples), reference, extractor, protocol),
        "caveat": caveat,
    }
    return Quality(
        class_counts=class_counts,
        score_splits=splits,
        score_std=float(np.std(splits)),
        kid_std=float("nan"),
        **numbers,
        **facts,
    )


def collect(images: Images, extractor: Extractor, *, batch_size: int = 256, progress: Progress = silent) -> FeatureArrays:
    """Compute the features and logits of all images, in a temporary file if they are many."""
    held: FeatureArrays | None = None
    first = 0
    for features, logits in extractor.extract(images, batch_size=batch_size, progress=progress):
        if held is None:
            held = FeatureArrays(_allocate(len(images), features.shape[1]), _allocate(len(images), logits.shape[1]))
        held.features[first : first + len(features)] = features
        held.logits[first : first + len(features)] = logits
        first += len(features)
    if held is None:
        raise ValueError("there are no images to measure (an empty set)")
    return held


def statistics(
    images: ImageSet, extractor: Extractor, *, batch_size: int = 256, progress: Progress = silent
) -> FeatureStatistics:
    """Accumulate the mean and covariance of a set's features; neither images nor features are held."""
    moments = Moments()
    for features, _ in extractor.extract(images, batch_size=batch_size, progress=progress):
        moments.add(features)
    return FeatureStatistics(
        mean=moments.mean,
        covariance=moments.covariance,
        n_images=moments.n,
        data_digest=images.digest,
        split=images.split,
        features=extractor.name,
        weights_digest=extractor.weights_digest,
        resize="none",
    )


def frechet(features: Float32, reference: FeatureStatistics) -> Estimate:
    """Frechet distance between Gaussians fitted to samples and reference, |m - m_r|^2 + tr(S + S_r - 2 (S S_r)^1/2).

    The interval is first-order (delta method): the standard deviation over samples of the distance's influence function,
    over the square root of n. It covers the expected distance at this n; where samples and reference are equally
    distributed, it is up to 1.4 times too wide. It is NaN if there are no more samples than features.

    Args:
        features: of the samples, ``[n, width]``.
        reference: statistics of the reference.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    moments = Moments()
    for rows in _chunks(features):
        moments.add(rows)
    ours, theirs = (
        {"mu": m, "sigma": s} for m, s in ((moments.mean, moments.covariance), (reference.mean, reference.covariance))
    )
    value = float(fid_statistics_to_metric(ours, theirs, verbose=False)[KEY_METRIC_FID])
    if moments.n <= features.shape[1]:
        return Estimate(value, float("nan"), float("nan"))
    gradient, curvature = frechet_gradient(moments.mean, moments.covariance, reference.mean, reference.covariance)
    influence = np.concatenate(
        [(c @ gradient) + ((c @ curvature) * c).sum(axis=1) for c in (rows - moments.mean for rows in _chunks(features))]
    )
    return around(value, float(influence.std(ddof=1) / np.sqrt(moments.n)))


def frechet_gradient(
    mean: Float64, covariance: Float64, reference_mean: Float64, reference_covariance: Float64
) -> tuple[Float64, Float64]:
    """Derivatives of the Frechet distance with respect to the first mean ``[width]`` and covariance ``[width, width]``.

    The latter is I - R (R S R)^-1/2 R with R the square root of the reference's covariance: identity minus the optimal
    transport map. Directions in which either has no spread contribute nothing to the map.
    """
    root = _power(reference_covariance, 0.5)
    transport = root @ _power(root @ covariance @ root, -0.5) @ root
    return 2 * (mean - reference_mean), np.eye(len(mean)) - transport


def score(logits: Float32, protocol: QualityProtocol) -> tuple[Estimate, Float64]:
    """Mean over splits of exp(E[KL(p(y|x) || p(y))]), with its first-order 95% interval.

    The interval covers the expected score at this split size: a score of few images is biased downwards.

    Returns:
        The estimate, and the score of each split ``[splits]``.
    """
    values, errors = [], []
    for rows in _split(logits, protocol):
        log_p = log_softmax(rows)
        p = np.exp(log_p)
        divergence = (p * (log_p - np.log(p.mean(axis=0)))).sum(axis=1)
        values.append(_score_of(rows))
        errors.append(values[-1] * divergence.std(ddof=1) / np.sqrt(len(rows)))
    return around(float(np.mean(values)), float(np.linalg.norm(errors) / len(errors))), np.array(values)


def confidence(logits: Float32) -> tuple[npt.NDArray[np.int64], Estimate]:
    """Images per assigned class, and the mean probability of the assigned class with its 95% interval."""
    counts = np.zeros(logits.shape[1], np.int64)
    highest = []
    for rows in _chunks(logits):
        counts += np.bincount(rows.argmax(axis=1), minlength=len(counts))
        highest.append(np.exp(log_softmax(rows).max(axis=1)))
    p = np.concatenate(highest)
    return counts, around(float(p.mean()), float(p.std(ddof=1) / np.sqrt(len(p))))


def log_softmax(logits: Float32) -> Float64:
    """Logarithms of the class probabilities, float64 ``[n, classes]``."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _score_of(rows: Float32) -> float:
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    return float(isc_features_to_metric(torch.from_numpy(rows), splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN])


def _split(logits: Float32, protocol: QualityProtocol) -> Iterator[Float32]:
    """Yield the protocol's splits; the last ones are the larger if n is no multiple of their number."""
    n = len(logits)
    order = np.random.RandomState(2020).permutation(n) if protocol.shuffle else np.arange(n)
    for k in range(protocol.splits):
        yield np.ascontiguousarray(logits[order[k * n // protocol.splits : (k + 1) * n // protocol.splits]])


def _too_few(n: int, extractor: Extractor, protocol: QualityProtocol, allow_singular: bool) -> str:
    """Return the caveat of a distance from too few images; raise ValueError unless it is allowed."""
    if n < 2 * protocol.splits:
        raise ValueError(f"{n} images are too few for a score over {protocol.splits} splits (at least {2 * protocol.splits})")
    if n > extractor.width:
        return ""
    finding = f"{n} images are too few for a Frechet distance of {extractor.width} features: their covariance is singular"
    if not allow_singular:
        raise ValueError(f"{finding} (at least {extractor.width + 1} are needed, 10 times as many are better)")
    return f"{finding} and the distance far too large"


def _caption(n: int, reference: ImageSet, extractor: Extractor, protocol: QualityProtocol) -> str:
    accuracy = "" if extractor.is_inception else f", {extractor.test_accuracy:.1%} of {extractor.n_test} test images right"
    return (
        f"{protocol.caption()}; {n} samples against {len(reference)} images of {reference.name}'s {reference.split} split; "
        f"{extractor.name} (weights {extractor.weights_digest}{accuracy})"
    )


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _allocate(rows: int, columns: int) -> Float32:
    if rows * columns * 4 <= MEMORY_LIMIT_BYTES:
        return np.empty((rows, columns), np.float32)
    with tempfile.TemporaryFile() as file:  # the mapping keeps the file alive
        return np.memmap(file, np.float32, "w+", shape=(rows, columns))


def _chunks(rows: Float32) -> Iterable[Float32]:
    return (rows[first : first + ROWS] for first in range(0, len(rows), ROWS))


def _power(matrix: Float64, exponent: float) -> Float64:
    """Power of a positive semidefinite matrix; directions without spread stay without."""
    values, vectors = np.linalg.eigh(matrix)
    spread = values > 1e-10 * max(values[-1], np.finfo(np.float64).tiny)
    return (vectors[:, spread] * values[spread] ** exponent) @ vectors[:, spread].T
