"""How estimates lie in a data frame: a column ``x`` has its 95% interval in ``x_low`` and ``x_high``.

Where each row of a table holds one estimate, in a column ``value`` or ``bits_per_dim``, the bounds are in
``low`` and ``high``. An empty bound means that fewer than two images were available.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ddpm_eval.results.fields import Array, Estimate

ROW_BOUNDS = ("low", "high")


def estimate_columns(name: str) -> tuple[str, str, str]:
    """Return the names of the columns of a value and its lower and upper bound."""
    return name, f"{name}_low", f"{name}_high"


def estimate_cells(name: str, estimate: Estimate | None) -> dict[str, float]:
    """Return an estimate's value and bounds by column, NaN where it is None."""
    numbers = (np.nan,) * 3 if estimate is None else estimate[:3]
    return dict(zip(estimate_columns(name), numbers, strict=True))


def add_interval(frame: pd.DataFrame, name: str, value: Array, low: Array, high: Array) -> None:
    """Add the columns of an array of values with their bounds, one element a row."""
    for column, numbers in zip(estimate_columns(name), (value, low, high), strict=True):
        frame[column] = numbers


def add_estimates(frame: pd.DataFrame, name: str, estimates: Sequence[Estimate]) -> None:
    """Add the columns of one estimate for each row."""
    value, low, high = np.array([estimate[:3] for estimate in estimates]).T
    add_interval(frame, name, value, low, high)


def bounds_of(frame: pd.DataFrame, column: str) -> tuple[str, str] | None:
    """Return the columns that hold the bounds of ``column``, None if it has no interval."""
    _, low, high = estimate_columns(column)
    if low in frame:
        return low, high
    if column in ("value", "bits_per_dim") and ROW_BOUNDS[0] in frame:
        return ROW_BOUNDS
    return None


def is_bound(frame: pd.DataFrame, column: str) -> bool:
    """Tell whether a column holds the bounds of another one."""
    if column in ROW_BOUNDS:
        return True
    name, _, end = column.rpartition("_")
    return end in ROW_BOUNDS and name in frame
