"""The floor of a fixed variance, from a run's stored schedule."""

import math

import numpy as np
import pytest
from stored_results import STEPS, make_log, make_schedule_tables, store_results
from tiny import TINY

from experiments.study import StudyRun
from experiments.variance_floors import floor_sum, variance_floors


@pytest.fixture
def run(tmp_path):
    run = StudyRun(tmp_path, TINY, "tiny")
    store_results(run, {"training": make_log(), "schedule": make_schedule_tables()})
    return run


def test_twice_the_posterior_variance_costs_the_same_at_every_step_but_the_decoder(run):
    """KL(N(0, s) || N(0, 2 s)) = (1/2 - 1 + ln 2) / 2 nats."""
    expected = (0.5 - 1 + math.log(2)) / 2 / math.log(2)
    floors = variance_floors(run, "fixed-large")
    np.testing.assert_allclose(floors, [0, *[expected] * (STEPS - 1)], rtol=1e-12)
    assert floor_sum(floors) == pytest.approx((STEPS - 1) * expected, rel=1e-12)


def test_the_posterior_variance_itself_costs_nothing(run):
    np.testing.assert_allclose(variance_floors(run, "fixed-small"), 0, atol=1e-15)


@pytest.mark.parametrize("variance", ["learned", "learned-range", "optimal"])
def test_a_variance_that_is_not_fixed_has_no_floor(run, variance):
    assert variance_floors(run, variance) is None
    assert math.isnan(floor_sum(None))


def test_without_a_stored_schedule_there_is_no_floor(tmp_path):
    assert variance_floors(StudyRun(tmp_path / "none", TINY, "tiny"), "fixed-large") is None
