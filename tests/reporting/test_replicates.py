"""Means over trainings with the intervals of Student's t, and Table 2 over trainings."""

import math

import numpy as np
import pandas as pd
import pytest

from ddpm_eval.reporting.replicates import between, over_trainings, replicated_ablation
from ddpm_eval.results.fields import Estimate

T_2 = 4.302652729911275  # Student's 97.5% quantile with two degrees of freedom


def estimates(*values, half=0.5):
    return [Estimate(value, value - half, value + half, "a") for value in values]


def test_the_mean_has_students_interval_over_trainings():
    value, low, high, unit = over_trainings(estimates(1.0, 2.0, 6.0), same_images=False)
    half = T_2 * math.sqrt(7) / math.sqrt(3)  # the sample variance of 1, 2, 6 is 7
    assert (value, unit) == (3.0, "a")
    assert (low, high) == pytest.approx((3 - half, 3 + half))
    assert between(estimates(1.0, 2.0, 6.0)) == pytest.approx(math.sqrt(7))


def test_on_the_same_images_their_part_is_added_in_quadrature():
    found = over_trainings([Estimate(1, 0, 4, "a"), Estimate(2, 1, 5, "a"), Estimate(6, 5, 9, "a")], True)
    square = T_2**2 * 7 / 3
    assert found.value - found.low == pytest.approx(math.sqrt(square + 1))
    assert found.high - found.value == pytest.approx(math.sqrt(square + 9))


def test_the_interval_of_a_distance_is_that_of_its_logarithm():
    found = over_trainings(estimates(1.0, 2.0, 6.0), same_images=False, never_negative=True)
    factor = math.exp(T_2 * math.sqrt(7) / math.sqrt(3) / 3)
    assert found[:3] == pytest.approx((3, 3 / factor, 3 * factor))
    frame = replicated_ablation([table(["ok"], value) for value in (1.0, 2.0, 6.0)])
    assert frame["frechet_distance_low"][0] == pytest.approx(3 / factor)
    assert frame["score_low"][0] < 0


def test_a_single_training_keeps_its_interval():
    (one,) = estimates(3.0)
    assert over_trainings([one], same_images=False) is one
    assert math.isnan(between([one]))


@pytest.mark.parametrize(
    ("values", "expected"), [((math.inf, math.inf), math.inf), ((1.0, math.inf), math.nan)]
)
def test_trainings_that_diverged_have_no_mean_with_others(values, expected):
    found = over_trainings([Estimate(value, value, value, "a") for value in values], same_images=False)
    np.testing.assert_equal(found[:3], (expected,) * 3)


def test_the_interval_covers_the_mean_of_trainings():
    """3,000 simulated sets of three trainings: 95% +- 3 standard errors of 0.4%."""
    rng = np.random.default_rng(0)
    covered = 0
    for values in rng.normal(5.0, 2.0, size=(3000, 3)):
        _, low, high, _ = over_trainings([Estimate(value, value, value, "a") for value in values], False)
        covered += low < 5.0 < high
    assert abs(covered / 3000 - 0.95) < 0.012


def test_the_interval_of_a_distance_covers_its_mean():
    """3,000 simulated sets of three trainings whose distances vary by half of their mean."""
    rng = np.random.default_rng(2)
    spread = math.sqrt(math.log(1 + 0.5**2))
    covered = 0
    for values in np.exp(rng.normal(-(spread**2) / 2, spread, size=(3000, 3))):
        _, low, high, _ = over_trainings(
            [Estimate(value, value, value, "a") for value in values], False, never_negative=True
        )
        covered += 0 < low < 1 < high
    assert covered / 3000 > 0.95 - 0.012


def test_the_interval_covers_images_and_trainings():
    """Each estimate is of the same 50 images: their mean errs by 0.1 / sqrt(50) in every training alike."""
    rng = np.random.default_rng(1)
    half = 1.96 * 0.1 / math.sqrt(50)
    covered = 0
    for _ in range(2000):
        of_images = rng.normal(0, 0.1 / math.sqrt(50))
        values = of_images + rng.normal(0, 0.01, size=3)
        _, low, high, _ = over_trainings(
            [Estimate(value, value - half, value + half, "a") for value in values], True
        )
        covered += low < 0 < high
    assert covered / 2000 > 0.95 - 0.015


def table(status, value):
    """Return a row of Table 2 for each status."""
    rows = {"status": status, "score_std": [0.1] * len(status)}
    for name in ("score", "frechet_distance", "bits_per_dim"):
        of_status = [value if each == "ok" else math.nan for each in status]
        rows |= {name: of_status, f"{name}_low": of_status, f"{name}_high": of_status}
    return pd.DataFrame(rows)


def test_a_cell_says_how_many_of_its_trainings_diverged():
    of_seeds = [
        table(["ok", "ok", "diverged", "ok"], 1.0),
        table(["ok", "diverged", "diverged", "missing"], 3.0),
    ]
    frame = replicated_ablation(of_seeds)
    assert frame["status"].tolist() == ["ok", "diverged in 1 of 2", "diverged", "missing"]
    assert frame["score"].tolist()[0] == 2.0 and frame["score"].isna().tolist() == [False, True, True, True]
    assert frame["score_std_over_trainings"][0] == pytest.approx(math.sqrt(2))
    assert frame["trainings"].tolist() == [2] * 4


def test_one_training_leaves_table_2_as_it_is():
    one = table(["ok"], 1.0)
    pd.testing.assert_frame_equal(replicated_ablation([one]), one)
