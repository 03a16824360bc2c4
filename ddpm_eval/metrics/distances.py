"""Features to numbers: Frechet distance, score, kernel distance, precision and recall with 95% intervals.

Conventions: features are float32 ``[n, width]``, logits float32 ``[n, classes]``, arrays or memory-mapped
files of any length; Frechet and kernel distances are in squared feature units and kernel units, scores in
effective classes. The numbers come from torch-fidelity's functions, the intervals from the formulas that each
function names; statistics accumulate in float64.

What an interval covers: the number's expectation over sample sets of the same size n, with the reference
images held fixed (`frechet_infinite`: its limit for n to infinity). docs/quality.md says what follows for
comparisons.

Sources: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017 (FID); Salimans et al., "Improved
Techniques for Training GANs", 2016 (Inception score); Binkowski et al., "Demystifying MMD GANs", 2018 (KID);
Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019; Chong and
Forsyth, "Effectively Unbiased FID and Inception Score", 2020 (infinitely many samples).
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from scipy import stats

from ddpm_eval.metrics.features import Float32
from ddpm_eval.metrics.fidelity import (
    KEY_METRIC_FID,
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_KID_MEAN,
    KEY_METRIC_KID_STD,
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    calc_cdist_part,
    fid_statistics_to_metric,
    isc_features_to_metric,
    kid_features_to_metric,
    prc_features_to_metric,
)
from ddpm_eval.results.fields import Array, Estimate
from ddpm_eval.results.records import SQUARED_FEATURES, FeatureStatistics
from ddpm_eval.spec import Frozen

Float64 = npt.NDArray[np.float64]

METRICS = ("frechet_distance", "frechet_infinite", "score", "kid", "precision_recall")
NORMAL_QUANTILE = float(stats.norm.ppf(0.975))
KERNEL_UNITS = "kernel units"
ROWS = 4096
"""Rows of features that are worked on at a time."""
PAIR_ROWS = 1024
"""Rows whose distances to all others are held at a time."""
IMAGES_PER_FEATURE = 5
"""The extrapolation to infinitely many samples starts from this many samples per feature."""
SIZES = 15
"""Sample sizes of the extrapolation."""
PERMUTATIONS = 8
"""Random orders of the samples over which the extrapolation is averaged."""
ANCHORS = 2000
"""Images at most to whose mean kernel an influence function is computed."""
GROUPS = 10
"""Groups of the jackknife."""


class QualityProtocol(Frozen):
    """How samples are measured: the choices that change the numbers without changing the samples.

    ``paper`` is what the authors' evaluation did, ``torch-fidelity`` that program's defaults.
    """

    name: str
    splits: int = Field(default=10, ge=1, description="parts of the samples over which the score is averaged")
    shuffle: bool = Field(
        description="samples shuffled before they are split (numpy's RandomState(2020), as torch-fidelity)"
    )
    kid_subsets: int = Field(
        default=100, ge=1, description="random subsets whose kernel distances are averaged"
    )
    kid_subset_size: int = Field(
        default=1000, ge=2, description="images per subset, or all if there are fewer"
    )
    neighbours: int = Field(default=3, ge=1, description="k of precision and recall")
    metrics: tuple[str, ...] = Field(default=METRICS, description="the metrics that are measured")
    allow_singular: bool = Field(
        default=False,
        description="a Frechet distance of no more images than features is measured all the same, with a "
        "caveat and without an interval",
    )

    def caption(self, kernel: str = "", scored: bool = True) -> str:
        """Say how the numbers are made, in one phrase.

        Args:
            kernel: which kernel it is, if it is not the polynomial one.
            scored: whether there are classes and so a score.
        """
        order = "shuffled" if self.shuffle else "sequential"
        score = f"score over {self.splits} {order} splits" if scored else "no score (there are no classes)"
        return (
            f"protocol {self.name}: {score}, kernel distance{kernel} over {self.kid_subsets} subsets of "
            f"{self.kid_subset_size} or all images, precision and recall with {self.neighbours} neighbours"
        )


PROTOCOLS = {
    "paper": QualityProtocol(name="paper", shuffle=False),
    "torch-fidelity": QualityProtocol(name="torch-fidelity", shuffle=True),
}


def not_measured(unit: str) -> Estimate:
    """Return the estimate that stands for a number which was not measured."""
    return Estimate(math.nan, math.nan, math.nan, unit)


def symmetric_estimate(
    value: float, standard_error: float, unit: str, quantile: float = NORMAL_QUANTILE
) -> Estimate:
    """Return a value with its symmetric 95% interval, ``quantile`` standard errors to either side."""
    return Estimate(value, value - quantile * standard_error, value + quantile * standard_error, unit)


class Moments:
    """Mean and covariance of rows that arrive in batches, in float64.

    The first row is subtracted from all rows, against cancellation.
    """

    def __init__(self) -> None:
        self.n = 0

    def add(self, rows: Array) -> None:
        """Add rows ``[batch, width]``."""
        rows = rows.astype(np.float64)
        if self.n == 0:
            width = rows.shape[1]
            self._shift = rows[0].copy()
            self._sum = np.zeros(width)
            self._products = np.zeros((width, width))
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


def moments_of(rows: Array) -> Moments:
    """Accumulate the moments of all rows ``[n, width]``."""
    moments = Moments()
    for block in row_blocks(rows):
        moments.add(block)
    return moments


def frechet(features: Float32, reference: FeatureStatistics) -> Estimate:
    """Return the Frechet distance between Gaussians that are fitted to the samples and to the reference.

    The distance is |m - m_r|^2 + tr(S + S_r - 2 (S S_r)^1/2). The interval is first-order (delta method): the
    standard deviation over samples of the distance's influence function, over the square root of n. Where
    samples and reference are equally distributed, it is up to 1.4 times too wide. It is NaN if there are no
    more samples than features.

    Args:
        features: features of the samples, ``[n, width]``.
        reference: statistics of the reference.
    """
    ours = moments_of(features)
    value = fid_statistics_to_metric(
        {"mu": ours.mean, "sigma": ours.covariance},
        {"mu": reference.mean, "sigma": reference.covariance},
        verbose=False,
    )[KEY_METRIC_FID]
    if ours.n <= features.shape[1]:
        return Estimate(value, math.nan, math.nan, SQUARED_FEATURES)
    return symmetric_estimate(value, _frechet_error(features, ours, reference), SQUARED_FEATURES)


def frechet_gradient(
    mean: Float64, covariance: Float64, reference: FeatureStatistics
) -> tuple[Float64, Float64]:
    """Return the Frechet distance's derivatives by the samples' mean and covariance.

    The derivative by the covariance is I - R (R S R)^-1/2 R with R the square root of the reference's
    covariance: identity minus the optimal transport map. Directions in which either has no spread contribute
    nothing to the map.

    Args:
        mean: mean of the samples' features, ``[width]``.
        covariance: their covariance, ``[width, width]``.
        reference: statistics of the reference.
    """
    root = _power(reference.covariance, 0.5)
    transport = root @ _power(root @ covariance @ root, -0.5) @ root
    return 2 * (mean - reference.mean), np.eye(len(mean)) - transport


def frechet_infinite(features: Float32, reference: FeatureStatistics) -> Estimate:
    """Extrapolate the Frechet distance to infinitely many samples, linearly in 1/n (Chong and Forsyth 2020).

    Distances of `SIZES` nested subsets, from the larger of n / 10 and `IMAGES_PER_FEATURE` samples per
    feature up to n, are fitted by a line in 1/size; the intercept is averaged over `PERMUTATIONS` fixed
    random orders. The squared standard error is that of the distance at n, to which the intercept is equal to
    first order, plus the spread over orders. The estimate is NaN if there are fewer than a fifth more samples
    than the smallest subset. The reference remains the images that it is.
    """
    n, width = features.shape
    smallest = max(n // 10, IMAGES_PER_FEATURE * width)
    if n < 1.2 * smallest:
        return not_measured(SQUARED_FEATURES)
    sizes = np.unique(np.linspace(smallest, n, SIZES).astype(int))
    root = _power(reference.covariance, 0.5)
    rng = np.random.default_rng(0)
    intercepts = []
    for _ in range(PERMUTATIONS):
        values = _nested_distances(features, rng.permutation(n), sizes, reference, root)
        intercepts.append(np.polyfit(1 / sizes, values, 1)[1])
    spread = np.std(intercepts, ddof=1) / np.sqrt(PERMUTATIONS)
    sampling = _frechet_error(features, moments_of(features), reference)
    return symmetric_estimate(float(np.mean(intercepts)), float(np.hypot(sampling, spread)), SQUARED_FEATURES)


def score(logits: Float32, protocol: QualityProtocol) -> tuple[Estimate, Float64]:
    """Return the mean over splits of exp(E[KL(p(y|x) || p(y))]), with its first-order 95% interval.

    The interval covers the expected score at this split size: a score of few images is biased downwards.

    Returns:
        The estimate, and the score of each split ``[splits]``; the published "+-" is their standard
        deviation.
    """
    values = []
    errors = []
    for rows in _split(logits, protocol):
        values.append(
            isc_features_to_metric(torch.from_numpy(rows), splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN]
        )
        log_p = log_softmax(rows)
        p = np.exp(log_p)
        divergence = (p * (log_p - np.log(p.mean(axis=0)))).sum(axis=1)
        errors.append(values[-1] * divergence.std(ddof=1) / np.sqrt(len(rows)))
    error = float(np.linalg.norm(errors) / len(errors))
    return symmetric_estimate(float(np.mean(values)), error, "1"), np.array(values)


def confidence(logits: Float32) -> tuple[npt.NDArray[np.int64], Estimate]:
    """Return the number of images per assigned class, and the mean probability of the assigned class.

    The interval is that of a mean over images. Without classes nothing is measured.

    Returns:
        The numbers of images, ``[classes]``, and the estimate.
    """
    if logits.shape[1] == 0:
        return np.zeros(0, np.int64), not_measured("1")
    counts = np.zeros(logits.shape[1], np.int64)
    highest = []
    for rows in row_blocks(logits):
        counts += np.bincount(rows.argmax(axis=1), minlength=len(counts))
        highest.append(np.exp(log_softmax(rows).max(axis=1)))
    p = np.concatenate(highest)
    return counts, symmetric_estimate(float(p.mean()), float(p.std(ddof=1) / np.sqrt(len(p))), "1")


def kernel_distance(
    features: Float32, reference: Float32, protocol: QualityProtocol, kernel_width: float | None = None
) -> tuple[Estimate, float]:
    """Return the kernel (KID) distance: the unbiased squared MMD, averaged over random subsets.

    The kernel is (x.y / width + 1)^3, or exp(-|x - y|^2 / (2 kernel_width^2)) if ``kernel_width`` is given,
    which is torch-fidelity's ``rbf``. The interval is first-order: the standard deviation over samples of the
    influence function 2 (E k(x, x') - E k(x, y)), over the square root of n, joined with the error of
    averaging over random subsets.

    Returns:
        The estimate, and the standard deviation over subsets (the published "+-").
    """
    found = kid_features_to_metric(
        torch.from_numpy(features),
        torch.from_numpy(reference),
        kid_subsets=protocol.kid_subsets,
        kid_subset_size=min(protocol.kid_subset_size, len(features), len(reference)),
        kid_kernel="poly" if kernel_width is None else "rbf",
        kid_kernel_rbf_sigma=kernel_width,
        verbose=False,
    )
    ours, theirs = (rows[_spread(len(rows), ANCHORS)].astype(np.float64) for rows in (features, reference))
    influence = np.concatenate(
        [
            2 * (_mean_kernel(rows, ours, kernel_width) - _mean_kernel(rows, theirs, kernel_width))
            for rows in row_blocks(features)
        ]
    )
    sampling = influence.std(ddof=1) / np.sqrt(len(features))
    subsets = found[KEY_METRIC_KID_STD] / np.sqrt(protocol.kid_subsets)
    estimate = symmetric_estimate(
        found[KEY_METRIC_KID_MEAN], float(np.hypot(sampling, subsets)), KERNEL_UNITS
    )
    return estimate, found[KEY_METRIC_KID_STD]


def precision_recall(
    features: Float32, reference: Float32, protocol: QualityProtocol
) -> tuple[Estimate, Estimate]:
    """Return precision and recall.

    Precision is the share of samples within the reference's manifold, recall the share of reference images
    within the samples' manifold. A manifold is the union of balls around its images that reach to their k-th
    neighbour. The interval of precision is Wilson's for a proportion of n; that of recall is a jackknife over
    `GROUPS` groups of samples, t-distributed.
    """
    ours = torch.from_numpy(features)
    theirs = torch.from_numpy(reference)
    found = prc_features_to_metric(
        ours,
        theirs,
        prc_neighborhood=protocol.neighbours,
        prc_batch_size=PAIR_ROWS,
        save_cpu_ram=True,
        verbose=False,
    )
    precision = found[KEY_METRIC_PRECISION]
    successes = round(precision * len(ours))
    proportion = stats.binomtest(successes, len(ours)).proportion_ci(method="wilson")
    error = jackknife_error(_recalls_without_groups(ours, theirs, protocol.neighbours))
    quantile = float(stats.t.ppf(0.975, GROUPS - 1))
    recall = symmetric_estimate(found[KEY_METRIC_RECALL], error, "1", quantile)
    return (
        Estimate(precision, float(proportion.low), float(proportion.high), "1"),
        within_unit_interval(recall),
    )


def within_unit_interval(share: Estimate) -> Estimate:
    """Return the estimate of a share with its interval cut to [0, 1]."""
    return share._replace(low=max(0.0, share.low), high=min(1.0, share.high))


def jackknife_error(values: Float64) -> float:
    """Return the jackknife's standard error of a number from its values with each group left out."""
    return float(np.sqrt((len(values) - 1) * np.mean((values - values.mean()) ** 2)))


def log_softmax(logits: Float32) -> Float64:
    """Return the logarithms of the class probabilities, float64 ``[n, classes]``."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def row_blocks(rows: Array) -> Iterable[Array]:
    """Yield at most `ROWS` rows at a time."""
    return (rows[first : first + ROWS] for first in range(0, len(rows), ROWS))


def _split(logits: Float32, protocol: QualityProtocol) -> Iterator[Float32]:
    """Yield the protocol's splits; they differ by one image if n is no multiple of their number."""
    n = len(logits)
    order = np.random.RandomState(2020).permutation(n) if protocol.shuffle else np.arange(n)
    for k in range(protocol.splits):
        yield np.ascontiguousarray(logits[order[k * n // protocol.splits : (k + 1) * n // protocol.splits]])


def _frechet_error(features: Float32, ours: Moments, reference: FeatureStatistics) -> float:
    gradient, curvature = frechet_gradient(ours.mean, ours.covariance, reference)
    centred = (rows - ours.mean for rows in row_blocks(features))
    influence = np.concatenate(
        [rows @ gradient + ((rows @ curvature) * rows).sum(axis=1) for rows in centred]
    )
    return float(influence.std(ddof=1) / np.sqrt(ours.n))


def _nested_distances(
    features: Float32, order: npt.NDArray[np.int64], sizes: Array, reference: FeatureStatistics, root: Float64
) -> list[float]:
    """Return the distances of the first ``sizes`` samples of an order."""
    moments = Moments()
    values = []
    for first, last in zip([0, *sizes[:-1]], sizes, strict=True):
        for rows in np.array_split(order[first:last], 1 + (last - first) // ROWS):
            moments.add(features[np.sort(rows)])
        values.append(_frechet_distance(moments, reference, root))
    return values


def _frechet_distance(ours: Moments, reference: FeatureStatistics, root: Float64) -> float:
    """Return torch-fidelity's number from a symmetric eigenvalue problem, in a tenth of the time."""
    covariance = ours.covariance
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance @ root), 0)).sum()
    shift = ours.mean - reference.mean
    return float(shift @ shift + np.trace(covariance) + np.trace(reference.covariance) - 2 * cross)


def _power(matrix: Float64, exponent: float) -> Float64:
    """Return a power of a positive semidefinite matrix; directions without spread stay without."""
    values, vectors = np.linalg.eigh(matrix)
    spread = values > 1e-10 * max(values[-1], np.finfo(np.float64).tiny)
    return (vectors[:, spread] * values[spread] ** exponent) @ vectors[:, spread].T


def _mean_kernel(a: Array, b: Float64, width: float | None) -> Float64:
    """Return the mean kernel of each row of a with the rows of b."""
    products = a.astype(np.float64) @ b.T
    if width is None:
        return ((products / a.shape[1] + 1) ** 3).mean(axis=1)
    squares = (a.astype(np.float64) ** 2).sum(axis=1)[:, None] + (b**2).sum(axis=1)
    return np.exp((2 * products - squares) / (2 * width**2)).mean(axis=1)


def _spread(n: int, most: int) -> npt.NDArray[np.int64]:
    """Return the positions of at most ``most`` of n images, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _recalls_without_groups(ours: torch.Tensor, theirs: torch.Tensor, neighbours: int) -> Float64:
    """Return the recall with every tenth sample, from the first, the second, ... left out, ``[GROUPS]``."""
    group = torch.arange(len(ours)) % GROUPS
    radii = torch.empty(GROUPS, len(ours), dtype=ours.dtype)
    for index in torch.arange(len(ours)).split(PAIR_ROWS):
        distances = calc_cdist_part(ours[index], ours, PAIR_ROWS)
        for g in range(GROUPS):
            radii[g, index] = distances[:, group != g].kthvalue(neighbours + 1).values
    radii[group, torch.arange(len(ours))] = -1  # a sample that is left out has no ball
    inside = torch.zeros(GROUPS, dtype=torch.int64)
    for rows in theirs.split(PAIR_ROWS):
        distances = calc_cdist_part(rows, ours, PAIR_ROWS)
        inside += torch.stack([(distances <= radius).any(dim=1).sum() for radius in radii])
    return (inside.double() / len(theirs)).numpy()
