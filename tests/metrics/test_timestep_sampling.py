"""The stratified estimator: unbiased by design, exactly; nearly as precise as the full evaluation.

Terms are synthetic here and have what makes real ones hard: sizes that fall over t by four orders of
magnitude, images that differ in level and in shape over t, and heavy-tailed noise at every (image, t). How
well a trained model's terms are estimated is measured by the report; nothing here trains.
"""

import math

import numpy as np
import pytest

from ddpm_eval.metrics.timestep_sampling import (
    PILOT_IMAGES,
    from_full,
    importance_from_pilot,
    inclusion_probabilities,
    pilot_times,
    select,
    stratified_offsets,
    systematic_times,
)
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.reporting.intervals import mean_estimate
from ddpm_eval.reporting.rate_distortion_tables import rate_distortion_curve
from ddpm_eval.results.bound_terms import FullBoundTerms

DIMENSIONS = 64
NATS = DIMENSIONS * math.log(2)  # per bit/dim


def realistic(n, timesteps, seed):
    """Return terms as a trained model gives them: about 2 + 2 bits/dim, spread over images about 15%."""
    rng = np.random.default_rng(seed)
    t = np.arange(1, timesteps + 1)
    profile = np.concatenate(
        [[2.0], 2.0 / t[1:] ** 1.2 / np.sum(1 / t[1:] ** 1.2)]
    )  # the first is the decoder's
    level = np.exp(0.12 * rng.normal(size=(n, 1)))
    shape = np.exp(0.1 * rng.normal(size=(n, 1)) * np.log(t / timesteps) / math.log(timesteps) * 3)
    noise = rng.lognormal(-0.5 * 0.6**2, 0.6, (n, timesteps))  # mean 1, standard deviation 0.66, skewness 2.3
    noise[:, 0] = 1 + 0.1 * (noise[:, 0] - 1)
    terms = profile * level * shape * noise * NATS
    return FullBoundTerms(
        image_id=np.arange(n),
        terms=terms,
        x_0_squared_error=0.1 * t / timesteps * noise,
        prior=0.001 * level[:, 0],
        split="test",
        protocol=PROTOCOLS["paper"],
        variance="fixed-large",
        dimensions=DIMENSIONS,
        inexact_left_out=0,
        network_evaluations=terms.size,
    )


def total(bound):
    return mean_estimate(bound.values()["total"])


def included(inclusion, offsets):
    """Return which times are selected for each offset, as 0 and 1, ``[offset, t]``."""
    table = np.zeros((len(offsets), len(inclusion)))
    for row, times in zip(table, systematic_times(inclusion, offsets), strict=True):
        row[times - 1] = 1
    return table


# Inclusion probabilities


@pytest.mark.parametrize("evaluations", [2, 3.5, 10, 37, 50])
def test_inclusion_probabilities_are_proportional_to_size_up_to_one(evaluations):
    importance = np.random.default_rng(0).lognormal(0, 2, 50)
    p = inclusion_probabilities(importance, evaluations)
    assert p.sum() == pytest.approx(evaluations, abs=1e-9)
    assert (p > 0).all() and (p <= 1).all()
    below = p < 1
    if below.any():  # proportional below one, and what is one would exceed it in the same proportion
        rate = (p / importance)[below]
        np.testing.assert_allclose(rate, rate[0], rtol=1e-12)
        assert (importance[~below] * rate[0] >= 1 - 1e-9).all()


def test_equal_importance_gives_equal_probabilities():
    np.testing.assert_allclose(inclusion_probabilities(np.ones(40), 10), 0.25, rtol=1e-14)
    assert (inclusion_probabilities(np.ones(40), 40) == 1).all()


@pytest.mark.parametrize("evaluations", [0, 1, 1.99, 41, math.nan])
def test_impossible_numbers_of_evaluations_are_refused(evaluations):
    with pytest.raises(ValueError, match=r"needs 2 to T = 40"):
        inclusion_probabilities(np.ones(40), evaluations)


def test_what_the_pilot_did_not_see_can_still_be_selected():
    times = pilot_times(1000)
    terms = np.zeros((4, len(times)))
    terms[:, 0] = 1.0
    importance = importance_from_pilot(times, terms, 1000)
    assert importance.sum() == pytest.approx(1) and (importance > 1e-8).all()


def test_importance_follows_the_root_mean_square_at_the_pilots_times():
    times = pilot_times(100)
    terms = np.random.default_rng(1).gamma(2, size=(16, len(times))) * 5 / times
    importance = importance_from_pilot(times, terms, 100, floor=0.0)
    rms = np.sqrt((terms**2).mean(0))
    np.testing.assert_allclose(importance[times - 1] / importance[0], rms / rms[0], rtol=1e-9)
    low, high = int(times[-2]), int(times[-1])
    middle = low + (high - low) // 2
    weight = (math.log(middle) - math.log(low)) / (math.log(high) - math.log(low))
    expected = rms[-2] ** (1 - weight) * rms[-1] ** weight
    assert importance[middle - 1] / importance[0] == pytest.approx(expected / rms[0], rel=1e-9)


@pytest.mark.parametrize("timesteps", [2, 3, 20, 1000, 4000])
def test_pilot_times_are_increasing_times_of_the_chain_with_both_ends(timesteps):
    times = pilot_times(timesteps)
    assert (np.diff(times) > 0).all() and times[0] == 1 and times[-1] == timesteps
    assert set(range(1, min(4, timesteps) + 1)) <= set(times)
    assert len(times) <= 28


# Unbiasedness, exactly


def test_over_all_offsets_the_estimate_averages_to_the_full_sum():
    """With probabilities in whole 1/1000ths, 1000 equally spaced offsets visit every case equally often.

    Any weights serve: the estimator is linear. Edges are multiples of 1/1000 and offsets lie half-way
    between, so that rounding cannot move a tick across an edge.
    """
    rng = np.random.default_rng(2)
    parts = rng.multinomial(4000 - 3 * 1000 - 40, np.ones(40) / 40) + 1  # in 1/1000
    inclusion = np.concatenate([[1.0], parts / 1000, [1.0, 1.0]])
    assert inclusion.sum() == pytest.approx(4)
    offsets = (np.arange(1000) + 0.5) / 1000
    selected = included(inclusion, offsets)
    np.testing.assert_allclose(selected.mean(0), inclusion, rtol=0, atol=1e-15)
    terms = rng.lognormal(0, 3, len(inclusion))
    estimates = selected @ (terms / inclusion)
    assert estimates.mean() == pytest.approx(terms.sum(), rel=1e-12)
    for part in (slice(0, 1), slice(1, None), slice(17, 30)):  # distortion, rate, any stretch of the curve
        assert (selected[:, part] @ (terms / inclusion)[part]).mean() == pytest.approx(
            terms[part].sum(), rel=1e-12
        )


def test_real_probabilities_are_met_within_the_grids_resolution():
    inclusion = inclusion_probabilities(np.random.default_rng(3).lognormal(0, 2, 200), 10)
    m = 20_000
    share = included(inclusion, (np.arange(m) + 0.5) / m).mean(0)
    assert (
        np.abs(share - inclusion).max() <= 1 / m + 1e-12
    )  # each edge of an interval is off by half a spacing at most


def test_every_image_gets_the_same_number_of_evaluations():
    """The probabilities sum to a whole number: the cost is known and nothing varies with the offset."""
    inclusion = inclusion_probabilities(np.random.default_rng(4).lognormal(0, 2, 1000), 7)
    counts = {len(times) for times in systematic_times(inclusion, stratified_offsets(500, 0))}
    assert counts == {7}


def test_each_image_is_evaluated_low_and_high_in_proportion():
    """Any stretch of times holding probability q gets floor(q) or ceil(q) evaluations, for every image."""
    inclusion = inclusion_probabilities(np.random.default_rng(5).lognormal(0, 1, 300), 12)
    selected = included(inclusion, stratified_offsets(200, 1))
    for start, stop in [(0, 5), (3, 50), (100, 300)]:
        q, found = inclusion[start:stop].sum(), selected[:, start:stop].sum(1)
        assert set(found) <= {math.floor(q), math.ceil(q)}


def test_offsets_are_uniform_stratified_and_a_function_of_seed_and_number():
    n = 500
    offsets = stratified_offsets(n, 7)
    np.testing.assert_array_equal(
        np.sort(np.floor(offsets * n)), np.arange(n)
    )  # one in each interval of width 1/n
    assert (offsets >= 0).all() and (offsets < 1).all()
    np.testing.assert_array_equal(offsets, stratified_offsets(n, 7))
    assert not np.array_equal(offsets, stratified_offsets(n, 8))
    assert abs(np.corrcoef(offsets[:-1], offsets[1:])[0, 1]) < 4.5 / math.sqrt(
        n
    )  # neighbouring images are not alike


# Unbiasedness and precision, by simulation


def test_estimates_average_to_the_full_evaluation():
    full = realistic(60, 200, 6)
    names = ("rate", "distortion", "total")
    exact = {name: values.mean() for name, values in full.values().items()}
    found = []
    for seed in range(300):
        sampled = from_full(full, 5, seed)
        found.append([sampled.values()[name].mean() for name in names])
    means, spread = np.mean(found, 0), np.std(found, 0, ddof=1)
    for name, mean, deviation in zip(names, means, spread, strict=True):
        assert abs(mean - exact[name]) < 4 * deviation / math.sqrt(300) + 1e-12, name


def test_every_point_of_the_rate_curve_is_unbiased():
    full = realistic(40, 100, 7)
    exact = rate_distortion_curve(full)["rate_bits_per_dim"].to_numpy()
    curves = np.array(
        [
            rate_distortion_curve(from_full(full, 5, seed))["rate_bits_per_dim"].to_numpy()
            for seed in range(200)
        ]
    )
    error = np.abs(curves.mean(0) - exact)
    # 4.5 standard errors at each of 100 points: all of them together fail by chance once in 1500 times
    assert (error <= 4.5 * curves.std(0, ddof=1) / math.sqrt(200) + 1e-12).all()


def test_a_hundredth_of_the_evaluations_has_the_standard_error_of_all_within_a_tenth():
    full = realistic(360, 1000, 8)
    sampled = from_full(full, 8, seed=0)
    assert 100 * sampled.network_evaluations <= full.terms.size  # the pilot's are counted
    ratio = float(total(sampled).standard_error / total(full).standard_error)
    # the ratio of two sample deviations of 360 images itself varies by a few per cent: the same over several
    # designs
    others = [
        float(total(from_full(full, 8, seed)).standard_error / total(full).standard_error)
        for seed in range(1, 20)
    ]
    assert 0.9 < ratio < 1.1
    assert 0.97 < np.mean(others) < 1.1


def test_the_estimate_stays_close_to_the_full_one():
    """What sampling adds is small against the spread over images, so that the interval covers both."""
    full = realistic(360, 1000, 9)
    exact = float(total(full).value)
    errors, covered = [], []
    for seed in range(100):
        estimate = total(from_full(full, 8, seed))
        low, high = estimate.interval()
        errors.append((float(estimate.value) - exact) / float(estimate.standard_error))
        covered.append(low <= exact <= high)
    assert np.mean(covered) >= 0.95
    assert np.std(errors) < 0.6  # the design's own error, in the standard errors that are reported


def test_intervals_cover_the_expected_bound_95_times_in_100():
    """Coverage over new images, new noise and new designs, of the mean over infinitely many images.

    2,000 trials have a binomial standard error of sqrt(0.95 * 0.05 / 2000) = 0.0049; the true coverage of an
    interval for a skewed mean of 120 images may be a per cent off: 0.93 to 0.97 is four standard errors
    either way. (The truth, a mean over 100,000 images, is known to 3% of a trial's standard error.)
    """
    quantities = ("rate", "distortion", "total")
    truth = {name: values.mean() for name, values in realistic(100_000, 20, 10).values().items()}
    covered, trials = dict.fromkeys(quantities, 0), 2000
    for trial in range(trials):
        values = from_full(realistic(120, 20, 1000 + trial), 4, trial).values()
        for name in quantities:
            low, high = mean_estimate(values[name]).interval()
            covered[name] += bool(low <= truth[name] <= high)
    for name, count in covered.items():
        assert 0.93 <= count / trials <= 0.97, f"{name}: {count / trials}"


# The records


def test_from_full_reads_the_very_terms():
    full = realistic(20, 50, 11)
    sampled = from_full(full, 6, seed=3)
    row, column = np.nonzero(sampled.t)
    np.testing.assert_array_equal(sampled.terms[row, column], full.terms[row, sampled.t[row, column] - 1])
    np.testing.assert_array_equal(
        sampled.x_0_squared_error[row, column], full.x_0_squared_error[row, sampled.t[row, column] - 1]
    )
    assert not sampled.terms[sampled.t == 0].any()
    assert sampled.network_evaluations == (sampled.t > 0).sum() + min(PILOT_IMAGES, 20) * len(pilot_times(50))
    for times in sampled.t:
        assert (np.diff(times[times > 0]) > 0).all()


def test_selecting_every_step_is_the_full_evaluation():
    full = realistic(10, 30, 12)
    sampled = from_full(full, 30, seed=0)
    np.testing.assert_array_equal(sampled.t, np.tile(np.arange(1, 31), (10, 1)))
    np.testing.assert_allclose(sampled.term_values(), full.term_values(), rtol=1e-12)


def test_a_design_is_a_function_of_its_seed():
    pilot, times = np.ones((4, len(pilot_times(50)))), pilot_times(50)
    first, again, other = (select(pilot, times, 50, 30, 5, seed)[2] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
