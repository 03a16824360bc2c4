"""The paper's sentences that can be checked, each with its place, its numbers and the test it is put to.

A claim states that a quantity lies between two limits. It holds where the quantity's 95% interval does, does
not hold where the interval lies outside, and is undecided where the interval straddles a limit or something
was not measured. A claim about several quantities holds if it holds for each, and does not hold if it fails
for one; the one that decides is shown. Nothing but intervals decides.

Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239v2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ddpm_eval.results.fields import Estimate
from experiments.paper import evidence
from experiments.paper.evidence import (
    EPS_L,
    EPS_L_LEARNED,
    EPS_MSE,
    MU_L,
    MU_L_LEARNED,
    MU_MSE,
    Evidence,
    not_measured,
)
from experiments.study import Study

Verdict = Literal["holds", "does not hold", "undecided"]
Limits = tuple[float, float]
ABOVE_ZERO = (0.0, math.inf)
ABOVE_ONE = (1.0, math.inf)
BELOW_ZERO = (-math.inf, 0.0)
ABOUT_EQUAL = (1 / 1.1, 1.1)
"""Limits of a ratio that is called about one; the paper's own two distances differ by 2%."""
BEST_UNCONDITIONAL_FID = 3.26
"""The best published FID of an unconditional model in the paper's Table 1 (StyleGAN2 + ADA)."""
UNKNOWN = Estimate(math.nan, math.nan, math.nan, "")


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper that can be checked.

    Attributes:
        sentence: what is claimed.
        place: in the paper.
        paper: the paper's own numbers, of CIFAR-10.
        measure: returns the quantity that the claim is about.
        limits: between which the quantity lies if the claim is true.
    """

    sentence: str
    place: str
    paper: str
    measure: Callable[[Study], Evidence]
    limits: Limits = ABOVE_ZERO


@dataclass(frozen=True)
class CheckedClaim:
    """A claim with what was found.

    Attributes:
        claim: that was checked.
        ours: the quantity that decides, NaN where nothing was measured.
        verdict: holds, does not hold or undecided.
        condition: how the quantity was measured, and why others were not.
    """

    claim: Claim
    ours: Estimate
    verdict: Verdict
    condition: str


CLAIMS = (
    Claim(
        "Predicting eps and training on L_simple gives the best samples",
        "Section 4.2, Table 2",
        "FID 3.17; the others 13.22 and more: a ratio of 4.17",
        partial(
            evidence.distance_ratios,
            over=(MU_L_LEARNED, MU_L, MU_MSE, EPS_L_LEARNED, EPS_L),
            under=(EPS_MSE,),
        ),
        ABOVE_ONE,
    ),
    Claim(
        "Training on L gives better codelengths than training on L_simple",
        "Section 4.1, Table 1",
        "L minus L_simple: -0.05 bits/dim (3.70, 3.75)",
        partial(evidence.bound_difference, first=EPS_L, second=EPS_MSE),
        BELOW_ZERO,
    ),
    Claim(
        "Trained on L with a fixed variance, predicting eps is about as good as predicting mu (within 10%)",
        "Section 4.2, Table 2",
        "FID 13.51 over 13.22: a ratio of 1.02",
        partial(evidence.distance_ratios, over=(EPS_L,), under=(MU_L,)),
        ABOUT_EQUAL,
    ),
    Claim(
        "Trained on the mean squared error, predicting eps is much better than predicting mu",
        "Section 4.2, Table 2",
        "FID 3.17; blank for mu (unstable, poor samples)",
        partial(evidence.distance_ratios, over=(MU_MSE,), under=(EPS_MSE,)),
        ABOVE_ONE,
    ),
    Claim(
        "Predicting mu works well only when trained on L, not on its mean squared error",
        "Section 4.2, Table 2",
        "FID 13.22 on L; blank on the squared error",
        partial(evidence.distance_ratios, over=(MU_MSE,), under=(MU_L,)),
        ABOVE_ONE,
    ),
    Claim(
        "Learning the reverse variance makes samples worse when mu is predicted",
        "Section 4.2, Table 2",
        "FID 23.69 over 13.22: a ratio of 1.79",
        partial(evidence.distance_ratios, over=(MU_L_LEARNED,), under=(MU_L,)),
        ABOVE_ONE,
    ),
    Claim(
        "Predicting eps with a learned variance is unstable: samples are worse than in every cell that has "
        "numbers",
        "Section 4.2, Table 2",
        "blank (unstable, out-of-range scores)",
        partial(evidence.distance_ratios, over=(EPS_L_LEARNED,), under=(MU_L_LEARNED, MU_L, EPS_L, EPS_MSE)),
        ABOVE_ONE,
    ),
    Claim(
        "Reverse variances beta_t and beta-tilde_t give similar samples (within 10%)",
        "Section 3.2",
        "no numbers",
        evidence.variance_ratio,
        ABOUT_EQUAL,
    ),
    Claim(
        "Test and training images differ by at most 0.03 bits/dim",
        "Section 4.3, Table 1",
        "3.75 minus 3.72: 0.03 bits/dim (L_simple)",
        evidence.train_test_gap,
        (-0.03, 0.03),
    ),
    Claim(
        "More than half of the lossless codelength describes imperceptible distortions",
        "Section 4.3",
        "1.97 of 3.75 bits/dim: a share of 0.53",
        evidence.imperceptible_share,
        (0.5, math.inf),
    ),
    Claim(
        "What is left after the last step is imperceptible: an error of less than one of 255 levels",
        "Section 4.3",
        "RMSE 0.95",
        evidence.final_error,
        (-math.inf, 1.0),
    ),
    Claim(
        "Most of the rate is spent on the last tenth of the reverse steps",
        "Fig. 5, Table 4",
        "1.66 of 1.78 bits/dim: a share of 0.93",
        evidence.late_rate_share,
        (0.5, math.inf),
    ),
    Claim(
        "The prior term L_T is about 1e-5 bits/dim (less than 1e-4)",
        "Section 4",
        "about 1e-5 bits/dim",
        evidence.prior_term,
        (-math.inf, 1e-4),
    ),
    Claim(
        "Sample quality improves over the reverse process, from its middle to its end",
        "Section 4.3, Fig. 10",
        "a figure",
        evidence.late_improvement,
    ),
    Claim(
        "Samples are no copies: they are as far from training images as held-out images are",
        "Section 4.3, Fig. 15",
        "a figure",
        evidence.memorisation,
        (-math.inf, 0.5),
    ),
    Claim(
        "Samples are better than those of the unconditional models in the literature",
        "Section 4.1, Table 1",
        f"FID 3.17; the best other {BEST_UNCONDITIONAL_FID}",
        evidence.published_distance,
        (-math.inf, BEST_UNCONDITIONAL_FID),
    ),
    Claim(
        "Samples of LSUN are about as good as those of ProgressiveGAN",
        "Section 4.1, Table 3",
        "FID 7.89 against 6.42 (Church), 6.36 or 4.90 against 8.34 (Bedroom)",
        lambda study: not_measured("needs models of LSUN at 256x256"),
    ),
)
"""In the order of the paper's experiments."""


def check_claims(study: Study) -> list[CheckedClaim]:
    """Check every claim against what is stored of a study."""
    return [check(claim, study) for claim in CLAIMS]


def check(claim: Claim, study: Study) -> CheckedClaim:
    """Check one claim against what is stored of a study, over all its seeds."""
    found = evidence.over_seeds([claim.measure(one) for one in study.seeds])
    if not found.estimates:
        return CheckedClaim(claim, UNKNOWN, "undecided", found.missing)
    trainings = "1 training" if found.seeds == 1 else f"{found.seeds} trainings"
    condition = "; ".join(filter(None, [found.condition, trainings, found.missing]))
    ours = least_favourable(found.estimates, claim.limits)
    reached = verdict(ours, claim.limits)
    if found.missing and reached == "holds":
        reached = "undecided"
    return CheckedClaim(claim, ours, reached, condition)


def verdict(estimate: Estimate, limits: Limits) -> Verdict:
    """Return what a quantity's interval says of a claim that it lies between limits."""
    lower, upper = limits
    if estimate.low > lower and (estimate.high < upper or upper == math.inf):
        return "holds"
    if estimate.high <= lower or estimate.low >= upper:
        return "does not hold"
    return "undecided"  # among others if a bound is NaN


def least_favourable(estimates: tuple[Estimate, ...], limits: Limits) -> Estimate:
    """Return the estimate that decides about all: the one that fails most clearly or holds least clearly."""
    order: tuple[Verdict, ...] = ("does not hold", "undecided", "holds")

    def place(estimate: Estimate) -> tuple[int, float]:
        margin = min(estimate.low - limits[0], limits[1] - estimate.high)
        return order.index(verdict(estimate, limits)), margin

    return min(estimates, key=place)
