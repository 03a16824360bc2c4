"""Means over independent images with 95% intervals, from arrays alone.

The interval is the bootstrap's BCa interval in its analytic form: a mean's bootstrap distribution has known
cumulants, so nothing is resampled, there is no seed, and every column of a large array has its interval in
one pass. docs/protocol.md says why this form was chosen and what it covers.

Source: DiCiccio and Efron, "Bootstrap confidence intervals", Statistical Science 11 (1996), sections 3 and 4.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri, stdtrit

from ddpm_eval.results.fields import Array, Estimate

LEVEL = 0.95
METHOD = "95%, BCa bootstrap over images in its analytic form with Student's t quantiles"


@dataclass(frozen=True)
class MeanDistribution:
    """How means over independent images are distributed: their first cumulants, in arrays of one shape.

    Attributes:
        value: the mean.
        standard_error: of the mean, from the unbiased sample variance; NaN for fewer than two images.
        skewness: of the mean's distribution, that is the sample's over sqrt(n).
        degrees_of_freedom: of the variance.
        n: the number of images.
    """

    value: Array
    standard_error: Array
    skewness: Array
    degrees_of_freedom: Array
    n: Array

    def interval(self) -> tuple[Array, Array]:
        """Return the lower and upper bound of the central 95% interval.

        It is the BCa bootstrap interval of a mean with everything in closed form: the bias correction and the
        acceleration both equal a sixth of the skewness, and the bootstrap distribution's quantile is its
        Cornish-Fisher expansion. Student's t replaces the normal quantile, which makes it the t interval for
        symmetric data. A monotone function of the mean has the interval between the function's values at the
        bounds.
        """
        tail = (1 - LEVEL) / 2
        return self._bound(tail), self._bound(1 - tail)

    def with_interval(self) -> tuple[Array, Array, Array]:
        """Return the mean, and the lower and upper bound of its interval."""
        return self.value, *self.interval()

    def estimate(self, unit: str) -> Estimate:
        """Return a single mean with its interval.

        Raises:
            TypeError: if there are several means.
        """
        value, low, high = self.with_interval()
        return Estimate(float(value), float(low), float(high), unit)

    def _bound(self, probability: float) -> Array:
        a = self.skewness / 6
        shifted = a + stdtrit(self.degrees_of_freedom, probability)
        z = a + shifted / (1 - a * shifted)
        return np.asarray(self.value + self.standard_error * (z + a * (z**2 - 1)))


def mean_estimate(values: Array, stratified_by: Array | None = None) -> MeanDistribution:
    """Estimate the mean over the first axis of ``[image, ...]``.

    Args:
        values: of independent images.
        stratified_by: ``[image]``, a random design variable of which each of n equal strata holds one image.
            The mean then varies only by what images within one stratum differ in, which neighbours in this
            variable tell: the standard error comes from their differences (Wolter, "Introduction to Variance
            Estimation", 2007, 8.2). It is at most too large, by how much the expectation changes from one
            stratum to the next.
    """
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    shape = values.shape[1:]
    mean, second, third = (part.reshape(shape) for part in _moments(values.reshape(n, -1)))
    plain = _from_moments(mean, second, third, np.full(shape, n))
    if stratified_by is None or n < 2:
        return plain
    steps = np.diff(values[np.argsort(stratified_by)], axis=0)
    error = np.sqrt(np.square(steps, out=steps).sum(0) / (2 * n * (n - 1)))
    # the degrees of freedom are those of the mean square successive difference (von Neumann, 1941)
    freedom = np.full(shape, 2 * (n - 1) ** 2 / (3 * n - 4))
    return replace(plain, standard_error=error, degrees_of_freedom=freedom)


def grouped_estimate(values: Array, group: Array, groups: int) -> MeanDistribution:
    """Estimate the mean of each group; it is NaN for an empty group.

    Args:
        values: ``[entry]``.
        group: of each entry, 0..groups - 1.
        groups: their number.
    """
    n = np.bincount(group, minlength=groups)
    share = 1 / np.where(n == 0, np.nan, n)
    mean = np.bincount(group, values, groups) * share
    centred = values - mean[group]
    return _from_moments(
        mean,
        np.bincount(group, centred**2, groups) * share,
        np.bincount(group, centred**3, groups) * share,
        n,
    )


def ratio_estimate(
    numerator: Array, denominator: Array, stratified_by: Array | None = None
) -> MeanDistribution:
    """Estimate the ratio of two means over the same images, linearised around them.

    Args:
        numerator: ``[image]``.
        denominator: of the same images, with a mean that is not near zero.
        stratified_by: see `mean_estimate`.
    """
    ratio = numerator.mean() / denominator.mean()
    linearised = ratio + (numerator - ratio * denominator) / denominator.mean()
    return mean_estimate(linearised, stratified_by)


def difference(a: MeanDistribution, b: MeanDistribution) -> MeanDistribution:
    """Estimate the difference a - b of the means of two independent sets of images.

    Variances add and third cumulants subtract; the degrees of freedom are Welch's.
    """
    variance = a.standard_error**2 + b.standard_error**2
    third = a.skewness * a.standard_error**3 - b.skewness * b.standard_error**3
    spread = a.standard_error**4 / a.degrees_of_freedom + b.standard_error**4 / b.degrees_of_freedom
    freedom = np.divide(
        variance**2, spread, out=np.asarray(a.degrees_of_freedom + b.degrees_of_freedom), where=spread > 0
    )
    skewness = np.divide(third, variance**1.5, out=np.zeros_like(variance), where=variance > 0)
    return MeanDistribution(a.value - b.value, np.sqrt(variance), skewness, freedom, np.minimum(a.n, b.n))


def share_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95% interval of a share of n independent trials (Wilson, 1927); NaN without trials."""
    if n == 0 or math.isnan(share):
        return math.nan, math.nan
    square = float(ndtri((1 + LEVEL) / 2)) ** 2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = math.sqrt(square * share * (1 - share) / n + square**2 / (4 * n**2)) / (1 + square / n)
    return centre - half, centre + half


def _moments(columns: Array, block: int = 64) -> tuple[Array, Array, Array]:
    """Return the mean and the second and third central moment of each column, a block at a time."""
    mean = columns.mean(0)
    second, third = np.empty_like(mean), np.empty_like(mean)
    for start in range(0, columns.shape[1], block):  # which bounds the memory
        part = slice(start, start + block)
        centred = columns[:, part] - mean[part]
        square = centred**2
        second[part], third[part] = square.mean(0), (square * centred).mean(0)
    return mean, second, third


def _from_moments(mean: Array, second: Array, third: Array, n: Array) -> MeanDistribution:
    freedom = np.where(n > 1, n - 1.0, np.nan)
    skewness = np.divide(third, second**1.5 * np.sqrt(n), out=np.zeros_like(mean), where=second > 0)
    return MeanDistribution(mean, np.sqrt(second / freedom), skewness, freedom, np.asarray(n))
