"""Features to numbers: Frechet distance, score, kernel distance, precision and recall, each with a 95%
interval.

Conventions: features are float32 ``[n, width]``, logits float32 ``[n, classes]``, arrays or memory-mapped
    files of any length;
Frechet and kernel distances are in squared feature units and kernel units, scores in effective classes. The
numbers come from torch-fidelity's functions, the intervals from the formulas that each function names;
statistics accumulate in float64.

What an interval covers: the number's expectation over sample sets of the same size n, with the reference
    images held fixed
(`frechet_infinite`: its limit for n to infinity). docs/quality.md says what follows for comparisons.

Sources: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017 (FID); Salimans et al., "Improved
    Techniques for
Training GANs", 2016 (Inception score); Binkowski et al., "Demystifying MMD GANs", 2018 (KID); Kynkaanniemi et
al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019; Chong and Forsyth,
"Effectively Unbiased FID and Inception Score", 2020 (infinitely many samples).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from scipy import stats

import ddpm_eval.metrics.features  # noqa: F401 - makes torch-fidelity importable
from ddpm_eval.results.records import Array, FeatureStatistics
from ddpm_eval.spec import Frozen

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

NORMAL_QUANTILE = float(stats.norm.ppf(0.975))
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
    """How samples are measured: the choices that change a number without changing the samples.

    ``paper`` is what the authors' evaluation did, ``torch-fidelity`` that program's defaults.
    """

    name: str
    splits: int = Field(default=10, ge=1, description="of the samples, for the score")
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

    def caption(self) -> str:
        """One phrase that says all of it."""
        order = "shuffled" if self.shuffle else "sequential"
        return (
            f"protocol {self.name}: score over {self.splits} {order} splits, kernel distance over {self.kid_subsets} subsets "
            f"of {self.kid_subset_size} or all images, precision and recall with {self.neighbours} neighbours"
        )


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


def around(value: float, standard_error: float, quantile: float = NORMAL_QUANTILE) -> Estimate:
    """Return the symmetric 95% interval around a value."""
    return Estimate(value, value - quantile * standard_error, value + quantile * standard_error)


class Moments:
    """Mean and covariance of rows that arrive in batches, in float64, shifted by the first row against
    cancellation.
    """

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


def moments_of(rows: Array) -> Moments:
    """Accumulate the moments of all rows ``[n, width]``."""
    moments = Moments()
    for chunk in chunks(rows):
        moments.add(chunk)
    return moments


def frechet(features: Float32, reference: FeatureStatistics) -> Estimate:
    """Frechet distance between Gaussians fitted to samples and reference, |m - m_r|^2 + tr(S + S_r - 2 (S
    S_r)^1/2).

    The interval is first-order (delta method): the standard deviation over samples of the distance's
    influence function, over the square root of n. Where samples and reference are equally distributed, it is
    up to 1.4 times too wide. It is NaN if there are no more samples than features.

    Args:
        features: of the samples, ``[n, width]``.
        reference: statistics of the reference.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    ours = moments_of(features)
    value = fid_statistics_to_metric(
        {"mu": ours.mean, "sigma": ours.covariance},
        {"mu": reference.mean, "sigma": reference.covariance},
        verbose=False,
    )[KEY_METRIC_FID]
    if ours.n <= features.shape[1]:
        return Estimate(value, float("nan"), float("nan"))
    return around(value, _frechet_error(features, ours, reference))


def frechet_gradient(
    mean: Float64, covariance: Float64, reference: FeatureStatistics
) -> tuple[Float64, Float64]:
    """Derivatives of the Frechet distance with respect to the samples' mean ``[width]`` and covariance
    ``[width, width]``.

    The latter is I - R (R S R)^-1/2 R with R the square root of the reference's covariance: identity minus
    the optimal transport map. Directions in which either has no spread contribute nothing to the map.
    """
    root = _power(reference.covariance, 0.5)
    transport = root @ _power(root @ covariance @ root, -0.5) @ root
    return 2 * (mean - reference.mean), np.eye(len(mean)) - transport


def frechet_infinite(features: Float32, reference: FeatureStatistics) -> Estimate:
    """Frechet distance extrapolated to infinitely many samples, linearly in 1/n (Chong and Forsyth 2020).

    Distances of `SIZES` nested subsets, from the larger of n / 10 and `IMAGES_PER_FEATURE` samples per
    feature up to n, are fitted by a line in 1/size; the intercept is averaged over `PERMUTATIONS` fixed
    random orders. The squared standard error is that of the distance at n, to which the intercept is equal to
    first order, plus the spread over orders. NaN if there are fewer than a fifth more samples than the
    smallest subset. The reference remains the images it is.
    """
    n, width = features.shape
    smallest = max(n // 10, IMAGES_PER_FEATURE * width)
    if n < 1.2 * smallest:
        return NOT_MEASURED
    sizes = np.unique(np.linspace(smallest, n, SIZES).astype(int))
    root = _power(reference.covariance, 0.5)
    rng = np.random.default_rng(0)
    intercepts = []
    for _ in range(PERMUTATIONS):
        moments, order, values = Moments(), rng.permutation(n), []
        for first, last in zip([0, *sizes[:-1]], sizes, strict=True):
            for rows in np.array_split(order[first:last], 1 + (last - first) // ROWS):
                moments.add(features[np.sort(rows)])
            values.append(_frechet_distance(moments, reference, root))
        intercepts.append(np.polyfit(1 / sizes, values, 1)[1])
    spread = np.std(intercepts, ddof=1) / np.sqrt(PERMUTATIONS)
    sampling = _frechet_error(features, moments_of(features), reference)
    return around(float(np.mean(intercepts)), float(np.hypot(sampling, spread)))


def score(logits: Float32, protocol: QualityProtocol) -> tuple[Estimate, Float64]:
    """Mean over splits of exp(E[KL(p(y|x) || p(y))]), with its first-order 95% interval.

    The interval covers the expected score at this split size: a score of few images is biased downwards.

    Returns:
        The estimate, and the score of each split ``[splits]``; the published "+-" is their standard
        deviation.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    values, errors = [], []
    for rows in _split(logits, protocol):
        values.append(
            isc_features_to_metric(torch.from_numpy(rows), splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN]
        )
        log_p = log_softmax(rows)
        p = np.exp(log_p)
        divergence = (p * (log_p - np.log(p.mean(axis=0)))).sum(axis=1)
        errors.append(values[-1] * divergence.std(ddof=1) / np.sqrt(len(rows)))
    return around(float(np.mean(values)), float(np.linalg.norm(errors) / len(errors))), np.array(values)


def confidence(logits: Float32) -> tuple[npt.NDArray[np.int64], Estimate]:
    """Images per assigned class ``[classes]``, and the mean probability of the assigned class with its 95%
    interval.
    """
    counts = np.zeros(logits.shape[1], np.int64)
    highest = []
    for rows in chunks(logits):
        counts += np.bincount(rows.argmax(axis=1), minlength=len(counts))
        highest.append(np.exp(log_softmax(rows).max(axis=1)))
    p = np.concatenate(highest)
    return counts, around(float(p.mean()), float(p.std(ddof=1) / np.sqrt(len(p))))


def kernel_distance(
    features: Float32, reference: Float32, protocol: QualityProtocol
) -> tuple[Estimate, float]:
    """Kernel (KID) distance: unbiased squared MMD with the kernel (x.y / width + 1)^3, averaged over random
    subsets.

    The interval is first-order: the standard deviation over samples of the influence function
    2 (E k(x, x') - E k(x, y)), over the square root of n, joined with the error of averaging over random
    subsets.

    Returns:
        The estimate, and the standard deviation over subsets (the published "+-").
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    size = min(protocol.kid_subset_size, len(features), len(reference))
    found = kid_features_to_metric(
        torch.from_numpy(features),
        torch.from_numpy(reference),
        kid_subsets=protocol.kid_subsets,
        kid_subset_size=size,
        verbose=False,
    )
    ours, theirs = (rows[_spread(len(rows), ANCHORS)].astype(np.float64) for rows in (features, reference))
    influence = np.concatenate(
        [
            2 * (_kernel(rows, ours).mean(axis=1) - _kernel(rows, theirs).mean(axis=1))
            for rows in chunks(features)
        ]
    )
    sampling, subsets = (
        influence.std(ddof=1) / np.sqrt(len(features)),
        found[KEY_METRIC_KID_STD] / np.sqrt(protocol.kid_subsets),
    )
    return around(found[KEY_METRIC_KID_MEAN], float(np.hypot(sampling, subsets))), found[KEY_METRIC_KID_STD]


def precision_recall(
    features: Float32, reference: Float32, protocol: QualityProtocol
) -> tuple[Estimate, Estimate]:
    """Share of samples within the reference's manifold (precision), and of reference images within the
    samples' (recall).

    A manifold is the union of balls around its images that reach to their k-th neighbour. The interval of
    precision is Wilson's for a proportion of n; that of recall is a jackknife over `GROUPS` groups of
    samples, t-distributed.
    """
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    ours, theirs = torch.from_numpy(features), torch.from_numpy(reference)
    found = prc_features_to_metric(
        ours,
        theirs,
        prc_neighborhood=protocol.neighbours,
        prc_batch_size=PAIR_ROWS,
        save_cpu_ram=True,
        verbose=False,
    )
    proportion = stats.binomtest(round(found[KEY_METRIC_PRECISION] * len(ours)), len(ours)).proportion_ci(
        method="wilson"
    )
    precision = Estimate(found[KEY_METRIC_PRECISION], float(proportion.low), float(proportion.high))
    error = _jackknife_error(_recalls_without_groups(ours, theirs, protocol.neighbours))
    recall = around(found[KEY_METRIC_RECALL], error, float(stats.t.ppf(0.975, GROUPS - 1)))
    return precision, Estimate(recall.value, max(0.0, recall.low), min(1.0, recall.high))


def log_softmax(logits: Float32) -> Float64:
    """Logarithms of the class probabilities, float64 ``[n, classes]``."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def chunks(rows: Array) -> Iterable[Array]:
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
    centred = (rows - ours.mean for rows in chunks(features))
    influence = np.concatenate(
        [rows @ gradient + ((rows @ curvature) * rows).sum(axis=1) for rows in centred]
    )
    return float(influence.std(ddof=1) / np.sqrt(ours.n))


def _frechet_distance(ours: Moments, reference: FeatureStatistics, root: Float64) -> float:
    """The same number as torch-fidelity's, from a symmetric eigenvalue problem, which takes a tenth of the
    time.
    """
    covariance = ours.covariance
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance @ root), 0)).sum()
    shift = ours.mean - reference.mean
    return float(shift @ shift + np.trace(covariance) + np.trace(reference.covariance) - 2 * cross)


def _power(matrix: Float64, exponent: float) -> Float64:
    """Power of a positive semidefinite matrix; directions without spread stay without."""
    values, vectors = np.linalg.eigh(matrix)
    spread = values > 1e-10 * max(values[-1], np.finfo(np.float64).tiny)
    return (vectors[:, spread] * values[spread] ** exponent) @ vectors[:, spread].T


def _kernel(a: Array, b: Float64) -> Float64:
    return (a.astype(np.float64) @ b.T / a.shape[1] + 1) ** 3


def _spread(n: int, most: int) -> npt.NDArray[np.int64]:
    """Positions of at most ``most`` of n images, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _recalls_without_groups(ours: torch.Tensor, theirs: torch.Tensor, neighbours: int) -> Float64:
    """Recall with every tenth sample, from the first, the second, ... left out, ``[GROUPS]``."""
    from torch_fidelity.metric_prc import calc_cdist_part

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


def _jackknife_error(values: Float64) -> float:
    return float(np.sqrt((len(values) - 1) * np.mean((values - values.mean()) ** 2)))
