"""The rate-distortion curve and Table 4 against sums by hand and simulations."""

import math

import numpy as np
import pytest
from simulated_bounds import NATS, T, make_terms, realistic, stratified_like, subsample

from ddpm_eval.reporting.bound_tables import split_table
from ddpm_eval.reporting.rate_distortion_tables import rate_distortion_curve, table4
from experiments.paper import published


def test_table_4_index_map():
    """0-based code index k = T - tau: rate[k] is the sum of the terms above k, as the authors print it."""
    rng = np.random.default_rng(9)
    terms = realistic(20, rng)
    table = table4(terms, published.table_4())
    assert list(table.columns[:6]) == [
        *("reverse_steps", "t", "rate_bits_per_dim", "rmse_255", "paper_rate_bits_per_dim", "paper_rmse_255")
    ]
    assert list(table["reverse_steps"]) == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100]
    for row in table.itertuples():
        k = T - row.reverse_steps
        assert row.t == k + 1
        received = [terms.terms[:, j].mean() / NATS for j in range(k + 1, T)]
        assert abs(row.rate_bits_per_dim - math.fsum(received)) < 1e-12
        mse = np.mean([np.mean(terms.x_0_squared_error[i, k]) for i in range(20)])
        assert abs(row.rmse_255 - math.sqrt(mse) * 255 / 2) < 1e-9
        roots = [math.sqrt(terms.x_0_squared_error[i, k]) * 255 / 2 for i in range(20)]
        assert abs(row.image_rmse_255 - np.mean(roots)) < 1e-9
        assert abs(row.psnr_db - 10 * math.log10(255**2 / row.rmse_255**2)) < 1e-9
        assert row.rmse_255_low < row.rmse_255 < row.rmse_255_high
        assert row.psnr_db_low < row.psnr_db < row.psnr_db_high
    assert list(table["paper_rmse_255"].round(2))[:2] == [0.95, 12.02]


def test_first_row_of_table_4_is_the_splits_rate():
    terms = realistic(10, np.random.default_rng(10))
    split = split_table(terms).set_index("quantity")
    first = table4(terms).iloc[0]
    for ours, theirs in (("", "bits_per_dim"), ("_low", "low"), ("_high", "high")):
        assert abs(first[f"rate_bits_per_dim{ours}"] - split.loc["rate", theirs]) < 1e-12


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (4, [4, 3, 2, 1]),
        (50, list(range(50, 0, -5))),
        (10, list(range(10, 0, -1))),
        (2000, list(range(2000, 0, -200))),
    ],
)
def test_table_4_of_other_chains_has_no_published_values(steps, expected):
    table = table4(make_terms(np.ones((3, steps))), published.table_4())
    assert list(table["reverse_steps"]) == expected
    np.testing.assert_allclose(table["rate_bits_per_dim"], table["reverse_steps"] - 1)
    assert table[["paper_rate_bits_per_dim", "paper_rmse_255"]].isna().all(axis=None)


def test_nothing_is_received_before_the_first_reverse_step():
    curve = rate_distortion_curve(realistic(5, np.random.default_rng(11)))
    assert list(curve["reverse_steps"]) == list(range(1, T + 1))
    assert curve["rate_bits_per_dim"].iloc[0] == 0
    assert (curve["rate_bits_per_dim"].diff().dropna() > 0).all()


def test_perfect_estimates_have_no_distortion():
    curve = rate_distortion_curve(make_terms(np.ones((4, 3)), np.zeros((4, 3))))
    assert (curve["rmse_255"] == 0).all()
    assert np.isposinf(curve["psnr_db"]).all()


def test_stratified_distortion_is_unbiased_where_it_is_measured():
    rng = np.random.default_rng(13)
    full = realistic(40, rng, steps=20)
    exact = full.x_0_squared_error.mean(0)[::-1]
    curves = [rate_distortion_curve(subsample(full, 8, rng)) for _ in range(300)]
    found = np.array([(curve["rmse_255"] / 127.5) ** 2 for curve in curves])
    error = np.nanstd(found, axis=0, ddof=1) / np.sqrt(np.isfinite(found).sum(0))
    assert (np.abs(np.nanmean(found, 0) - exact) <= 4 * error + 1e-12).all()


def test_steps_that_no_image_was_evaluated_at_are_blank_not_zero():
    t, ones = np.array([[1, 0], [1, 2]]), np.ones((2, 2))
    images = make_terms(ones)
    part = stratified_like(images, t, ones, ones, np.array([1.0, 0.5, 0.25]), np.array([0.1, 0.6]), 3)
    curve = rate_distortion_curve(part).set_index("t")
    assert list(curve["n_distortion"].sort_index()) == [2, 1, 0]
    assert math.isnan(curve.loc[3, "rmse_255"])
    assert curve.loc[2, "rmse_255"] == 127.5
    assert math.isnan(curve.loc[2, "rmse_255_low"])  # a single image has no interval
