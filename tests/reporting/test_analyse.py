"""Estimates, intervals and tables against closed forms, scipy and simulations whose answer is known."""

import json
import math
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ddpm_eval.metrics.timestep_sampling import from_full
from ddpm_eval.reporting import analyse
from ddpm_eval.reporting.intervals import share_interval
from ddpm_eval.results.records import (
    BoundHistory,
    FullBoundTerms,
    Neighbours,
    Quality,
    QualityCurve,
    StratifiedBoundTerms,
    TrainingLog,
    array_fields,
)
from experiments.paper import published

T, DIMENSIONS = 1000, 64
NATS = DIMENSIONS * math.log(2)  # per image in one bit/dim


def protocol(name="exact", variance="trained", draws=1):
    return json.dumps(
        {"name": name, "variance": variance, "clip": name == "paper", "decoder": "exact", "draws": draws}
    )


def make_atoms(terms, error=None, prior=None, *, split="test", **options):
    """Atoms from per-image bits/dim ``[image, t]``."""
    terms = np.asarray(terms, dtype=float)
    error = np.full(terms.shape, 0.01) if error is None else np.asarray(error, dtype=float)
    prior = np.full(len(terms), 1e-5) if prior is None else prior
    return FullBoundTerms(
        np.arange(len(terms)), terms * NATS, error, prior * NATS, split, protocol(**options), DIMENSIONS, 0
    )


def mean_term(steps=T):
    """A shape like a trained model's: 2 bits/dim of decoder, 2 of rate, most of it at small t."""
    t = np.arange(1, steps + 1)
    return np.where(t == 1, 2.0, 1.2 * t**-2.0 + 3e-3 * np.exp(-t / 200))


def realistic(n, rng, steps=T):
    """Terms that vary between images (log-normal, sd 0.25) and within them (log-normal, sd 0.2)."""
    between = rng.lognormal(0, 0.25, size=(n, 1))
    terms = mean_term(steps) * between * rng.lognormal(0, 0.2, size=(n, steps))
    error = (0.02 + np.arange(1, steps + 1) / steps) ** 2 * between * rng.lognormal(0, 0.2, size=(n, steps))
    return make_atoms(terms, error, rng.uniform(5e-6, 1e-5, n))


def subsample(full, evaluations, rng, *, offsets=None):
    """Draw stratified atoms from full ones: systematic sampling in t with inclusion roughly proportional to
    the terms.
    """
    n, steps = full.terms.shape
    size = mean_term(steps)
    inclusion = evaluations * (0.7 * size / size.sum() + 0.3 / steps)
    while (inclusion > 1).any():  # cap at one and let the others share the rest
        inclusion = np.minimum(inclusion, 1)
        free = inclusion < 1
        inclusion[free] *= (evaluations - (~free).sum()) / inclusion[free].sum()
    edges = np.concatenate([[0], np.cumsum(inclusion)])
    offsets = (rng.permutation(n) + rng.random(n)) / n
    hit = np.diff(np.floor(edges[None] - offsets[:, None] + 1), axis=1) > 0
    width = hit.sum(1).max()
    t = np.zeros((n, width), dtype=np.int64)
    for row, chosen in zip(t, hit, strict=True):
        times = np.flatnonzero(chosen) + 1
        row[: len(times)] = times
    column = np.maximum(t - 1, 0)
    terms = np.where(t > 0, np.take_along_axis(full.terms, column, 1), np.nan)  # padding must never be read
    error = np.where(t > 0, np.take_along_axis(full.x_0_squared_error, column, 1), np.nan)
    labels = (full.split, full.protocol, full.dimensions, 0, int(hit.sum()))
    return StratifiedBoundTerms(full.image_id, t, terms, error, full.prior, inclusion, offsets, *labels)


# The split


def test_split_by_hand():
    """Two images, three steps: everything can be added up on paper."""
    atoms = make_atoms([[2.0, 0.5, 0.25], [3.0, 0.25, 0.5]], prior=np.array([0.1, 0.3]))
    table = analyse.split_table(atoms, "fixed-small", {"rate": 1.78, "distortion": 1.97, "total": 3.75})
    assert list(table.columns) == [
        *("quantity", "bits_per_dim", "low", "high", "n_images", "split", "variance", "paper_bits_per_dim")
    ]
    assert list(table["quantity"]) == ["rate", "distortion", "prior", "total"]
    np.testing.assert_allclose(table["bits_per_dim"], [0.75, 2.5, 0.2, 3.45], rtol=1e-12)
    np.testing.assert_array_equal(table["paper_bits_per_dim"], [1.78, 1.97, np.nan, 3.75])
    assert set(table["variance"]) == {"fixed-small"}
    assert set(table["n_images"]) == {2}
    # the total's interval is the t interval of two numbers, 2.85 and 4.05: no skewness with n = 2
    expected = stats.t.interval(0.95, 1, 3.45, stats.sem([2.85, 4.05]))
    np.testing.assert_allclose(table.loc[3, ["low", "high"]].astype(float), expected, rtol=1e-9)


@pytest.mark.parametrize("estimator", ["full", "stratified"])
def test_rate_distortion_and_prior_add_up(estimator):
    rng = np.random.default_rng(7)
    atoms = realistic(50, rng)
    atoms = subsample(atoms, 10, rng) if estimator == "stratified" else atoms
    value = analyse.split_table(atoms, "fixed-large").set_index("quantity")["bits_per_dim"]
    assert abs(value["rate"] + value["distortion"] + value["prior"] - value["total"]) < 1e-12


def test_protocol_variance_is_named_when_it_is_not_the_trained_one():
    atoms = make_atoms(np.ones((3, 2)), variance="fixed-small")
    assert set(analyse.split_table(atoms, "fixed-large")["variance"]) == {"fixed-small"}


@pytest.mark.parametrize("stratified", [False, True])
def test_terms_that_are_not_finite_are_refused(stratified):
    rng = np.random.default_rng(8)
    atoms = realistic(5, rng, steps=20)
    atoms.terms[3, 0] = np.inf
    atoms = subsample(atoms, 4, rng) if stratified else atoms
    with pytest.raises(ValueError, match=r"first for image 3 at t = 1 .*diverge"):
        analyse.split_table(atoms, "fixed-large")


def test_gap_is_test_minus_train():
    train, test = make_atoms(np.full((4, 3), 1.0), split="train"), make_atoms(np.full((6, 3), 1.25))
    table = analyse.gap_table(train, test).set_index("quantity")
    np.testing.assert_allclose(table["gap_bits_per_dim"], [0.5, 0.25, 0.0, 0.75], atol=1e-12)
    np.testing.assert_allclose(table["gap_bits_per_dim_low"], table["gap_bits_per_dim_high"], atol=1e-9)
    assert (table["n_train"].iloc[0], table["n_test"].iloc[0]) == (4, 6)
    with pytest.raises(ValueError, match="different protocols"):
        analyse.gap_table(train, make_atoms(np.ones((6, 3)), name="paper"))


def test_paired_differences_are_far_more_precise_than_the_values():
    """Of 1% of each term, with a part of 1e-3 that varies: the interval is of the differences, whatever the
    images' spread.
    """
    rng = np.random.default_rng(23)
    first = realistic(200, rng, steps=30)
    lower = replace(first, terms=first.terms * (1.01 + 1e-3 * rng.standard_normal((200, 1))))
    table = analyse.paired_table(lower, first, ("bf16", "fp32")).set_index("quantity")
    values = {
        name: analyse.split_table(atoms, "fixed-large").set_index("quantity")
        for name, atoms in {"bf16": lower, "fp32": first}.items()
    }
    for name, split in values.items():
        np.testing.assert_allclose(table[f"{name}_bits_per_dim"], split["bits_per_dim"])
    difference = table["bf16_bits_per_dim"] - table["fp32_bits_per_dim"]
    np.testing.assert_allclose(table["difference"], difference, atol=1e-12)
    total, row = values["fp32"].loc["total"], table.loc["total"]
    assert row["difference_low"] < 0.01 * total["bits_per_dim"] < row["difference_high"]
    assert row["difference_high"] - row["difference_low"] < 0.02 * (total["high"] - total["low"])
    assert table.loc["prior", "difference"] == 0 and set(table["n_images"]) == {200}
    for other in (replace(first, image_id=first.image_id + 1), replace(first, protocol=protocol("paper"))):
        with pytest.raises(ValueError, match="nothing is paired"):
            analyse.paired_table(first, other, ("a", "b"))


def test_halfwidth_is_of_the_total():
    atoms = realistic(30, np.random.default_rng(19), steps=20)
    total = analyse.split_table(atoms, "fixed-large").set_index("quantity").loc["total"]
    assert analyse.halfwidth(atoms) == pytest.approx((total["high"] - total["low"]) / 2)


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
    floor = analyse.variance_floor(beta, beta_tilde)
    assert floor.shape == (T,)
    assert abs(floor.sum() - 0.48642) < 5e-6
    assert abs(floor[:100].sum() - 0.479) < 5e-4
    assert abs(floor[1] - 0.175) < 5e-4
    assert floor[0] == 0


def test_variance_floor_is_zero_for_the_posterior_variance_only():
    _, beta_tilde = linear_schedule()
    np.testing.assert_array_equal(analyse.variance_floor(beta_tilde, beta_tilde), 0)
    assert (analyse.variance_floor(1.1 * beta_tilde, beta_tilde)[1:] > 0).all()
    assert (analyse.variance_floor(0.9 * beta_tilde, beta_tilde)[1:] > 0).all()


def test_variance_floor_is_the_kl_divergence_by_quadrature():
    sigma2, tilde = np.array([np.nan, 1.0, 0.7]), np.array([0.0, 0.0, 0.3])
    x = np.linspace(-8, 8, 20001)
    q, p = stats.norm(0, 0.3**0.5), stats.norm(0, 0.7**0.5)
    expected = np.trapezoid(q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), x) / math.log(2)
    assert abs(analyse.variance_floor(sigma2, tilde)[1] - expected) < 1e-9


# Rate-distortion


def test_table_4_index_map():
    """0-based code index k = T - tau: rate[k] is the sum of the terms above k, as the paper's authors print
    it.
    """
    rng = np.random.default_rng(9)
    atoms = realistic(20, rng)
    table = analyse.table4(atoms, published.table_4())
    assert list(table.columns[:6]) == [
        *("reverse_steps", "t", "rate_bits_per_dim", "rmse_255", "paper_rate_bits_per_dim", "paper_rmse_255")
    ]
    assert list(table["reverse_steps"]) == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100]
    for row in table.itertuples():
        k = T - row.reverse_steps
        assert row.t == k + 1
        terms = [atoms.terms[:, j].mean() / NATS for j in range(k + 1, T)]
        assert abs(row.rate_bits_per_dim - math.fsum(terms)) < 1e-12
        mse = np.mean([np.mean(atoms.x_0_squared_error[i, k]) for i in range(20)])
        assert abs(row.rmse_255 - math.sqrt(mse) * 255 / 2) < 1e-9
        roots = [math.sqrt(atoms.x_0_squared_error[i, k]) * 255 / 2 for i in range(20)]
        assert abs(row.image_rmse_255 - np.mean(roots)) < 1e-9
        assert abs(row.psnr_db - 10 * math.log10(255**2 / row.rmse_255**2)) < 1e-9
        assert row.rmse_255_low < row.rmse_255 < row.rmse_255_high
        assert row.psnr_db_low < row.psnr_db < row.psnr_db_high
    assert list(table["paper_rmse_255"].round(2))[:2] == [0.95, 12.02]


def test_published_numbers_are_consistent():
    """The paper prints the same results in several places: text, Tables 1, 2 and 4, to different
    precision.
    """
    split, first, second = (
        published.SPLIT_BITS_PER_DIM,
        published.table_1().set_index("model"),
        published.table_2(),
    )
    assert split["rate"] + split["distortion"] == pytest.approx(split["total"])
    assert split["total"] == first.loc["DDPM (L_simple)", "nll_test_bits_per_dim"]
    assert round(published.table_4()["rate_bits_per_dim"][0], 2) == split["rate"]
    assert round(published.table_4()["rmse_255"][0], 2) == published.RMSE_255
    for row, model in ((5, "DDPM (L_simple)"), (4, "DDPM (L, fixed isotropic Sigma)")):
        for column in ("inception_score", "inception_score_std", "fid"):
            assert second[column][row] == first.loc[model, column]
    assert (published.table_4()[["rate_bits_per_dim"]].diff().dropna() < 0).all(axis=None)
    assert (published.table_4()[["rmse_255"]].diff().dropna() > 0).all(axis=None)
    for table in (published.table_1(), published.table_2(), published.table_3(), published.table_4()):
        assert table["source"].str.startswith("arXiv:2006.11239").all()


def test_first_row_of_table_4_is_the_splits_rate():
    atoms = realistic(10, np.random.default_rng(10))
    split = analyse.split_table(atoms, "fixed-large").set_index("quantity")
    first = analyse.table4(atoms).iloc[0]
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
    atoms = make_atoms(np.ones((3, steps)))
    table = analyse.table4(atoms, published.table_4())
    assert list(table["reverse_steps"]) == expected
    np.testing.assert_allclose(table["rate_bits_per_dim"], table["reverse_steps"] - 1)
    assert table[["paper_rate_bits_per_dim", "paper_rmse_255"]].isna().all(axis=None)


def test_nothing_is_received_before_the_first_reverse_step():
    curve = analyse.rate_distortion_curve(realistic(5, np.random.default_rng(11)))
    assert list(curve["reverse_steps"]) == list(range(1, T + 1))
    assert curve["rate_bits_per_dim"].iloc[0] == 0
    assert (curve["rate_bits_per_dim"].diff().dropna() > 0).all()


def test_perfect_estimates_have_no_distortion():
    curve = analyse.rate_distortion_curve(make_atoms(np.ones((4, 3)), np.zeros((4, 3))))
    assert (curve["rmse_255"] == 0).all()
    assert np.isposinf(curve["psnr_db"]).all()


# The stratified estimator


def test_stratified_estimates_are_unbiased():
    """300 subsamples of the same images: means lie within four of their own standard errors of the full
    values.
    """
    rng = np.random.default_rng(12)
    full = realistic(40, rng, steps=100)
    chosen = ["bits_per_dim"]
    exact = analyse.split_table(full, "fixed-large")[chosen].to_numpy()[:, 0]
    curve = analyse.rate_distortion_curve(full)[["rate_bits_per_dim"]].to_numpy()[:, 0]
    terms = analyse.terms_table(full)["bits_per_dim"].to_numpy()
    exact = np.concatenate([exact, curve, terms])
    found = []
    for _ in range(300):
        part = subsample(full, 8, rng)
        split = analyse.split_table(part, "fixed-large")["bits_per_dim"]
        rate = analyse.rate_distortion_curve(part)["rate_bits_per_dim"]
        found.append(np.concatenate([split, rate, analyse.terms_table(part)["bits_per_dim"]]))
    error = np.std(found, axis=0, ddof=1) / math.sqrt(len(found))
    # 204 comparisons: the largest of as many normal deviates exceeds 4.5 with probability 0.0014
    assert (np.abs(np.mean(found, 0) - exact) <= 4.5 * error + 1e-12).all()


def test_stratified_distortion_is_unbiased_where_it_is_measured():
    rng = np.random.default_rng(13)
    full = realistic(40, rng, steps=20)
    exact = full.x_0_squared_error.mean(0)[::-1]
    found = np.array(
        [
            (analyse.rate_distortion_curve(subsample(full, 8, rng))["rmse_255"] / 127.5) ** 2
            for _ in range(300)
        ]
    )
    error = np.nanstd(found, axis=0, ddof=1) / np.sqrt(np.isfinite(found).sum(0))
    assert (np.abs(np.nanmean(found, 0) - exact) <= 4 * error + 1e-12).all()


def test_stratified_intervals_cover_the_population():
    """Fresh images and fresh times each time; the truth is the law's mean, exp((0.25^2 + 0.2^2) / 2) times
    the mean term.

    400 sets: coverage's standard error is 0.011; four of them around 0.95 are 0.906 and 0.994. Sets of 100
        images are skewed
    little.
    """
    rng = np.random.default_rng(14)
    factor = math.exp((0.25**2 + 0.2**2) / 2)
    rate, distortion = factor * mean_term(100)[1:].sum(), factor * 2.0
    covered = np.zeros(2)
    for _ in range(400):
        n = 100
        part = subsample(realistic(n, rng, steps=100), 8, rng)
        table = analyse.split_table(part, "fixed-large").set_index("quantity")
        for i, (name, truth) in enumerate({"rate": rate, "distortion": distortion}.items()):
            covered[i] += table.loc[name, "low"] <= truth <= table.loc[name, "high"]
    assert (covered / 400 > 0.906).all()
    assert (covered / 400 < 0.994).all()


def test_every_step_evaluated_with_certainty_is_the_full_estimator():
    rng = np.random.default_rng(15)
    full = realistic(6, rng, steps=12)
    t = np.tile(np.arange(1, 13), (6, 1))
    values = (full.image_id, t, full.terms, full.x_0_squared_error, full.prior, np.ones(12), np.arange(6) / 6)
    part = StratifiedBoundTerms(*values, full.split, full.protocol, full.dimensions, 0, 72)
    for table in (
        analyse.rate_distortion_curve,
        analyse.terms_table,
        lambda a: analyse.split_table(a, "fixed-large"),
    ):
        pd.testing.assert_frame_equal(table(full), table(part), rtol=1e-9)


def test_steps_that_no_image_was_evaluated_at_are_blank_not_zero():
    values = (np.arange(2), np.array([[1, 0], [1, 2]]), np.ones((2, 2)), np.ones((2, 2)), np.ones(2))
    part = StratifiedBoundTerms(
        *values, np.array([1.0, 0.5, 0.25]), np.array([0.1, 0.6]), "test", protocol(), DIMENSIONS, 0, 3
    )
    curve = analyse.rate_distortion_curve(part).set_index("t")
    assert list(curve["n_distortion"].sort_index()) == [2, 1, 0]
    assert math.isnan(curve.loc[3, "rmse_255"])
    assert curve.loc[2, "rmse_255"] == 127.5
    assert math.isnan(curve.loc[2, "rmse_255_low"])  # a single image has no interval


# Comparisons


def test_protocol_table_pairs_images():
    """Ten times the draws or another decoder on the same images: the difference's interval is far narrower
    than the totals'.
    """
    rng = np.random.default_rng(16)
    first = realistic(100, rng, steps=30)
    shifted = replace(first, terms=first.terms * 1.01, protocol=protocol("paper", draws=2))
    others = replace(first, image_id=first.image_id + 1)
    table = analyse.protocol_table([first, shifted, others], "fixed-large", [0.486, 0.486, math.nan])
    assert list(table["protocol"]) == ["exact", "paper", "exact"]
    assert list(table["network_evaluations"]) == [3000, 6000, 3000]
    assert (table["variance"] == "fixed-large").all()
    row = table.iloc[1]
    assert row["difference_bits_per_dim"] == pytest.approx(
        row["total_bits_per_dim"] - table["total_bits_per_dim"][0]
    )
    wide = row["total_bits_per_dim_high"] - row["total_bits_per_dim_low"]
    assert row["difference_bits_per_dim_high"] - row["difference_bits_per_dim_low"] == pytest.approx(
        wide * 0.01 / 1.01, rel=1e-3
    )
    assert math.isnan(table["difference_bits_per_dim"][2])
    np.testing.assert_allclose(
        table["decoder_share"], table["distortion_bits_per_dim"] / table["total_bits_per_dim"]
    )


def test_estimator_table_lists_smaller_full_evaluations():
    rng = np.random.default_rng(17)
    full = realistic(64, rng, steps=50)
    part = subsample(full, 5, rng)
    table = analyse.estimator_table([full, part])
    assert list(table["n_images"]) == [64, 32, 16, 8, 64]
    assert list(table["network_evaluations"]) == [3200, 1600, 800, 400, part.network_evaluations]
    total = (full.terms.sum(1) + full.prior) / NATS
    np.testing.assert_allclose(table["standard_error"][:4], total.std(ddof=1) / np.sqrt([64, 32, 16, 8]))
    assert table["bits_per_dim"][2] == pytest.approx(total[:16].mean())


# The ablation and training


def make_quality(**values):
    base = {f.name: 0.5 for f in fields(Quality)}
    arrays = {"class_counts": np.arange(10), "score_splits": np.ones(10)}
    text = {"features": "digits-classifier", "reference": "train", "n_samples": 512, "n_test": 360}
    return Quality(**{**base, **arrays, **text, **values})


def make_log(status="ok", updates=1000):
    return TrainingLog(np.ones(updates), np.full(updates, 2.0), status, "", updates, updates, 1.0, 10)


def test_table_2_has_all_six_cells_in_the_papers_order():
    atoms = make_atoms([[1.0, 2.0], [2.0, 2.0], [3.0, 2.0]], prior=np.zeros(3))
    cells = [
        analyse.Cell("eps", "mse", "fixed-large", make_log(), make_quality(frechet_distance=5.5), atoms),
        analyse.Cell("mu", "mse", "fixed-small", make_log("diverged")),
        analyse.Cell("eps", "vlb", "learned-range", make_log(), None, atoms),
    ]
    table = analyse.table2(cells, published.table_2())
    contract = (
        "prediction objective variance status score score_std frechet_distance frechet_distance_low frechet_distance_high "
        "bits_per_dim bits_per_dim_low bits_per_dim_high n_samples features paper_inception_score paper_fid"
    )
    assert list(table.columns) == contract.split()
    keys = [tuple(row) for row in table[["prediction", "objective", "variance"]].to_numpy()]
    assert keys == [
        tuple(row) for row in published.table_2()[["prediction", "objective", "variance"]].to_numpy()
    ]
    assert list(table["status"]) == ["missing", "missing", "diverged", "missing", "missing", "ok"]
    assert table["frechet_distance"].notna().tolist() == [False] * 5 + [True]
    assert table["bits_per_dim"].tolist()[3:] == pytest.approx([4.0, math.nan, 4.0], nan_ok=True)
    assert table["paper_fid"].tolist() == pytest.approx(
        [23.69, 13.22, math.nan, math.nan, 13.51, 3.17], nan_ok=True
    )
    with pytest.raises(ValueError, match="distinct"):
        analyse.table2([cells[0], cells[0]], published.table_2())
    with pytest.raises(ValueError, match="among"):
        analyse.table2([analyse.Cell("x0", "mse", "fixed-large")], published.table_2())


def test_quality_table_leaves_out_what_was_not_asked_for():
    table = analyse.quality_table(
        {"a": make_quality(kid=math.nan), "b": make_quality(score=9.0, score_low=8.5)}
    )
    assert "kid" not in set(table.loc[table["run"] == "a", "metric"])
    row = table[(table["run"] == "b") & (table["metric"] == "score")].iloc[0]
    assert (row["value"], row["low"], row["n"], row["features"]) == (9.0, 8.5, 512, "digits-classifier")
    assert set(table.loc[table["metric"] == "reference_distance", "n"]) == {360}
    accuracy = table[table["metric"] == "classifier_test_accuracy"].iloc[0]
    assert (accuracy["low"], accuracy["high"]) == share_interval(0.5, 360)


def make_curve(axis, positions, method="ancestral"):
    columns = ["frechet_distance", "score"]
    numbers = {
        f"{name}{end}": np.array(positions) + k
        for name in columns
        for k, end in enumerate(("", "_low", "_high"))
    }
    seconds = np.array(positions) / 1000
    return QualityCurve(np.array(positions), seconds, **numbers, axis=axis, method=method, **CURVE)


CURVE = {"n_samples": 70, "features": "digits-classifier", "weights_digest": "", "caption": ""}


def test_quality_over_time_counts_reverse_steps_as_table_4_does():
    table = analyse.quality_over_time(make_curve("t", [1000, 901, 1]), 1000)
    assert table["reverse_steps"].tolist() == [1, 100, 1000] and table["t"].tolist() == [1000, 901, 1]
    assert table["score_high"].tolist() == [1002, 903, 3] and set(table["n_samples"]) == {70}


def test_quality_over_steps_lists_each_method():
    table = analyse.quality_over_steps([make_curve("steps", [10, 1000]), make_curve("steps", [20], "ddim")])
    assert list(zip(table["method"], table["steps"], strict=True)) == [
        ("ancestral", 10),
        ("ancestral", 1000),
        ("ddim", 20),
    ]
    assert table["seconds_per_image"].tolist() == [0.01, 1.0, 0.02]
    assert table["frechet_distance_low"].tolist() == [11, 1001, 21]


def test_memorisation_table_pairs_each_space_with_its_distances():
    values = {f.name: float(k) for k, f in enumerate(fields(Neighbours))}
    distances = {"pixel_distance": [[3.0, 9.0], [5.0, 9.0]], "feature_distance": [[1.0, 2.0], [1.5, 2.0]]}
    arrays = {f.name: np.zeros([2] * len(f.metadata["dims"])) for f in array_fields(Neighbours)}
    arrays |= {name: np.array(value) for name, value in distances.items()} | {
        "held_out_pixel_distance": np.array([7.0, 9.0])
    }
    found = Neighbours(**{**values, **arrays})
    table = analyse.memorisation_table(found).set_index("space")
    assert table.loc["pixel", ["median_distance", "median_held_out_distance"]].tolist() == [4.0, 8.0]
    assert table.loc["feature", "median_distance"] == 1.25
    for space in ("pixel", "feature"):
        for end in ("", "_low", "_high"):
            assert table.loc[space, f"memorisation{end}"] == values[f"{space}_memorisation{end}"]


def test_table_1_says_of_each_row_what_it_was_measured_with():
    ours = {
        "model": "ours",
        "data": "digits",
        "conditional": False,
        "features": "digits-classifier",
        "score": 6.0,
    }
    table = analyse.table1(
        [ours | {"test_bits_per_dim": 4.8, "is_bound": True}], published.table_1()
    ).set_index("model")
    assert len(table) == 1 + len(published.table_1())
    assert table.loc["ours", ["data", "features", "score", "test_bits_per_dim"]].tolist() == [
        "digits",
        "digits-classifier",
        6,
        4.8,
    ]
    paper = table.loc["DDPM (L_simple)"]
    assert paper[["data", "features", "score", "frechet_distance"]].tolist() == [
        "CIFAR-10",
        "Inception",
        9.46,
        3.17,
    ]
    assert paper[["test_bits_per_dim", "train_bits_per_dim", "is_bound"]].tolist() == [3.75, 3.72, True]
    assert table.loc["BigGAN", "is_bound"] is None  # of no number


@pytest.mark.parametrize("updates", [1, 299, 300, 301, 1000])
def test_training_curve_keeps_every_update(updates):
    log = replace(make_log(updates=updates), loss=np.arange(updates, dtype=float))
    curve = analyse.training_curve(log, points=300)
    assert len(curve) <= 300
    assert curve["updates"].sum() == updates
    assert curve["update"].iloc[-1] == updates
    assert (curve["loss"] * curve["updates"]).sum() == pytest.approx(updates * (updates - 1) / 2)


def test_training_curve_shows_divergence():
    log = make_log("diverged", 10)
    log.loss[-1] = np.nan
    assert math.isnan(analyse.training_curve(log, points=5)["loss"].iloc[-1])
    assert np.isfinite(analyse.training_curve(log, points=5)["loss"].iloc[:-1]).all()


def test_a_history_lists_each_moments_means_as_the_split_of_its_atoms_does():
    """The total is rate, distortion and the prior, which is in neither."""
    rng = np.random.default_rng(0)
    full = [make_atoms(rng.gamma(2, 1e-3, (60, T)), prior=np.full(60, 0.25)) for _ in range(2)]
    moments = [from_full(atoms, 8, seed=3) for atoms in full]
    values = [analyse.bound_values(atoms) for atoms in moments]
    arrays = {name: np.stack([value[name] for value in values]) for name in ("total", "rate", "distortion")}
    facts = {"split": "test", "protocol": protocol(), "evaluations_per_image": 8, "inexact_left_out": 0}
    history = BoundHistory(np.array([10, 20]), np.arange(60), moments[0].offset, **arrays, **facts)
    table = analyse.history_table(history)
    assert list(table["update"]) == [10, 20] and list(table["n_images"]) == [60, 60]
    for row, atoms in zip(table.itertuples(), moments, strict=True):
        split = analyse.split_table(atoms, "fixed-large").set_index("quantity")
        for name, quantity in {"bits_per_dim": "total", "rate": "rate", "distortion": "distortion"}.items():
            found = [getattr(row, f"{name}{end}") for end in ("", "_low", "_high")]
            np.testing.assert_allclose(
                found, split.loc[quantity, ["bits_per_dim", "low", "high"]].to_numpy(float)
            )


def test_pixel_table_holds_every_pixel():
    images = np.arange(2 * 1 * 2 * 3, dtype=np.uint8).reshape(2, 1, 2, 3)
    table = analyse.pixel_table({"samples": images, "real": images[:1]})
    assert list(table["panel"]) == ["samples", "samples", "real"]
    assert table.loc[1, "0_1_2"] == images[1, 0, 1, 2]
