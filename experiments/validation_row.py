"""A row of `validate`: one measured number, its exact value, and how far they may be apart.

A row passes if measured and exact differ by no more than its tolerance: 4.5 standard errors (6 for the worst
of T terms), which a correct program exceeds in one of 100,000 rows, or for what has no randomness a stated
rounding error. Arrays over images are paired: the standard error is that of the differences.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from ddpm_eval.model.gaussian import Gaussian
from ddpm_eval.results.fields import Array

STANDARD_ERRORS = 4.5
WORST_STANDARD_ERRORS = 6.0


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        quantity: what is compared.
        unit: of all numbers of the row.
        measured: the number that the production code returns.
        exact: the number that it must return.
        standard_error: of the difference; 0 for what has no randomness.
        tolerance: the largest difference that passes.
    """

    quantity: str
    unit: str
    measured: float
    exact: float
    standard_error: float
    tolerance: float

    @property
    def difference_in_standard_errors(self) -> float:
        """Measured minus exact, in standard errors; NaN where there is none."""
        return (self.measured - self.exact) / self.standard_error if self.standard_error else math.nan

    @property
    def passed(self) -> bool:
        """Whether measured and exact agree to the tolerance; never with a NaN."""
        return abs(self.measured - self.exact) <= self.tolerance


def random_row(quantity: str, unit: str, measured: float, exact: float, standard_error: float) -> Row:
    """Compare numbers whose difference has a standard error."""
    tolerance = STANDARD_ERRORS * standard_error
    return Row(quantity, unit, float(measured), float(exact), standard_error, tolerance)


def rounding_row(quantity: str, unit: str, measured: float, exact: float, relative: float) -> Row:
    """Compare numbers without randomness, which may differ by ``relative`` times the exact one."""
    return Row(quantity, unit, float(measured), float(exact), 0.0, relative * abs(exact))


def paired_row(quantity: str, unit: str, measured: Array, exact: Array) -> Row:
    """Compare the means over images of arrays ``[image]``."""
    standard_error = float((measured - exact).std(ddof=1)) / math.sqrt(len(measured))
    return random_row(quantity, unit, measured.mean(), exact.mean(), standard_error)


def quantity_rows(
    label: str,
    measured: Mapping[str, Array],
    exact: Mapping[str, Array],
    quantities: Sequence[str] = ("rate", "distortion", "total"),
) -> list[Row]:
    """Compare the means over images of several quantities, bits/dim ``[image]`` by name."""
    return [paired_row(f"{label}: {name}", "bits/dim", measured[name], exact[name]) for name in quantities]


def worst_row(quantity: str, unit: str, measured: Array, exact: Array) -> Row:
    """Compare means over images ``[image, t]`` at the time where they differ by the most standard errors."""
    difference = measured - exact
    z = np.abs(difference.mean(0)) * math.sqrt(len(difference)) / difference.std(0, ddof=1)
    j = int(np.argmax(z))
    row = paired_row(f"{quantity}, t = {j + 1}", unit, measured[:, j], exact[:, j])
    return replace(row, tolerance=WORST_STANDARD_ERRORS * row.standard_error)


def rooted_row(square: Row, unit: str, scale: float) -> Row:
    """Turn a comparison of squares into one of roots times ``scale``; the error is of first order."""
    measured = scale * math.sqrt(square.measured)
    exact = scale * math.sqrt(square.exact)
    standard_error = exact * square.standard_error / (2 * square.exact)
    return random_row(square.quantity, unit, measured, exact, standard_error)


def with_stated_value(row: Row, measured: float) -> Row:
    """Put the number that a table states in the place of the one computed here."""
    return replace(row, measured=measured)


def law_rows(label: str, x: Tensor, law: Gaussian) -> list[Row]:
    """Compare samples with a Gaussian by their means, variances and correlations.

    They are compared in the Gaussian's own whitened coordinates, where all of these are known.

    Args:
        label: what the samples are.
        x: samples in [-1, 1], float64 ``[sample, channel, row, column]``.
        law: the Gaussian that they must follow.
    """
    white = ((x - law.mean).flatten(1) @ law.basis / law.eigenvalues.sqrt()).numpy()
    n, d = white.shape
    second = white.T @ white / n
    variances = np.diag(second)
    pairs = d * (d - 1) / 2
    means = n * np.square(white.mean(0)).sum()
    spectrum = n / 2 * np.square(variances - 1).sum()
    off_diagonal = n * (np.square(second).sum() - np.square(variances).sum()) / 2
    return [
        random_row(f"{label}: chi2 of the means", "1", means, d, math.sqrt(2 * d)),
        random_row(f"{label}: mean variance ratio", "1", variances.mean(), 1.0, math.sqrt(2 / (n * d))),
        random_row(f"{label}: chi2 of the variances", "1", spectrum, d, math.sqrt(2 * d)),
        random_row(f"{label}: chi2 of the correlations", "1", off_diagonal, pairs, math.sqrt(2 * pairs)),
    ]
