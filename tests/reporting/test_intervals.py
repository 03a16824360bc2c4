"""Intervals against scipy's exact and resampled ones, and their coverage on simulated data."""

import numpy as np
import pytest
from scipy import stats

from ddpm_eval.reporting import intervals
from ddpm_eval.results.fields import Estimate


def test_interval_of_symmetric_data_is_students_t():
    x = np.random.default_rng(0).normal(size=15)
    x = np.concatenate([x, -x]) + 3.0  # the sample's skewness is zero up to rounding
    expected = stats.t.interval(0.95, len(x) - 1, x.mean(), stats.sem(x))
    np.testing.assert_allclose(intervals.mean_estimate(x).interval(), expected, rtol=1e-12)


def test_interval_agrees_with_resampled_bca():
    """The analytic form against scipy's 100,000 resamples.

    Two differences remain: the Monte Carlo error of a 2.5% quantile, sqrt(0.025 * 0.975 / 1e5) / 0.0584 =
    0.0085 standard errors; and Student's t instead of the normal quantile with n - 1 for n,
    (1.9720 / 1.9600) * sqrt(200 / 199) = 0.9% of 2 standard errors. Terms of order 1/n that the expansion
    omits are smaller (skewness 2, n = 200: a = 0.024, a^2 z^3 = 0.004). The bound allows 0.05 standard
    errors; a plain symmetric interval is off by a(2 z^2 + 1) = 0.2 of them.
    """
    rng = np.random.default_rng(1)
    x = rng.exponential(size=200)
    ours = intervals.mean_estimate(x).interval()
    resampled = stats.bootstrap(
        (x,), np.mean, n_resamples=100_000, batch=5_000, method="BCa", rng=rng
    ).confidence_interval
    np.testing.assert_allclose(ours, tuple(resampled), atol=0.05 * stats.sem(x))
    symmetric = stats.t.interval(0.95, len(x) - 1, x.mean(), stats.sem(x))
    assert abs(symmetric[0] - resampled.low) > 0.1 * stats.sem(x)


@pytest.mark.parametrize(
    ("draw", "mean"),
    [(lambda rng, size: rng.normal(size=size), 0.0), (lambda rng, size: rng.exponential(size=size), 1.0)],
    ids=["normal", "exponential"],
)
@pytest.mark.parametrize("n", [50, 500])
def test_coverage_of_the_mean(draw, mean, n):
    """4,000 simulated sets: coverage's standard error is 0.0034, so 0.95 -+ 0.0138 is four of them.

    For exponential data at n = 50 BCa is known to miss about half a percent more.
    """
    low, high = intervals.mean_estimate(draw(np.random.default_rng(2), (n, 4000))).interval()
    covered = ((low <= mean) & (mean <= high)).mean()
    assert abs(covered - 0.95) < 0.0138 + (0.01 if n == 50 and mean == 1 else 0)
    # and the misses are on both sides, which a symmetric interval gets wrong (0.06 and 0.01 at n = 50)
    if n == 500:
        assert abs((high < mean).mean() - 0.025) < 0.012
        assert abs((low > mean).mean() - 0.025) < 0.012


def test_coverage_where_a_design_variable_is_stratified_over_the_images():
    """3,000 sets of 40 images whose mean depends on an offset, one in each fortieth; four standard errors are
    0.016.

    The expectation over the design is 0; the plain interval takes the offset's share, sin^2 = 0.5 of 0.75,
    for chance. Strata differ by at most 2 pi / 40 in expectation, which adds (0.157)^2 / 4 = 2.5% to the
    stated variance.
    """
    rng = np.random.default_rng(6)
    n, sets = 40, 3000
    u = (np.stack([rng.permutation(n) for _ in range(sets)]) + rng.random((sets, n))) / n
    x = np.sin(2 * np.pi * u) + 0.5 * rng.normal(size=(sets, n))
    stated = [intervals.mean_estimate(row, offset) for row, offset in zip(x, u, strict=True)]
    bounds = np.array([estimate.interval() for estimate in stated])
    assert abs(((bounds[:, 0] <= 0) & (bounds[:, 1] >= 0)).mean() - 0.95) < 0.016
    error = np.sqrt(np.mean([estimate.standard_error**2 for estimate in stated]))
    assert error == pytest.approx(x.mean(1).std(), rel=0.06)  # a standard deviation of 3,000 has 1.3% error
    plain = intervals.mean_estimate(x.T).interval()
    assert ((plain[0] <= 0) & (plain[1] >= 0)).mean() > 0.99


def test_a_design_variable_changes_nothing_but_the_error():
    x = np.random.default_rng(7).exponential(size=(30, 2))
    plain, stratified = intervals.mean_estimate(x), intervals.mean_estimate(x, np.arange(30))
    np.testing.assert_array_equal(stratified.value, plain.value)
    np.testing.assert_array_equal(stratified.skewness, plain.skewness)
    by_hand = np.sqrt(np.square(x[1:] - x[:-1]).sum(0) / (2 * 29 * 30))
    np.testing.assert_allclose(stratified.standard_error, by_hand, rtol=1e-12)
    single = intervals.mean_estimate(x[:1], np.zeros(1))
    assert np.isnan(single.standard_error).all()


def test_coverage_of_the_unpaired_difference():
    """As above, for samples of different sizes and shapes; 3,000 sets, four standard errors are 0.016."""
    rng = np.random.default_rng(3)
    a, b = rng.exponential(size=(80, 3000)), rng.normal(1.0, 0.5, size=(200, 3000))
    low, high = intervals.difference(intervals.mean_estimate(a), intervals.mean_estimate(b)).interval()
    assert abs(((low <= 0) & (0 <= high)).mean() - 0.95) < 0.016


def test_difference_of_normal_samples_is_welchs():
    rng = np.random.default_rng(4)
    a, b = (np.concatenate([x, -x]) for x in (rng.normal(size=9), rng.normal(size=20)))
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    ours = intervals.difference(intervals.mean_estimate(a), intervals.mean_estimate(b)).interval()
    np.testing.assert_allclose(ours, tuple(expected), rtol=1e-9)


def test_difference_of_equal_skewed_samples_is_symmetric():
    """Third cumulants subtract: a sample against itself has none, while its own interval is clearly
    skewed.
    """
    one = intervals.mean_estimate(np.random.default_rng(18).exponential(size=30))
    low, high = intervals.difference(one, one).interval()
    assert low == pytest.approx(-high, rel=1e-12)
    low, high = one.interval()
    assert high - one.value > 1.1 * (one.value - low)


def test_interval_is_equivariant():
    """Shifting and scaling the data does the same to the interval; reflecting swaps its ends."""
    x = np.random.default_rng(5).lognormal(size=40)
    low, high = intervals.mean_estimate(x).interval()
    np.testing.assert_allclose(
        intervals.mean_estimate(7 - 3 * x).interval(), (7 - 3 * high, 7 - 3 * low), rtol=1e-12
    )


def test_constant_data_have_an_interval_of_width_zero_and_a_single_image_has_none():
    assert intervals.mean_estimate(np.full(10, 0.25)).interval() == (0.25, 0.25)
    alone = intervals.mean_estimate(np.array([[1.0, 2.0]]))
    np.testing.assert_array_equal(alone.value, [1.0, 2.0])
    assert np.isnan(alone.interval()).all()


def test_grouped_estimate_is_the_estimate_of_each_group():
    rng = np.random.default_rng(6)
    group, values = rng.integers(0, 3, 60), rng.lognormal(size=60)
    found = intervals.grouped_estimate(values, group, 4)
    bounds = np.array(found.interval())
    for g in range(3):
        alone = intervals.mean_estimate(values[group == g])
        np.testing.assert_allclose(bounds[:, g], alone.interval(), rtol=1e-12)
    assert found.n[3] == 0
    assert np.isnan(found.value[3])


def test_the_ratio_of_two_means_has_the_standard_error_of_its_linearisation():
    """Against the delta method's formula from variances and covariance, written out."""
    rng = np.random.default_rng(7)
    total = rng.lognormal(size=300)
    part = total * rng.uniform(0.4, 0.6, 300)
    found = intervals.ratio_estimate(part, total)
    ratio = part.mean() / total.mean()
    (a, ab), (_, b) = np.cov(part, total)
    error = np.sqrt((a - 2 * ratio * ab + ratio**2 * b) / 300) / total.mean()
    np.testing.assert_allclose(found.value, ratio, rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-9)
    assert intervals.ratio_estimate(2 * total, total).interval() == pytest.approx((2.0, 2.0))


@pytest.mark.parametrize(("successes", "n"), [(355, 360), (0, 10), (5, 10)])
def test_share_interval_agrees_with_scipys(successes, n):
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(intervals.share_interval(successes / n, n), tuple(expected), atol=1e-12)


def test_share_of_nothing_has_no_interval():
    assert np.isnan(intervals.share_interval(0.5, 0)).all()


def test_a_single_mean_becomes_an_estimate_with_its_unit():
    x = np.random.default_rng(8).exponential(size=20)
    mean = intervals.mean_estimate(x)
    low, high = mean.interval()
    assert mean.estimate("bits/dim") == Estimate(x.mean(), low, high, "bits/dim")
    with pytest.raises(TypeError):
        intervals.mean_estimate(np.ones((3, 2))).estimate("bits/dim")
