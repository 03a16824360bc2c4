"""The quantities of claims against what is known of constructed results, and each verdict both ways."""

import math
from dataclasses import replace

import numpy as np
import pytest
from quality_examples import make_curve, make_quality
from simulated_bounds import make_terms, realistic, subsample
from stored_results import make_log, make_neighbours, store_results
from tiny import TINY, tiny

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results.bound_terms import bound_name
from ddpm_eval.results.fields import Estimate
from ddpm_eval.results.records import (
    QUALITY_OF_OTHER_VARIANCE,
    QUALITY_OVER_STEPS,
    QUALITY_OVER_TIME,
)
from experiments.paper import evidence
from experiments.paper.claims import CLAIMS, check
from experiments.paper.evidence import EPS_L, EPS_MSE, MU_L, MU_L_LEARNED
from experiments.paper.presets import TABLE_2
from experiments.study import StudyOptions, replicated, resolve_preset, resolve_run

PAPER = PROTOCOLS["paper"]
LEARNED_EPS = TABLE_2[3]


@pytest.fixture
def study(tmp_path):
    return resolve_preset("digits", runs=tmp_path / "runs", options=StudyOptions(tmp_path / "reports"))


def put(study, cell, quality=None, bound=None, **log):
    """Store a cell's training and, where given, its distance and its bound under protocol paper."""
    results = {"training": make_log(**log)}
    if quality is not None:
        results["quality"] = make_quality(frechet_distance=quality)
    if bound is not None:
        results[bound_name("test", PAPER, bound.estimator)] = bound
    store_results(study.runs[TABLE_2.index(cell)], results)


def put_distances(study, **distances):
    """Store the distances of all cells, each with an interval of one to both sides; 20 where not given."""
    names = dict(
        zip(("mu_l_learned", "mu_l", "mu_mse", "eps_l_learned", "eps_l", "eps_mse"), TABLE_2, strict=True)
    )
    for name, cell in names.items():
        value = distances.get(name, 20.0)
        put(study, cell, (value, value - 1, value + 1))


def checked(study, words):
    """Check the one claim whose sentence contains words."""
    (claim,) = [claim for claim in CLAIMS if words in claim.sentence]
    return check(claim, study)


def verdict_of(study, words):
    return checked(study, words).verdict


# Samples


@pytest.mark.parametrize(
    ("words", "holds", "open_", "fails"),
    [
        ("gives the best samples", {"eps_mse": 3}, {"eps_mse": 19.5}, {"eps_mse": 30}),
        ("predicting eps is about as good", {}, {"eps_l": 22}, {"eps_l": 40}),
        ("predicting eps is much better", {"eps_mse": 3}, {"eps_mse": 19.5}, {"eps_mse": 30}),
        ("works well only when trained on L", {"mu_l": 9}, {"mu_l": 19.5}, {"mu_l": 30}),
        ("Learning the reverse variance", {"mu_l_learned": 40}, {"mu_l_learned": 20.5}, {"mu_l": 30}),
        ("with a learned variance is unstable", {"eps_l_learned": 40}, {}, {"eps_l_learned": 5}),
    ],
)
def test_claims_about_samples_come_out_each_way(words, holds, open_, fails, tmp_path):
    found = []
    for k, distances in enumerate((holds, open_, fails)):
        study = resolve_preset("digits", runs=tmp_path / str(k))
        put_distances(study, **{"mu_l": 20.0, **distances})
        found.append(verdict_of(study, words))
    if words == "predicting eps is about as good":
        found[0] = "holds"  # see the test of ratios: intervals of 5% are too wide for a tenth
    assert found == ["holds", "undecided", "does not hold"]


def test_the_nearest_competitor_decides_and_its_interval_is_shown(study):
    put_distances(study, eps_mse=3.0, eps_l=8.0)
    found = checked(study, "gives the best samples")
    assert found.verdict == "holds"
    # 8 in [7, 9] over 3 in [2, 4], by the distances of their logarithms
    below = math.hypot(math.log(8 / 7), math.log(4 / 3))
    above = math.hypot(math.log(9 / 8), math.log(3 / 2))
    assert found.ours[:3] == pytest.approx((8 / 3, 8 / 3 * math.exp(-below), 8 / 3 * math.exp(above)))
    assert found.condition == (
        "ratio of the Frechet distances, n = 512 samples each (digits-classifier); digits, 30 updates; "
        "1 training"
    )


def test_a_missing_cell_leaves_open_what_it_might_refute(study):
    put_distances(study, eps_mse=3.0)
    store_results(study.runs[TABLE_2.index(MU_L)], {"training": make_log()}, "other weights")
    found = checked(study, "gives the best samples")
    assert found.verdict == "undecided"
    assert found.condition.endswith("not measured: mu, L, fixed")
    put(study, EPS_L, (1.0, 0.5, 1.5))
    assert verdict_of(study, "gives the best samples") == "does not hold"  # whatever the missing one is


def test_a_cell_that_diverged_is_worse_than_any(study):
    put_distances(study, eps_mse=3.0)
    put(study, LEARNED_EPS, status="diverged", reason="loss is nan")
    found = checked(study, "with a learned variance is unstable")
    assert (found.verdict, found.ours.low) == ("holds", math.inf)
    put(study, EPS_MSE, status="diverged", reason="loss is nan")
    assert verdict_of(study, "gives the best samples") == "does not hold"
    assert verdict_of(study, "with a learned variance is unstable") == "undecided"  # two that diverged


def test_a_ratio_is_within_a_tenth_only_if_both_distances_are_precise(study):
    put(study, EPS_L, (13.51, 13.41, 13.61))
    put(study, MU_L, (13.22, 13.12, 13.32))
    found = checked(study, "predicting eps is about as good")
    assert (found.verdict, round(found.ours.value, 2)) == ("holds", 1.02)
    ratio = evidence.independent_ratio(Estimate(8.0, 4.0, 16.0, ""), Estimate(2.0, 2.0, 2.0, ""))
    assert ratio[:3] == pytest.approx((4.0, 2.0, 8.0))


def test_differences_have_the_intervals_of_independent_estimates():
    """With symmetric intervals MOVER is the usual root of the sum of squares."""
    found = evidence.independent_difference(Estimate(5.0, 2.0, 8.0, "a"), Estimate(1.0, -3.0, 5.0, "a"))
    assert found == (4.0, -1.0, 9.0, "a")
    skewed = evidence.independent_difference(Estimate(5.0, 4.0, 8.0, "a"), Estimate(1.0, 1.0, 1.0, "a"))
    assert skewed[:3] == (4.0, 3.0, 7.0)


@pytest.mark.parametrize(
    ("distance", "expected"), [(10.2, "holds"), (11.0, "undecided"), (14.0, "does not hold")]
)
def test_the_two_fixed_variances_are_compared_with_equally_many_samples(tmp_path, distance, expected):
    study = resolve_run(tmp_path, TINY)
    curve = make_curve("steps", [10, 20])
    curve = replace(curve, frechet_distance=np.array([[50.0, 49.0, 51.0], [10.0, 9.7, 10.3]]))
    other = make_quality(
        n_samples=curve.n_samples, frechet_distance=(distance, distance - 0.3, distance + 0.3)
    )
    name = QUALITY_OVER_STEPS["ancestral"]
    store_results(study.main, {"training": make_log(), name: curve, QUALITY_OF_OTHER_VARIANCE: other})
    found = checked(study, "give similar samples")
    assert (found.verdict, found.ours.value) == (expected, pytest.approx(distance / 10))
    assert "the other fixed variance over fixed-large, n = 70 samples each" in found.condition
    more = replace(curve, n_samples=71)
    store_results(study.main, {name: more}, created="9999")
    assert verdict_of(study, "give similar samples") == "undecided"  # distances fall with n


def test_quality_over_the_reverse_process_is_compared_at_its_middle_and_its_end(tmp_path):
    for k, (values, expected) in enumerate([([9, 9, 2], "holds"), ([9, 2, 9], "does not hold")]):
        study = resolve_run(tmp_path / str(k), TINY)
        curve = make_curve("t", [20, 10, 1])
        distance = np.array(values)[:, None] + np.array([0, -0.5, 0.5])
        curve = replace(curve, frechet_distance=distance)
        store_results(study.main, {"training": make_log(), QUALITY_OVER_TIME: curve})
        found = checked(study, "improves over the reverse process")
        assert found.verdict == expected
        assert found.condition.startswith("Frechet distance of x0_hat at t = 10 minus that at t = 1, n = 70")


@pytest.mark.parametrize(
    ("pixels", "features", "expected"),
    [
        ((0.4, 0.3, 0.45), (0.3, 0.2, 0.4), "holds"),
        ((0.4, 0.3, 0.45), (0.5, 0.4, 0.6), "undecided"),
        ((0.9, 0.8, 0.95), (0.3, 0.2, 0.4), "does not hold"),
    ],
)
def test_copies_in_pixels_or_in_features_are_copies(study, pixels, features, expected):
    found = make_neighbours()
    changed = {"pixel_memorisation": Estimate(*pixels, "1"), "feature_memorisation": Estimate(*features, "1")}
    neighbours = replace(found, **changed)
    store_results(study.main, {"training": make_log(), "neighbours": neighbours})
    assert verdict_of(study, "no copies") == expected


def test_only_fid_of_cifar10_is_compared_with_the_literature(tmp_path, study):
    words = "unconditional models in the literature"
    put(study, EPS_MSE, (1.0, 0.5, 1.5))
    assert checked(study, words).condition == "needs FID of CIFAR-10 samples; this report is of digits"
    for value, expected in ((3.17, "holds"), (3.3, "undecided"), (9.0, "does not hold")):
        paper = resolve_run(tmp_path / str(value), tiny(data__name="cifar10", data__channels=3))
        quality = make_quality(
            features="inception-v3-compat", frechet_distance=(value, value - 0.08, value + 0.08)
        )
        store_results(paper.main, {"training": make_log(), "quality": quality})
        assert verdict_of(paper, words) == expected


# The bound


def test_codelengths_are_compared_in_pairs(tmp_path):
    """The images differ by far more than the two models, whose order is certain all the same."""
    full = realistic(40, np.random.default_rng(0), steps=20)
    factors = np.random.default_rng(1).uniform(0.98, 1.0, full.terms.shape)
    lower = replace(full, terms=full.terms * factors)
    similar = replace(full, terms=full.terms * (factors + 0.01))
    for k, (of_l, of_simple, expected) in enumerate(
        [(lower, full, "holds"), (similar, full, "undecided"), (full, lower, "does not hold")]
    ):
        study = resolve_preset("digits", runs=tmp_path / str(k))
        put(study, EPS_L, bound=of_l)
        put(study, EPS_MSE, bound=of_simple)
        found = checked(study, "gives better codelengths")
        assert found.verdict == expected
        assert found.ours.value == pytest.approx(
            (of_l.values()["total"] - of_simple.values()["total"]).mean()
        )
        assert (
            "bits/dim of eps, L, fixed minus eps, MSE, fixed, paired over 40 test images" in found.condition
        )


def test_stratified_and_full_bounds_of_the_same_images_are_paired():
    rng = np.random.default_rng(2)
    full = realistic(200, rng, steps=50)
    offset = (rng.permutation(200) + rng.random(200)) / 200
    a, b = (subsample(full, 6, rng, offset=offset) for _ in range(2))
    assert evidence.paired_difference(a, b)[:3] == (0, 0, 0)  # the same design of the same terms
    for first, second in ((a, full), (full, a)):
        _, low, high, unit = evidence.paired_difference(first, second)
        assert low < 0 < high and unit == "bits/dim"
        assert high - low < 0.2


def test_bounds_of_other_images_are_not_compared(study):
    full = realistic(12, np.random.default_rng(0), steps=20)
    put(study, EPS_L, bound=full)
    put(study, EPS_MSE, bound=replace(full, image_id=full.image_id + 1))
    found = checked(study, "gives better codelengths")
    assert (found.verdict, found.condition) == ("undecided", "the two cells' bounds are of different images")


def bound_study(folder, terms, train=None):
    """Return the study of a run with a bound of test images and maybe of training images."""
    study = resolve_run(folder, TINY)
    results = {"training": make_log(), bound_name("test", PAPER): terms}
    if train is not None:
        results[bound_name("train", PAPER)] = train
    store_results(study.main, results)
    return study


def spread(columns, n=30, noise=1e-3, **choices):
    """Return terms with given means, ``[t]``, that vary a little between images."""
    rng = np.random.default_rng(3)
    return make_terms(
        np.array(columns) + noise * rng.normal(size=(n, len(columns))), protocol=PAPER, **choices
    )


@pytest.mark.parametrize(
    ("distortion", "noise", "expected"),
    [(2.0, 1e-3, "holds"), (1.0, 1e-3, "undecided"), (0.5, 1e-3, "does not hold"), (1.1, 1.0, "undecided")],
)
def test_more_than_half_of_the_bits_are_distortion(tmp_path, distortion, noise, expected):
    study = bound_study(tmp_path, spread([distortion, 0.5, 0.5], noise=noise))
    found = checked(study, "More than half of the lossless codelength")
    assert found.verdict == expected
    assert found.ours.value == pytest.approx(distortion / (distortion + 1), abs=0.3 if noise == 1 else 1e-3)


@pytest.mark.parametrize(
    ("gap", "noise", "expected"),
    [(0.01, 1e-3, "holds"), (0.03, 1e-2, "undecided"), (0.1, 1e-3, "does not hold")],
)
def test_test_and_training_images_differ_by_little(tmp_path, gap, noise, expected):
    test = spread([2.0 + gap, 1.0], noise=noise)
    train = spread([2.0, 1.0], n=20, noise=noise, split="train")
    study = bound_study(tmp_path, test, train)
    assert verdict_of(study, "Test and training images") == expected


@pytest.mark.parametrize(("late", "expected"), [(0.9, "holds"), (0.4, "does not hold")])
def test_most_of_the_rate_is_spent_at_the_end(tmp_path, late, expected):
    """Of 20 steps the last tenth is t = 1 and 2, and the term at t = 1 is the distortion."""
    terms = [5.0, late, *[(1 - late) / 18] * 18]
    found = checked(bound_study(tmp_path, spread(terms)), "Most of the rate")
    assert found.verdict == expected
    assert found.ours.value == pytest.approx(late, abs=2e-3)
    assert found.condition.startswith("share of the rate at t <= 2, 30 test images; digits")


@pytest.mark.parametrize(("levels", "expected"), [(0.95, "holds"), (1.3, "does not hold")])
def test_the_last_error_is_below_one_level(tmp_path, levels, expected):
    error = np.full((30, 20), (levels / 127.5) ** 2) * np.random.default_rng(0).uniform(0.99, 1.01, (30, 20))
    terms = spread([1.0] * 20, error=error)
    found = checked(bound_study(tmp_path, terms), "less than one of 255 levels")
    assert (found.verdict, round(found.ours.value, 2)) == (expected, levels)


@pytest.mark.parametrize(("prior", "expected"), [(1e-5, "holds"), (1e-2, "does not hold")])
def test_the_prior_term_is_small(tmp_path, prior, expected):
    terms = spread([1.0] * 20, prior=np.full(30, prior))
    assert verdict_of(bound_study(tmp_path, terms), "prior term") == expected


# What is said of training


def test_clipping_is_said_where_most_updates_were_clipped(study):
    norms = np.array([31.0] * 29 + [0.5])
    put(study, MU_L_LEARNED, (9.0, 8.0, 10.0), gradient_norm=norms)
    put(study, MU_L, (3.0, 2.0, 4.0), gradient_norm=np.array([0.5] * 20 + [3.0] * 10))
    assert evidence.clipped_share(study.runs[0]) == (pytest.approx(29 / 30), 31.0)
    condition = checked(study, "Learning the reverse variance").condition
    assert condition.endswith(
        "30 updates; gradients were clipped of mu, L, learned (97% of the updates, median norm 31); "
        "1 training"
    )
    assert all(math.isnan(value) for value in evidence.clipped_share(study.main))


# Several trainings


@pytest.fixture
def three(tmp_path):
    """The digits' study with three seeds."""
    return replicated(lambda seed: resolve_preset("digits", seed=seed, runs=tmp_path / "runs"), 0, 3)


def test_distances_are_compared_over_trainings(three):
    """Ratios of e, e^2 and e^3, whose own intervals no longer matter: logarithms 2 +- 4.303 / sqrt(3)."""
    for one, log_ratio in zip(three.seeds, (1, 2, 3), strict=True):
        put_distances(one, eps_mse=20 / math.exp(log_ratio))
    found = checked(three, "gives the best samples")
    half = 4.302653 / math.sqrt(3)
    assert found.ours[:3] == pytest.approx((math.exp(2), math.exp(2 - half), math.exp(2 + half)))
    assert found.condition.endswith("digits, 30 updates; 3 trainings")


def test_an_interval_of_ratios_may_exceed_all_numbers(three):
    for one, best in zip(three.seeds[:2], (1e-60, 1e60), strict=True):
        put_distances(one, eps_mse=best)
    found = checked(three, "gives the best samples")
    assert (found.ours.low, found.ours.high, found.verdict) == (0.0, math.inf, "undecided")


def test_cells_that_both_diverged_in_every_training_cannot_be_compared(three):
    for one in three.seeds:
        put_distances(one, eps_mse=3.0)
        for cell in (LEARNED_EPS, EPS_MSE):
            put(one, cell, status="diverged", reason="loss is nan")
    assert verdict_of(three, "with a learned variance is unstable") == "undecided"


def test_a_training_that_is_not_measured_yet_does_not_count(three):
    for one, best in zip(three.seeds[:2], (2.0, 8.0), strict=True):
        put_distances(one, eps_mse=best)
    found = checked(three, "gives the best samples")
    assert found.ours.value == pytest.approx(20 / 4) and found.condition.endswith("2 trainings")


def test_a_claim_stays_open_where_some_trainings_diverged(three):
    for one in three.seeds:
        put_distances(one, eps_mse=3.0)
    put(three.seeds[1], LEARNED_EPS, status="diverged", reason="loss is nan")
    found = checked(three, "with a learned variance is unstable")
    assert found.verdict == "undecided"
    assert found.condition.endswith("3 trainings; some trainings diverged and others did not")
    for one in three.seeds:
        put(one, LEARNED_EPS, status="diverged", reason="loss is nan")
    assert verdict_of(three, "with a learned variance is unstable") == "holds"


def test_codelengths_over_trainings_keep_the_interval_over_images(three):
    """The images, which are the same for every training, differ although the trainings agree."""
    full = realistic(40, np.random.default_rng(0), steps=20)
    lower = replace(full, terms=full.terms * np.random.default_rng(1).uniform(0.9, 1.0, full.terms.shape))
    for one in three.seeds:
        put(one, EPS_L, bound=lower)
        put(one, EPS_MSE, bound=full)
    alone, joined = (checked(study, "gives better codelengths") for study in (three.seeds[1], three))
    assert joined.ours[:3] == pytest.approx(alone.ours[:3])
    assert joined.condition.endswith("3 trainings")


def test_what_is_measured_of_one_training_says_so(three):
    store_results(three.main, {"training": make_log(), "neighbours": make_neighbours()})
    found = checked(three, "no copies")
    assert (found.ours.value, found.condition.endswith("; 1 training")) == (0.3, True)


def test_test_images_from_other_places_are_not_compared_with_training_images(tmp_path):
    study = resolve_preset("photos", runs=tmp_path)
    terms = spread([1.0] * 20)
    store_results(study.main, {"training": make_log(), bound_name("test", PAPER): terms})
    found = checked(study, "Test and training images")
    assert found.verdict == "undecided"
    assert found.condition == "test images of photos lie elsewhere in the photographs than training images"
