"""Estimates over several trainings that differ in their seed alone, and Table 2 over such trainings.

With x_1, ..., x_N the estimates of N trainings and s their standard deviation, the mean has the interval
mean +- t s / sqrt(N), where t is Student's quantile with N - 1 degrees of freedom. It covers what training
changes, and all that is drawn anew for each training, such as its samples. Where the trainings were measured
on the same images, s says nothing of what other images would change; the means of the trainings' own
half-widths are then added in quadrature, which makes the interval wide rather than narrow. The interval of a
quantity that is never negative, such as a distance, is that of its logarithm to first order: the mean is
divided and multiplied by exp(t s / (sqrt(N) mean)).
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from ddpm_eval.reporting.estimate_columns import add_estimates, estimate_columns
from ddpm_eval.reporting.intervals import LEVEL
from ddpm_eval.results.fields import Estimate

SAME_IMAGES = {"score": False, "frechet_distance": False, "bits_per_dim": True}
"""The measured columns of Table 2, and whether all trainings were measured on the same images."""
NEVER_NEGATIVE = ("frechet_distance",)
"""Those whose intervals are of the logarithm."""


def over_trainings(
    estimates: Sequence[Estimate], same_images: bool, never_negative: bool = False
) -> Estimate:
    """Return the mean of the same quantity over trainings, with the interval of this module.

    Args:
        estimates: one for each training.
        same_images: whether all were measured on the same images.
        never_negative: whether the interval is that of the logarithm; not for the same images.

    Returns:
        The mean; of a single training its estimate as it is. Without an interval if a training has no
        finite value, and NaN unless all are equal.
    """
    if len(estimates) == 1:
        return estimates[0]
    values, lows, highs = np.array([estimate[:3] for estimate in estimates]).T
    unit = estimates[0].unit
    if not np.isfinite(values).all():
        value = float(values[0]) if (values == values[0]).all() else math.nan
        return Estimate(value, value, value, unit)
    value = float(values.mean())
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * between(estimates) / math.sqrt(len(values))
    if never_negative and value > 0:
        factor = math.exp(half / value)
        return Estimate(value, value / factor, value * factor, unit)
    below, above = (np.mean(values - lows), np.mean(highs - values)) if same_images else (0.0, 0.0)
    return Estimate(value, value - math.hypot(half, below), value + math.hypot(half, above), unit)


def between(estimates: Sequence[Estimate]) -> float:
    """Return the standard deviation between trainings; NaN for a single one."""
    values = [estimate.value for estimate in estimates]
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def replicated_ablation(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join Table 2 of several trainings of each cell: means, and the standard deviation between trainings.

    Args:
        tables: of `ddpm_eval.reporting.ablation_table.ablation_table`, one for each seed.

    Returns:
        The columns of one table, and for each of `SAME_IMAGES` a column ``NAME_std_over_trainings``; the
        column trainings is their number. A cell of which some trainings diverged says how many, and has no
        mean.
    """
    first = tables[0]
    frame = first.copy()
    if len(tables) == 1:
        return frame
    for name, same_images in SAME_IMAGES.items():
        cells = [[_estimate(table, name, row) for table in tables] for row in range(len(first))]
        never_negative = name in NEVER_NEGATIVE
        add_estimates(frame, name, [over_trainings(cell, same_images, never_negative) for cell in cells])
        frame[f"{name}_std_over_trainings"] = [between(cell) for cell in cells]
    frame["score_std"] = np.mean([table["score_std"] for table in tables], axis=0)
    frame["status"] = [_status([table["status"][row] for table in tables]) for row in range(len(first))]
    frame["trainings"] = len(tables)
    return frame


def _estimate(table: pd.DataFrame, name: str, row: int) -> Estimate:
    value, low, high = (float(table[column][row]) for column in estimate_columns(name))
    return Estimate(value, low, high, "")


def _status(found: Sequence[str]) -> str:
    """Return what holds of all trainings, else that one is missing, else how many diverged."""
    if len(set(found)) == 1:
        return found[0]
    return "missing" if "missing" in found else f"diverged in {found.count('diverged')} of {len(found)}"
