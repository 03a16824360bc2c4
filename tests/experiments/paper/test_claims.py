"""Verdicts come from intervals alone: each claim can hold, fail and stay open, and says why it stays open."""

import math

import pytest
from tiny import TINY

from ddpm_eval.results.fields import Estimate
from experiments.paper.claims import (
    ABOUT_EQUAL,
    ABOVE_ZERO,
    BELOW_ZERO,
    CLAIMS,
    Claim,
    check,
    check_claims,
    least_favourable,
    verdict,
)
from experiments.paper.evidence import Evidence
from experiments.study import replicated, resolve_preset, resolve_run

INF, NAN = math.inf, math.nan
AT_MOST = (-INF, 0.03)


def estimate(low, high):
    return Estimate((low + high) / 2, low, high, "1")


@pytest.mark.parametrize(
    ("limits", "low", "high", "expected"),
    [
        (ABOVE_ZERO, 0.1, 0.3, "holds"),
        (ABOVE_ZERO, -0.1, 0.3, "undecided"),
        (ABOVE_ZERO, 0.0, 0.3, "undecided"),
        (ABOVE_ZERO, -0.3, -0.1, "does not hold"),
        (ABOVE_ZERO, INF, INF, "holds"),
        (ABOVE_ZERO, -INF, -INF, "does not hold"),
        (ABOVE_ZERO, NAN, NAN, "undecided"),
        (BELOW_ZERO, -0.3, -0.1, "holds"),
        (BELOW_ZERO, -0.3, 0.1, "undecided"),
        (BELOW_ZERO, 0.1, 0.3, "does not hold"),
        (ABOUT_EQUAL, 0.95, 1.05, "holds"),
        (ABOUT_EQUAL, 0.95, 1.2, "undecided"),
        (ABOUT_EQUAL, 0.5, 2.0, "undecided"),
        (ABOUT_EQUAL, 1.2, 1.4, "does not hold"),
        (ABOUT_EQUAL, 0.5, 0.6, "does not hold"),
        (AT_MOST, -0.2, 0.02, "holds"),
        (AT_MOST, 0.01, 0.04, "undecided"),
        (AT_MOST, 0.04, 0.06, "does not hold"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(limits, low, high, expected):
    assert verdict(Estimate(0.0, low, high, "1"), limits) == expected


def test_of_several_quantities_the_least_favourable_decides():
    good, better, open_, bad = estimate(1, 2), estimate(3, 4), estimate(-1, 5), estimate(-4, -3)
    assert least_favourable((better, good), ABOVE_ZERO) is good
    assert least_favourable((better, open_, good), ABOVE_ZERO) is open_
    assert least_favourable((open_, bad, good), ABOVE_ZERO) is bad


def claim_of(*estimates, missing=""):
    return Claim("sentence", "place", "paper", lambda study: Evidence(estimates, "condition", missing))


@pytest.mark.parametrize(
    ("estimates", "missing", "expected", "condition"),
    [
        ([estimate(1, 2)], "", "holds", "condition; 1 training"),
        ([estimate(1, 2), estimate(-1, 1)], "", "undecided", "condition; 1 training"),
        ([estimate(1, 2), estimate(-2, -1)], "", "does not hold", "condition; 1 training"),
        ([estimate(1, 2)], "not measured: a", "undecided", "condition; 1 training; not measured: a"),
        ([estimate(-2, -1)], "not measured: a", "does not hold", "condition; 1 training; not measured: a"),
        ([], "not measured: a", "undecided", "not measured: a"),
    ],
)
def test_what_was_not_measured_cannot_confirm_a_claim(estimates, missing, expected, condition, tmp_path):
    found = check(claim_of(*estimates, missing=missing), resolve_run(tmp_path, TINY))
    assert (found.verdict, found.condition) == (expected, condition)
    assert found.ours.known == bool(estimates)


def test_a_claim_is_judged_by_all_trainings(tmp_path):
    """Each training alone would decide; with three the interval is over trainings: 2 +- 4.303 / sqrt(3)."""
    of_seeds = {seed: Estimate(value, value - 0.1, value + 0.1, "1") for seed, value in enumerate((1, 2, 3))}
    claim = Claim(
        "sentence", "place", "paper", lambda study: Evidence((of_seeds[study.main.spec.seed],), "condition")
    )
    study = replicated(lambda seed: resolve_preset("digits", seed=seed, runs=tmp_path), 0, 3)
    assert check(claim, resolve_preset("digits", runs=tmp_path)).verdict == "holds"
    found = check(claim, study)
    half = 4.302653 / math.sqrt(3)
    assert found.ours[:3] == pytest.approx((2, 2 - half, 2 + half))
    assert (found.verdict, found.condition) == ("undecided", "condition; 3 trainings")


def test_without_results_every_claim_is_undecided_and_says_why(tmp_path):
    for study in (resolve_preset("digits", runs=tmp_path), resolve_run(tmp_path / "model", TINY)):
        checked = check_claims(study)
        assert {found.verdict for found in checked} == {"undecided"}
        assert not any(found.ours.known for found in checked)
        assert all(found.condition for found in checked)


def test_claims_are_distinct_and_say_where_they_stand():
    assert len({claim.sentence for claim in CLAIMS}) == len(CLAIMS)
    assert all(claim.place.startswith(("Section ", "Fig. ")) and claim.paper for claim in CLAIMS)
    assert all(claim.limits[0] < claim.limits[1] for claim in CLAIMS)
