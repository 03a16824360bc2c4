"""The bound by ranges of t: sums, shares, Eq. 12's weights, and paired differences."""

from dataclasses import replace

import numpy as np
import pytest
from simulated_bounds import make_terms, realistic, subsample
from stored_results import STEPS, make_schedule_tables

from ddpm_eval.reporting.bound_tables import bound_estimates
from ddpm_eval.reporting.term_ranges import eps_weights, objective_table, range_table, time_ranges


def test_ranges_follow_each_other_from_one_to_the_last_step():
    assert time_ranges(1000)[:3] == [(1, 1), (2, 2), (3, 5)]
    assert time_ranges(1000)[-2:] == [(201, 500), (501, 1000)]
    assert time_ranges(20) == [(1, 1), (2, 2), (3, 5), (6, 10), (11, 20)]
    assert time_ranges(1) == [(1, 1)]


def test_ranges_sum_to_the_bound_without_its_prior_and_shares_to_one():
    terms = realistic(12, np.random.default_rng(1), steps=STEPS)
    frame = range_table(terms)
    assert frame["t"].tolist() == ["1", "2", "3-5", "6-10", "11-20"]
    found = bound_estimates(terms)
    np.testing.assert_allclose(frame["bits_per_dim"].iloc[0], found["distortion"].value)
    np.testing.assert_allclose(frame["bits_per_dim"].iloc[1:].sum(), found["rate"].value)
    np.testing.assert_allclose(frame["share"].sum(), 1)
    assert (frame["low"] < frame["bits_per_dim"]).all() and (frame["bits_per_dim"] < frame["high"]).all()


def test_weights_of_eps_are_those_of_equation_12():
    schedule = make_schedule_tables()
    beta, alpha_bar = schedule.beta[4], schedule.alpha_bar[4]
    expected = beta**2 / (2 * schedule.fixed_large[4] * (1 - beta) * (1 - alpha_bar))
    weights = eps_weights(schedule, "fixed-large")
    assert weights[4] == pytest.approx(expected)
    assert np.isnan(weights[0])
    np.testing.assert_allclose(eps_weights(schedule, "fixed-small")[1:], 2 * weights[1:])


def test_a_known_difference_is_found_where_it_lies():
    rng = np.random.default_rng(2)
    first = realistic(12, rng, steps=STEPS)
    values = first.term_values()
    values[:, 5:10] += 0.1  # bits/dim at t = 6 to 10
    frame = objective_table(first, make_terms(values), make_schedule_tables())
    np.testing.assert_allclose(frame["difference_bits_per_dim"], [0, 0, 0, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(frame["weight_l_simple"].iloc[1:], 1)
    assert np.average(frame["weight_l"].iloc[1:], weights=[1, 3, 5, 10]) == pytest.approx(1)


def test_differences_are_paired_under_one_design_and_empty_of_different_images():
    rng = np.random.default_rng(3)
    full = realistic(12, rng, steps=STEPS)
    one = subsample(full, 5, rng)
    same = objective_table(one, one, make_schedule_tables())
    assert (same[["difference_bits_per_dim_low", "difference_bits_per_dim_high"]] == 0).all(axis=None)
    other = replace(full, image_id=full.image_id + 1)
    assert objective_table(full, other, make_schedule_tables())["difference_bits_per_dim"].isna().all()
