"""Where an estimate lies in a frame, and that what is written there is found again."""

import math

import numpy as np
import pandas as pd
import pytest

from ddpm_eval.reporting.estimate_columns import (
    add_estimates,
    add_interval,
    bounds_of,
    estimate_cells,
    is_bound,
)
from ddpm_eval.results.fields import Estimate

ESTIMATE = Estimate(2.0, 1.0, 4.0, "bits/dim")


def test_an_estimate_takes_three_columns():
    assert estimate_cells("x", ESTIMATE) == {"x": 2.0, "x_low": 1.0, "x_high": 4.0}
    assert all(math.isnan(number) for number in estimate_cells("x", None).values())


def test_estimates_of_rows_and_arrays_lie_in_the_same_columns():
    first, second = (pd.DataFrame({"name": ["a", "b"]}) for _ in range(2))
    add_estimates(first, "x", [ESTIMATE, Estimate(3.0, 2.5, 3.5, "bits/dim")])
    add_interval(second, "x", np.array([2.0, 3.0]), np.array([1.0, 2.5]), np.array([4.0, 3.5]))
    pd.testing.assert_frame_equal(first, second)
    assert list(first) == ["name", "x", "x_low", "x_high"]


@pytest.mark.parametrize(
    ("columns", "column", "bounds"),
    [
        (["x", "x_low", "x_high"], "x", ("x_low", "x_high")),
        (["value", "low", "high"], "value", ("low", "high")),
        (["bits_per_dim", "low", "high"], "bits_per_dim", ("low", "high")),
        (["bits_per_dim", "low", "high", "n"], "n", None),
        (["value"], "value", None),
    ],
)
def test_bounds_are_found(columns, column, bounds):
    frame = pd.DataFrame(columns=columns)
    assert bounds_of(frame, column) == bounds
    assert not is_bound(frame, column)
    assert all(is_bound(frame, name) for name in bounds or ())


def test_a_name_that_only_ends_like_a_bound_is_none():
    assert not is_bound(pd.DataFrame(columns=["tide_low", "x"]), "tide_low")
