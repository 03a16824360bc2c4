"""What a fixed reverse variance costs whatever the network does, from a run's stored schedule."""

import math

import numpy as np

from ddpm_eval.reporting.bound_tables import variance_floor
from ddpm_eval.results.fields import Array
from ddpm_eval.results.records import ScheduleTables
from experiments.study import StudyRun

FIXED = ("fixed-large", "fixed-small")


def variance_floors(run: StudyRun, variance: str) -> Array | None:
    """Return each term's irreducible bits/dim under a reverse variance (index 0 is t = 1).

    Args:
        run: whose schedule is stored.
        variance: its name; None is returned for one that is not fixed.
    """
    tables = run.result("schedule", ScheduleTables)
    if tables is None or variance not in FIXED:
        return None
    sigma2 = tables.fixed_large if variance == "fixed-large" else tables.fixed_small
    return variance_floor(_from_zero(sigma2), _from_zero(tables.beta_tilde))


def floor_sum(floors: Array | None) -> float:
    """Return the sum of floors, NaN if there are none."""
    return math.nan if floors is None else float(floors.sum())


def _from_zero(table: Array) -> Array:
    """Index a table 0..T that is indexed 1..T."""
    return np.concatenate([[np.nan], table])
