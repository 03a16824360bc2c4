"""The split, the terms and the variance floor against closed forms, scipy and simulations."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated_bounds import MEAN_FACTOR, T, make_terms, mean_term, realistic, stratified_like, subsample

from ddpm_eval.protocol import PROTOCOLS, combine
from ddpm_eval.reporting.bound_tables import (
    bound_estimates,
    distortion_share,
    halfwidth,
    split_table,
    terms_table,
    variance_floor,
)
from ddpm_eval.reporting.rate_distortion_tables import rate_distortion_curve
from ddpm_eval.results.fields import Estimate

# The split


def test_split_by_hand():
    """Two images, three steps: everything can be added up on paper."""
    terms = make_terms(
        [[2.0, 0.5, 0.25], [3.0, 0.25, 0.5]], prior=np.array([0.1, 0.3]), variance="fixed-small"
    )
    table = split_table(terms, {"rate": 1.78, "distortion": 1.97, "total": 3.75})
    assert list(table.columns) == [
        *("quantity", "bits_per_dim", "low", "high", "n_images", "split", "variance", "paper_bits_per_dim")
    ]
    assert list(table["quantity"]) == ["rate", "distortion", "prior", "total"]
    np.testing.assert_allclose(table["bits_per_dim"], [0.75, 2.5, 0.2, 3.45], rtol=1e-12)
    np.testing.assert_array_equal(table["paper_bits_per_dim"], [1.78, 1.97, np.nan, 3.75])
    assert set(table["variance"]) == {"fixed-small"}
    assert set(table["split"]) == {"test"}
    assert set(table["n_images"]) == {2}
    # the total's interval is the t interval of two numbers, 2.85 and 4.05: no skewness with n = 2
    expected = stats.t.interval(0.95, 1, 3.45, stats.sem([2.85, 4.05]))
    np.testing.assert_allclose(table.loc[3, ["low", "high"]].astype(float), expected, rtol=1e-9)


def test_estimates_are_the_rows_of_the_split():
    terms = realistic(20, np.random.default_rng(20), steps=15)
    table = split_table(terms).set_index("quantity")
    for quantity, estimate in bound_estimates(terms).items():
        row = table.loc[quantity, ["bits_per_dim", "low", "high"]]
        assert estimate == Estimate(*row, "bits/dim")


@pytest.mark.parametrize("estimator", ["full", "stratified"])
def test_rate_distortion_and_prior_add_up(estimator):
    rng = np.random.default_rng(7)
    terms = realistic(50, rng)
    terms = subsample(terms, 10, rng) if estimator == "stratified" else terms
    value = split_table(terms).set_index("quantity")["bits_per_dim"]
    assert abs(value["rate"] + value["distortion"] + value["prior"] - value["total"]) < 1e-12


def test_the_protocols_variance_is_named_when_it_is_not_the_trained_one():
    protocol = combine(PROTOCOLS["exact"], variance="fixed-small")
    terms = make_terms(np.ones((3, 2)), protocol=protocol, variance="fixed-small")
    assert set(split_table(terms)["variance"]) == {"fixed-small"}


@pytest.mark.parametrize("stratified", [False, True])
def test_terms_that_are_not_finite_are_refused(stratified):
    rng = np.random.default_rng(8)
    terms = realistic(5, rng, steps=20)
    terms.terms[3, 0] = np.inf
    terms = subsample(terms, 4, rng) if stratified else terms
    with pytest.raises(ValueError, match=r"first for image 3 at t = 1 .*diverge"):
        split_table(terms)


def test_halfwidth_is_of_the_total():
    terms = realistic(30, np.random.default_rng(19), steps=20)
    total = split_table(terms).set_index("quantity").loc["total"]
    assert halfwidth(terms) == pytest.approx((total["high"] - total["low"]) / 2)


# The variance floor


def linear_schedule(steps=T):
    """Tables indexed 0..T in the most literal way."""
    beta = np.concatenate([[0.0], np.linspace(1e-4, 0.02, steps)])
    alpha_bar = np.cumprod(1 - beta)
    beta_tilde = np.zeros_like(beta)
    for t in range(1, steps + 1):
        beta_tilde[t] = (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]) * beta[t]
    return beta, beta_tilde


def test_variance_floor_has_the_published_values():
    """0.486 bits/dim for sigma^2 = beta, of which 0.479 for t <= 100 and 0.175 at t = 2."""
    beta, beta_tilde = linear_schedule()
    floor = variance_floor(beta, beta_tilde)
    assert floor.shape == (T,)
    assert abs(floor.sum() - 0.48642) < 5e-6
    assert abs(floor[:100].sum() - 0.479) < 5e-4
    assert abs(floor[1] - 0.175) < 5e-4
    assert floor[0] == 0


def test_variance_floor_is_zero_for_the_posterior_variance_only():
    _, beta_tilde = linear_schedule()
    np.testing.assert_array_equal(variance_floor(beta_tilde, beta_tilde), 0)
    assert (variance_floor(1.1 * beta_tilde, beta_tilde)[1:] > 0).all()
    assert (variance_floor(0.9 * beta_tilde, beta_tilde)[1:] > 0).all()


def test_variance_floor_is_the_kl_divergence_by_quadrature():
    sigma2, tilde = np.array([np.nan, 1.0, 0.7]), np.array([0.0, 0.0, 0.3])
    x = np.linspace(-8, 8, 20001)
    q, p = stats.norm(0, 0.3**0.5), stats.norm(0, 0.7**0.5)
    expected = np.trapezoid(q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), x) / math.log(2)
    assert abs(variance_floor(sigma2, tilde)[1] - expected) < 1e-9


# The stratified estimator


def test_stratified_estimates_are_unbiased():
    """300 subsamples of the same images: their means lie near the full values, in standard errors."""
    rng = np.random.default_rng(12)
    full = realistic(40, rng, steps=100)

    def tables(terms):
        split = split_table(terms)["bits_per_dim"]
        rate = rate_distortion_curve(terms)["rate_bits_per_dim"]
        return np.concatenate([split, rate, terms_table(terms)["bits_per_dim"]])

    exact = tables(full)
    found = [tables(subsample(full, 8, rng)) for _ in range(300)]
    error = np.std(found, axis=0, ddof=1) / math.sqrt(len(found))
    # 204 comparisons: the largest of as many normal deviates exceeds 4.5 with probability 0.0014
    assert (np.abs(np.mean(found, 0) - exact) <= 4.5 * error + 1e-12).all()


def test_stratified_intervals_cover_the_population():
    """Fresh images and fresh times each time; the truth is the law's mean factor times the mean term.

    400 sets: coverage's standard error is 0.011; four of them around 0.95 are 0.906 and 0.994. Sets of 100
    images are skewed little.
    """
    rng = np.random.default_rng(14)
    rate, distortion = MEAN_FACTOR * mean_term(100)[1:].sum(), MEAN_FACTOR * 2.0
    covered = np.zeros(2)
    for _ in range(400):
        part = subsample(realistic(100, rng, steps=100), 8, rng)
        table = split_table(part).set_index("quantity")
        for i, (name, truth) in enumerate({"rate": rate, "distortion": distortion}.items()):
            covered[i] += table.loc[name, "low"] <= truth <= table.loc[name, "high"]
    assert (covered / 400 > 0.906).all()
    assert (covered / 400 < 0.994).all()


@pytest.mark.parametrize("table", [split_table, terms_table, rate_distortion_curve])
def test_every_step_evaluated_with_certainty_is_the_full_estimator(table):
    full = realistic(6, np.random.default_rng(15), steps=12)
    t = np.tile(np.arange(1, 13), (6, 1))
    part = stratified_like(full, t, full.terms, full.x_0_squared_error, np.ones(12), np.arange(6) / 6, 72)
    pd.testing.assert_frame_equal(table(full), table(part), rtol=1e-9)


# The share of the distortion


def test_the_share_of_the_distortion_is_the_ratio_of_the_means():
    terms = make_terms([[2.0, 0.5, 0.25], [3.0, 0.25, 0.5]], prior=np.array([0.1, 0.3]))
    assert distortion_share(terms).value == pytest.approx(2.5 / 3.45, rel=1e-12)


def test_a_share_that_is_the_same_in_all_images_has_no_interval():
    """Images that differ by a factor have one share, however their bits vary."""
    terms = make_terms(np.array([[2.0, 1.0, 1.0]]) * np.array([[1.0], [3.0], [7.0]]), prior=np.zeros(3))
    share = distortion_share(terms)
    np.testing.assert_allclose(share[:3], 0.5, rtol=1e-6)


def test_the_shares_interval_is_as_wide_as_the_jackknifes():
    """The linearised ratio and the jackknife agree to O(1/n), here 1/200."""
    terms = realistic(200, np.random.default_rng(3))
    values = terms.values()
    distortion, total = values["distortion"], values["total"]
    left_out = (distortion.sum() - distortion) / (total.sum() - total)
    n = len(total)
    error = math.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum())
    share = distortion_share(terms)
    half = stats.t.ppf(0.975, n - 1) * error
    assert (share.high - share.low) / 2 == pytest.approx(half, rel=0.03)
