"""The quantities that the paper's claims are about, from a study's stored results, each with its interval.

A Frechet distance of a cell that diverged is infinite: no samples are worse. Differences of the bound are
paired over images, which were measured with the same noise. Intervals of differences and ratios of two
distances are made from the two intervals as if the distances were independent.

Claims compare distances by their ratio. Distances are positive, and the spread between trainings grows with
them, so that over trainings their logarithms are averaged: differences would be ruled by the worst cells.

Source of the latter: Zou and Donner, "Construction of confidence limits about effect measures", Statistics in
Medicine 27 (2008) ("MOVER").
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ddpm_eval.reporting.bound_tables import BITS_PER_DIM, distortion_share
from ddpm_eval.reporting.estimate_columns import estimate_columns
from ddpm_eval.reporting.intervals import difference, mean_estimate, ratio_estimate
from ddpm_eval.reporting.rate_distortion_tables import rate_distortion_curve
from ddpm_eval.reporting.replicates import over_trainings
from ddpm_eval.results.bound_terms import BoundTerms
from ddpm_eval.results.fields import Estimate
from ddpm_eval.results.records import (
    QUALITY_OF_OTHER_VARIANCE,
    QUALITY_OVER_STEPS,
    QUALITY_OVER_TIME,
    SQUARED_FEATURES,
    Neighbours,
    Quality,
    QualityCurve,
    TrainingLog,
)
from experiments.paper.presets import TABLE_2, Cell, cell_name, cell_of
from experiments.study import Study, StudyRun

MU_L_LEARNED, MU_L, MU_MSE, EPS_L_LEARNED, EPS_L, EPS_MSE = TABLE_2
MOSTLY = 0.5
"""The share of clipped updates above which it is said."""
LEAST_STEPS = 20
"""Of a chain whose last tenth has a term of the rate: the last step is the distortion's."""
LARGEST_EXPONENT = 700.0
"""The largest exponent whose exponential is a number; with two trainings an interval may have larger ones."""
FROM_OTHER_PLACES = ("photos",)
"""Data sets whose test images differ from the training images in more than chance."""


@dataclass(frozen=True)
class Evidence:
    """What a study's results say of a claim.

    Attributes:
        estimates: of the claim's quantity; the claim is about all of them.
        condition: how they were measured.
        missing: why some or all were not measured; empty if all were.
        of_images: whether the intervals are over images, which are the same for each seed.
        ratios: whether the estimates are ratios, of which trainings have a geometric mean.
        seeds: the number of trainings behind each estimate.
    """

    estimates: tuple[Estimate, ...]
    condition: str = ""
    missing: str = ""
    of_images: bool = False
    ratios: bool = False
    seeds: int = 1


def not_measured(reason: str) -> Evidence:
    """Return the evidence of a claim of which nothing is known."""
    return Evidence((), missing=reason)


def over_seeds(found: Sequence[Evidence]) -> Evidence:
    """Join what trainings with several seeds say of a claim; only those count of which all was measured.

    Args:
        found: of each seed; the first one is returned as it is if none of the others was measured.
    """
    first, *others = found
    complete = [first, *(each for each in others if each.estimates and not each.missing)]
    if first.missing or len(complete) == 1:
        return first
    join = _geometric_mean if first.ratios else partial(over_trainings, same_images=first.of_images)
    estimates = tuple(join(same) for same in zip(*(each.estimates for each in complete), strict=True))
    apart = any(math.isnan(estimate.value) for estimate in estimates)
    return replace(
        first,
        estimates=estimates,
        missing="some trainings diverged and others did not" if apart else "",
        seeds=len(complete),
    )


# Samples


def distance_margins(study: Study, worse: Sequence[Cell], better: Sequence[Cell]) -> Evidence:
    """Return by how much the distances of the worse cells exceed those of the better ones.

    Args:
        study: with the cells of Table 2.
        worse: cells; each is compared with every one of ``better``.
        better: cells.
    """
    return _compared(study, worse, better, independent_difference, "difference of the Frechet distances")


def distance_ratios(study: Study, over: Sequence[Cell], under: Sequence[Cell]) -> Evidence:
    """Return the ratios of the distances of some cells to those of others.

    Args:
        study: with the cells of Table 2.
        over: cells; each is compared with every one of ``under``.
        under: cells.
    """
    return _compared(study, over, under, independent_ratio, "ratio of the Frechet distances")


def variance_ratio(study: Study) -> Evidence:
    """Return the distance of samples with the other fixed variance over that with the run's own."""
    run = study.main
    other = run.result(QUALITY_OF_OTHER_VARIANCE, Quality)
    curve = run.result(QUALITY_OVER_STEPS["ancestral"], QualityCurve)
    if other is None or curve is None or curve.n_samples != other.n_samples:
        return not_measured("samples with the other fixed variance were not measured")
    own = _distance_at(curve, int(np.argmax(curve.position)))
    what = (
        f"ratio of the Frechet distances, the other fixed variance over {run.spec.diffusion.variance}, "
        f"n = {other.n_samples} samples each ({other.features})"
    )
    return Evidence((independent_ratio(other.frechet_distance, own),), _how([run], what), ratios=True)


def late_improvement(study: Study) -> Evidence:
    """Return by how much the distance of x0_hat falls from the middle of the reverse process to its end."""
    curve = study.main.result(QUALITY_OVER_TIME, QualityCurve)
    if curve is None:
        return not_measured("sample quality over the reverse process was not measured")
    half = study.main.spec.diffusion.timesteps / 2
    middle = int(np.argmin(np.abs(curve.position - half)))
    end = int(np.argmin(curve.position))
    first, last = (_distance_at(curve, k) for k in (middle, end))
    what = (
        f"Frechet distance of x0_hat at t = {curve.position[middle]} minus that at "
        f"t = {curve.position[end]}, n = {curve.n_samples} samples ({curve.features})"
    )
    return Evidence((independent_difference(first, last),), _how([study.main], what))


def memorisation(study: Study) -> Evidence:
    """Return how often samples are nearer to training images than held-out ones, in pixels and features."""
    found = study.main.result("neighbours", Neighbours)
    if found is None:
        return not_measured("nearest neighbours of samples were not searched")
    what = (
        "probability that a sample is nearer to its nearest training image than a test image is to its own, "
        f"the larger of pixels' and features', n = {found.n_samples} samples and {found.n_held_out} test "
        "images"
    )
    estimates = (found.pixel_memorisation, found.feature_memorisation)
    return Evidence(estimates, _how([study.main], what))


def published_distance(study: Study) -> Evidence:
    """Return the main run's FID, if it can be compared with published ones of CIFAR-10."""
    quality = study.main.result("quality", Quality)
    data = study.main.spec.data.name
    if data != "cifar10" or quality is None or not quality.is_inception:
        return not_measured(f"needs FID of CIFAR-10 samples; this report is of {data}")
    what = f"FID, n = {quality.n_samples} samples (the paper: 50,000)"
    return Evidence((quality.frechet_distance,), _how([study.main], what))


# The bound


def bound_difference(study: Study, first: Cell, second: Cell) -> Evidence:
    """Return the paired difference of two cells' bits/dim, first - second."""
    runs = [_run(study, cell) for cell in (first, second)]
    bounds = [None if run is None else run.bound() for run in runs]
    absent = [cell_name(cell) for cell, terms in zip((first, second), bounds, strict=True) if terms is None]
    a, b = bounds
    if a is None or b is None:
        return not_measured(_absent(absent))
    if not np.array_equal(a.image_id, b.image_id):
        return not_measured("the two cells' bounds are of different images")
    what = (
        f"bits/dim of {cell_name(first)} minus {cell_name(second)}, paired over {len(a.image_id)} test images"
    )
    how = _how([run for run in runs if run is not None], what)
    return Evidence((paired_difference(a, b),), how, of_images=True)


def train_test_gap(study: Study) -> Evidence:
    """Return by how much the bound of test images exceeds that of training images."""
    run = study.main
    if run.spec.data.name in FROM_OTHER_PLACES:
        return not_measured(
            f"test images of {run.spec.data.name} lie elsewhere in the photographs than training images"
        )
    test, train = run.bound("test"), run.bound("train")
    if test is None or train is None:
        return not_measured("the bound of test and training images was not measured")
    means = [mean_estimate(terms.values()["total"], terms.stratified_by) for terms in (test, train)]
    what = (
        f"test minus train in bits/dim, {len(test.image_id)} test and {len(train.image_id)} training images"
    )
    gap = difference(*means).estimate(BITS_PER_DIM)
    return Evidence((gap,), _how([run], what), of_images=True)


def imperceptible_share(study: Study) -> Evidence:
    """Return the share of the bits that describe the distortion L_0."""
    terms = study.bound_run.bound()
    if terms is None:
        return not_measured("the bound was not measured")
    return _of_bound(study, terms, distortion_share(terms), "distortion over total")


def late_rate_share(study: Study) -> Evidence:
    """Return the share of the rate that is received in the last tenth of the reverse process."""
    terms = study.bound_run.bound()
    if terms is None:
        return not_measured("the bound was not measured")
    if terms.num_steps < LEAST_STEPS:
        return not_measured(f"a chain of fewer than {LEAST_STEPS} steps has no last tenth")
    rate = terms.term_values()[:, 1:]
    late = rate[:, : max(1, terms.num_steps // 10 - 1)]
    share = ratio_estimate(late.sum(1), rate.sum(1), terms.stratified_by).estimate("1")
    return _of_bound(study, terms, share, f"share of the rate at t <= {late.shape[1] + 1}")


def final_error(study: Study) -> Evidence:
    """Return the root mean squared error after all reverse steps, on the 0-255 scale."""
    terms = study.bound_run.bound()
    if terms is None:
        return not_measured("the bound was not measured")
    last = rate_distortion_curve(terms).iloc[-1]
    value, low, high = (float(last[name]) for name in estimate_columns("rmse_255"))
    error = Estimate(value, low, high, "levels")
    return _of_bound(study, terms, error, "RMSE of x0_hat at t = 1 on 0-255")


def prior_term(study: Study) -> Evidence:
    """Return L_T in bits/dim."""
    terms = study.bound_run.bound()
    if terms is None:
        return not_measured("the bound was not measured")
    prior = mean_estimate(terms.values()["prior"], terms.stratified_by).estimate(BITS_PER_DIM)
    return _of_bound(study, terms, prior, "L_T in bits/dim, in closed form")


# Differences, ratios and words


def paired_difference(first: BoundTerms, second: BoundTerms) -> Estimate:
    """Return the mean of the images' differences of the total in bits/dim, first - second.

    Args:
        first: of the same images with the same noise as ``second``.
        second: see there.
    """
    design = first if first.estimator == "stratified" else second
    values = first.values()["total"] - second.values()["total"]
    return mean_estimate(values, design.stratified_by).estimate(BITS_PER_DIM)


def independent_difference(first: Estimate, second: Estimate) -> Estimate:
    """Return first - second; without an interval if one is infinite, and NaN if both are."""
    value = first.value - second.value
    if not math.isfinite(value):
        return Estimate(value, value, value, first.unit)
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    high = value + math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, low, high, first.unit)


def independent_ratio(first: Estimate, second: Estimate) -> Estimate:
    """Return first / second of positive estimates; infinite if the first one is, NaN if both are."""
    return _exp(independent_difference(_log(first), _log(second)))


def clipped_share(run: StudyRun) -> tuple[float, float]:
    """Return the share of a run's updates whose gradient was clipped, and the gradients' median norm.

    Both are NaN where no training is recorded.
    """
    log = run.result("training", TrainingLog)
    if log is None or not len(log.gradient_norm):
        return math.nan, math.nan
    norms = log.gradient_norm.astype(np.float64)
    return float(np.mean(norms > run.spec.train.clip_norm)), float(np.median(norms))


def _compared(
    study: Study,
    firsts: Sequence[Cell],
    seconds: Sequence[Cell],
    compare: Callable[[Estimate, Estimate], Estimate],
    what: str,
) -> Evidence:
    """Return how each of the first cells' distances compares with each of the second cells'."""
    known = {cell: _distance(study, cell) for cell in (*firsts, *seconds)}
    absent = [cell_name(cell) for cell, distance in known.items() if distance is None]
    estimates = tuple(
        compare(first, second)
        for first in (known[cell] for cell in firsts)
        for second in (known[cell] for cell in seconds)
        if first is not None and second is not None
    )
    how = _of_samples(study, tuple(known), what)
    return Evidence(estimates, how, _absent(absent), ratios=compare is independent_ratio)


def _geometric_mean(ratios: Sequence[Estimate]) -> Estimate:
    """Return the geometric mean of the same ratio over trainings."""
    return _exp(over_trainings([_log(ratio) for ratio in ratios], same_images=False))


def _log(estimate: Estimate) -> Estimate:
    with np.errstate(divide="ignore"):
        value, low, high = map(float, np.log(np.maximum(estimate[:3], 0.0)))  # NaN stays NaN
    return Estimate(value, low, high, "1")


def _exp(estimate: Estimate) -> Estimate:
    value, low, high = (math.inf if part > LARGEST_EXPONENT else math.exp(part) for part in estimate[:3])
    return Estimate(value, low, high, "1")


def _distance_at(curve: QualityCurve, k: int) -> Estimate:
    value, low, high = map(float, curve.frechet_distance[k])
    return Estimate(value, low, high, SQUARED_FEATURES)


def _run(study: Study, cell: Cell) -> StudyRun | None:
    return next((run for run in study.runs if cell_of(run.spec) == cell), None)


def _distance(study: Study, cell: Cell) -> Estimate | None:
    """Return a cell's Frechet distance, infinite if it diverged, None if it was not measured."""
    run = _run(study, cell)
    if run is None:
        return None
    log = run.result("training", TrainingLog)
    if log is not None and log.diverged:
        return Estimate(math.inf, math.inf, math.inf, SQUARED_FEATURES)
    quality = run.result("quality", Quality)
    return None if quality is None or not quality.frechet_distance.known else quality.frechet_distance


def _absent(names: Sequence[str]) -> str:
    return f"not measured: {'; '.join(names)}" if names else ""


def _of_samples(study: Study, cells: Sequence[Cell], what: str) -> str:
    runs = [run for run in (_run(study, cell) for cell in cells) if run is not None]
    found = [run.result("quality", Quality) for run in runs]
    quality = next((quality for quality in found if quality is not None), None)
    how = "" if quality is None else f", n = {quality.n_samples} samples each ({quality.features})"
    return _how(runs, what + how) if runs else what


def _of_bound(study: Study, terms: BoundTerms, estimate: Estimate, what: str) -> Evidence:
    how = _how([study.bound_run], f"{what}, {len(terms.image_id)} test images")
    return Evidence((estimate,), how, of_images=True)


def _how(runs: Sequence[StudyRun], what: str) -> str:
    """Return what was measured, of which data, after how much training, and where gradients were clipped."""
    logs = [run.result("training", TrainingLog) for run in runs]
    steps = sorted({log.steps for log in logs if log is not None and not log.imported})
    updates = [f"{' to '.join(f'{n:,}' for n in steps)} updates"] if steps else []
    of_what = ", ".join([runs[0].spec.data.name, *updates])
    return "; ".join(filter(None, [what, of_what, _clipping(runs)]))


def _clipping(runs: Sequence[StudyRun]) -> str:
    """Name the runs of which most gradients were clipped; empty if there are none."""
    shares = [(cell_name(cell_of(run.spec)), *clipped_share(run)) for run in runs]
    clipped = [
        f"{name} ({100 * share:.0f}% of the updates, median norm {norm:.2g})"
        for name, share, norm in shares
        if share > MOSTLY
    ]
    return f"gradients were clipped of {'; '.join(clipped)}" if clipped else ""
