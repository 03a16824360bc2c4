"""Numbers from features: closed forms, torch-fidelity's functions, coverage on simulated features."""

import numpy as np
import pytest
import torch

from ddpm_eval.metrics import distances as metrics
from ddpm_eval.metrics.distances import PROTOCOLS, Moments
from ddpm_eval.metrics.fidelity import (
    fid_statistics_to_metric,
    isc_features_to_metric,
    prc_features_to_metric,
)
from ddpm_eval.results.fields import Estimate
from ddpm_eval.results.records import FeatureStatistics

PAPER = PROTOCOLS["paper"]


def exact_gaussian(rng, n, mean, covariance):
    """Features with exactly this sample mean and (unbiased) covariance."""
    x = rng.standard_normal((n, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def reference(mean, covariance):
    return FeatureStatistics(np.asarray(mean), np.asarray(covariance), 1000, "", "train", "", "", "none")


def covered(estimates: list[Estimate], truth: float) -> float:
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))


def test_moments_are_those_of_all_rows_whatever_the_batches_and_the_offset():
    # float32 rows are exact in float64; after the shift, errors are n * 2^-53 of the spread, far below 1e-10
    rows = (1e4 + np.random.default_rng(0).standard_normal((500, 7))).astype(np.float32)
    moments = Moments()
    for first, last in ((0, 1), (1, 130), (130, 500)):
        moments.add(rows[first:last])
    np.testing.assert_allclose(moments.mean, rows.astype(np.float64).mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-10)


def test_frechet_distance_has_its_closed_form_for_commuting_covariances():
    # |m - m_r|^2 + sum (sqrt a - sqrt b)^2; 1e-9: float64 eigenvalues of a product with condition below 1e3
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0.1, 3, 6), rng.uniform(0.1, 3, 6)
    mean, other = rng.standard_normal(6), rng.standard_normal(6)
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    features = exact_gaussian(rng, 200, mean, (rotation * a) @ rotation.T)
    estimate = metrics.frechet(features, reference(other, (rotation * b) @ rotation.T))
    expected = ((mean - other) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert estimate.value == pytest.approx(expected, rel=1e-9)
    assert estimate.low < expected < estimate.high


def test_frechet_gradient_is_the_finite_difference_of_torch_fidelitys_distance():
    # central differences with step 1e-5: error of order step^2 and 1e-16 / step, both below 1e-8 for values
    # of order one
    rng = np.random.default_rng(2)
    mean, other = rng.standard_normal((2, 5))
    s, r = (m @ m.T + 0.3 * np.eye(5) for m in rng.standard_normal((2, 5, 5)))

    def distance(m, c):
        return fid_statistics_to_metric({"mu": m, "sigma": c}, {"mu": other, "sigma": r}, False)[
            "frechet_inception_distance"
        ]

    gradient, curvature = metrics.frechet_gradient(mean, s, reference(other, r))
    dm, ds = rng.standard_normal(5), rng.standard_normal((5, 5))
    ds, h = ds + ds.T, 1e-5
    along_mean = (distance(mean + h * dm, s) - distance(mean - h * dm, s)) / (2 * h)
    along_covariance = (distance(mean, s + h * ds) - distance(mean, s - h * ds)) / (2 * h)
    assert gradient @ dm == pytest.approx(along_mean, rel=1e-6)
    assert (curvature * ds).sum() == pytest.approx(along_covariance, rel=1e-6)


@pytest.mark.parametrize(
    ("shift", "scale", "most"),
    [(0.0, 1.0, 1.0), (0.5, 1.0, 0.98), (0.0, 1.4, 0.99)],
    ids=["equal", "other mean", "other covariance"],
)
def test_frechet_interval_covers_the_expected_distance(shift, scale, most):
    # 400 intervals: the standard error of the coverage is 0.011 at 0.95. The interval is exact to first
    # order; near equal distributions it is up to 1.4 times too wide (coverage 0.994). The truth is the mean
    # of the 400 distances, whose error is a twentieth of one's
    rng = np.random.default_rng(3)
    spread = np.linspace(0.5, 1.5, 8)
    target = reference(np.zeros(8), np.diag(spread**2))
    estimates = [
        metrics.frechet(shift + scale * spread * rng.standard_normal((250, 8)), target) for _ in range(400)
    ]
    coverage = covered(estimates, float(np.mean([e.value for e in estimates])))
    assert 0.915 <= coverage <= most


def test_quick_frechet_distance_is_torch_fidelitys():
    # two routes to the eigenvalues of one float64 matrix
    rng = np.random.default_rng(6)
    features = rng.standard_normal((200, 12)) @ rng.standard_normal((12, 12))
    target = reference(rng.standard_normal(12), np.cov(rng.standard_normal((50, 12)), rowvar=False))
    root = metrics._power(target.covariance, 0.5)
    quick = metrics._frechet_distance(metrics.moments_of(features), target, root)
    assert quick == pytest.approx(metrics.frechet(features, target).value, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1.3])
def test_extrapolated_frechet_distance_covers_the_true_one(scale):
    # 150 intervals: standard error of the coverage 0.018 at 0.95; conservative near equal distributions. The
    # distance at n does not cover it, which shows that the extrapolation is needed
    rng = np.random.default_rng(7)
    spread = np.linspace(0.5, 1.5, 16)
    target = reference(np.zeros(16), np.diag(spread**2))
    truth = (scale - 1) ** 2 * (spread**2).sum()
    samples = [scale * spread * rng.standard_normal((400, 16)) for _ in range(150)]
    assert covered([metrics.frechet_infinite(x, target) for x in samples], truth) >= 0.89
    assert covered([metrics.frechet(x, target) for x in samples], truth) <= 0.7


def test_too_few_samples_are_not_extrapolated():
    target = reference(np.zeros(16), np.eye(16))
    few = np.random.default_rng(8).standard_normal((95, 16))
    assert np.isnan(metrics.frechet_infinite(few, target).value)
    assert np.isnan(metrics.frechet(few[:16], target).low) and np.isfinite(
        metrics.frechet(few[:16], target).value
    )


def gaussian(rng, n, shift=0.0, width=8):
    return (shift + rng.standard_normal((n, width))).astype(np.float32)


def polynomial_kernel(a, b):
    return (a.astype(np.float64) @ b.astype(np.float64).T / a.shape[1] + 1) ** 3


def test_kernel_distance_is_the_unbiased_mmd_where_subsets_are_all_images():
    # torch-fidelity computes kernels in float32 (6e-8 relative) and averages 1e5 of them
    rng = np.random.default_rng(9)
    x, y = gaussian(rng, 300, 0.5), gaussian(rng, 300)
    k_xx, k_yy = (
        (k.sum() - np.trace(k)) / (300 * 299) for k in (polynomial_kernel(x, x), polynomial_kernel(y, y))
    )
    estimate, spread = metrics.kernel_distance(x, y, PAPER)
    assert estimate.value == pytest.approx(k_xx + k_yy - 2 * polynomial_kernel(x, y).mean(), rel=1e-5)
    assert spread == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("shift", "most"), [(0.0, 1.0), (0.5, 0.985)])
def test_kernel_distance_interval_covers_its_expectation(shift, most):
    # 300 intervals: standard error of the coverage 0.013; conservative where both are equally distributed
    rng = np.random.default_rng(10)
    target, protocol = gaussian(rng, 400), PAPER.model_copy(update={"kid_subsets": 3})
    estimates = [metrics.kernel_distance(gaussian(rng, 400, shift), target, protocol)[0] for _ in range(300)]
    assert 0.91 <= covered(estimates, float(np.mean([e.value for e in estimates]))) <= most


def test_a_tight_cluster_is_precise_and_recalls_little_and_a_wide_cloud_the_reverse():
    rng = np.random.default_rng(11)
    target = gaussian(rng, 500)
    tight, wide = (
        [e.value for e in metrics.precision_recall(scale * gaussian(rng, 500), target, PAPER)]
        for scale in (0.3, 3.0)
    )
    assert tight[0] > 0.95 and tight[1] < 0.1
    assert wide[0] < 0.3 and wide[1] > 0.8


def test_jackknifed_recalls_are_torch_fidelitys_of_the_kept_samples(monkeypatch):
    # counts, hence exact
    monkeypatch.setattr(metrics, "PAIR_ROWS", 64)
    rng = np.random.default_rng(13)
    ours, theirs = (torch.from_numpy(gaussian(rng, n)) for n in (200, 300))
    kept = [ours[torch.arange(200) % metrics.GROUPS != g] for g in range(metrics.GROUPS)]
    expected = [prc_features_to_metric(rows, theirs, verbose=False)["recall"] for rows in kept]
    np.testing.assert_allclose(metrics._recalls_without_groups(ours, theirs, 3), expected, rtol=1e-6)


@pytest.mark.slow
def test_precision_and_recall_intervals_cover_their_expectations():
    # 100 intervals: standard error of the coverage 0.022; the jackknife is conservative
    rng = np.random.default_rng(12)
    target = gaussian(rng, 300)
    pairs = [metrics.precision_recall(0.9 * gaussian(rng, 200), target, PAPER) for _ in range(100)]
    for estimates in zip(*pairs, strict=True):
        assert covered(list(estimates), float(np.mean([e.value for e in estimates]))) >= 0.89


def test_score_of_certain_classes_is_their_number_and_of_ignorance_one():
    # a logit of 50 leaves 2e-22 of probability; the score is exact to rounding
    logits = np.zeros((200, 5), np.float32)
    assert metrics.score(logits, PAPER)[0].value == pytest.approx(1, rel=1e-12)
    logits[np.arange(200), np.arange(200) % 4] = 50
    estimate, splits = metrics.score(logits, PAPER)
    assert estimate.value == pytest.approx(4, rel=1e-12)
    np.testing.assert_allclose(splits, 4, rtol=1e-12)
    counts, sure = metrics.confidence(logits)
    assert counts.tolist() == [50, 50, 50, 50, 0]
    assert sure.value == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("name", ["paper", "torch-fidelity"])
@pytest.mark.parametrize("n", [205, 256])
def test_score_equals_torch_fidelitys(name, n):
    # both are float64 on the same float32 logits
    protocol = PROTOCOLS[name]
    logits = np.random.default_rng(4).normal(size=(n, 10), scale=3).astype(np.float32)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=protocol.shuffle)
    estimate, splits = metrics.score(logits, protocol)
    assert estimate.value == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert np.std(splits) == pytest.approx(theirs["inception_score_std"], rel=1e-10)


@pytest.mark.parametrize("splits", [1, 10])
def test_score_and_confidence_intervals_cover_their_expectation(splits):
    # 400 intervals: standard error of the coverage 0.011; splits of 50 images cost the first-order error some
    # coverage
    rng = np.random.default_rng(5)
    protocol = PAPER.model_copy(update={"splits": splits})
    scores, sure = [], []
    for _ in range(400):
        logits = rng.normal(size=(500, 10), scale=2).astype(np.float32)
        logits[np.arange(500), rng.integers(0, 10, 500)] += 4
        scores.append(metrics.score(logits, protocol)[0])
        sure.append(metrics.confidence(logits)[1])
    assert 0.90 <= covered(scores, float(np.mean([e.value for e in scores]))) <= 0.985
    assert 0.915 <= covered(sure, float(np.mean([e.value for e in sure]))) <= 0.985


def test_every_estimate_states_its_unit():
    rng = np.random.default_rng(14)
    x, y = gaussian(rng, 200), gaussian(rng, 200)
    target = reference(np.zeros(8), np.eye(8))
    assert (
        metrics.frechet(x, target).unit == metrics.frechet_infinite(x, target).unit == "squared feature units"
    )
    assert metrics.frechet(x[:5], target).unit == metrics.frechet_infinite(x[:5], target).unit
    assert metrics.kernel_distance(x, y, PAPER)[0].unit == "kernel units"
    shares = [*metrics.precision_recall(x, y, PAPER), metrics.score(x, PAPER)[0], metrics.confidence(x)[1]]
    assert [share.unit for share in shares] == ["1"] * 4
