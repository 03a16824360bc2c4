"""Stratified sampling of time steps: a hundredth of the evaluations, and an interval that is hardly wider.

Times are selected with probabilities proportional to the size of the terms, which a small pilot tells, by
systematic sampling with offsets that are stratified over the images. Weighting an evaluated term by one over
its probability (Horvitz and Thompson, 1952) makes the total, each term and every partial sum unbiased for the
full evaluation of the same images with the same noise, whatever the pilot said. Times are 1..T; arrays over
times have index 0 for t = 1. numpy only.
"""

import numpy as np

from ddpm_eval.results.bound_terms import FullBoundTerms, StratifiedBoundTerms
from ddpm_eval.results.fields import Array

PILOT_IMAGES = 8
PILOT_TIMES = 24
"""The number of geometrically spaced times of the pilot."""
SPREAD_IMPORTANCE = 0.05
"""The share of the importance that is spread evenly over all times."""
DESIGN_CONSTANTS = (PILOT_IMAGES, PILOT_TIMES, SPREAD_IMPORTANCE)
"""Everything that the choice of times depends on beside the terms of the pilot and the seed."""


def inclusion_probabilities(importance: Array, evaluations: float) -> Array:
    """Turn importances into probabilities that a time is evaluated for an image.

    Probabilities are proportional to importance with their sum equal to ``evaluations``; those that would
    exceed one are set to one and the rest rescaled.

    Args:
        importance: positive, shape ``[T]``.
        evaluations: expected evaluations per image, at most T.

    Raises:
        ValueError: if there are fewer than two evaluations per image or more than T.
    """
    if not 2 <= evaluations <= len(importance):
        raise ValueError(
            f"{evaluations:g} evaluations per image asked for; the estimator needs 2 to T = {len(importance)}"
        )
    certain = np.zeros(len(importance), dtype=bool)
    while True:
        left = evaluations - certain.sum()
        probability = np.where(certain, 1.0, importance * left / importance[~certain].sum())
        if (probability <= 1 + 1e-12).all():
            return np.minimum(probability, 1.0)
        certain |= probability >= 1


def systematic_times(inclusion: Array, offsets: Array) -> list[Array]:
    """Select times by systematic sampling, one offset in [0, 1) per image.

    Time t is selected when a tick ``offset + k`` falls into its interval of the cumulated probabilities,
    which happens with probability ``inclusion[t - 1]`` over a uniform offset; low and high times are selected
    in their proportions for every image, which is what makes the estimate precise.

    Returns:
        For each image the increasing times selected, int64.
    """
    edges = np.concatenate([[0.0], np.cumsum(inclusion)])
    edges[1:][inclusion == 1.0] = edges[:-1][inclusion == 1.0] + 1.0  # exact, whatever the rounding before
    counts = np.floor(edges[None, :] - offsets[:, None] + 1.0)
    return [np.flatnonzero(np.diff(row)) + 1 for row in counts]


def stratified_offsets(n: int, seed: int) -> Array:
    """Return one uniform offset per image, stratified: each interval of width 1/n holds exactly one."""
    rng = np.random.default_rng((seed, n))
    return (rng.permutation(n) + rng.random(n)) / n


def pilot_times(timesteps: int, count: int = PILOT_TIMES) -> Array:
    """Return times for the pilot: all of the first few, then geometrically spaced up to T."""
    spaced = np.round(np.geomspace(1, timesteps, count)).astype(np.int64)
    return np.unique(np.concatenate([np.arange(1, min(4, timesteps) + 1), spaced]))


def pilot_evaluations(n: int, timesteps: int) -> int:
    """Return how many terms the pilot evaluates of n images, for each noise draw."""
    return min(n, PILOT_IMAGES) * len(pilot_times(timesteps))


def importance_from_pilot(
    times: Array, terms: Array, timesteps: int, floor: float = SPREAD_IMPORTANCE
) -> Array:
    """Interpolate the pilot's root mean square terms to every time (linearly in log t, log value).

    Args:
        times: of the pilot, increasing ``[k]``.
        terms: nats ``[image, k]``.
        timesteps: T.
        floor: share of the importance spread evenly over all times, so that distortion is measured at each.
    """
    rms = np.sqrt(np.mean(np.square(terms), axis=0)) + 1e-12
    t = np.arange(1, timesteps + 1)
    importance = np.exp(np.interp(np.log(t), np.log(times), np.log(rms)))
    importance[times - 1] = rms
    return (1 - floor) * importance / importance.sum() + floor / timesteps


def select(
    pilot: Array, times: Array, timesteps: int, n: int, per_image: float, seed: int
) -> tuple[Array, Array, Array]:
    """Design a stratified evaluation.

    Args:
        pilot: terms of the pilot in nats, ``[image, time]``.
        times: of the pilot.
        timesteps: T.
        n: number of images.
        per_image: expected evaluations per image.
        seed: of the offsets.

    Returns:
        Inclusion probabilities ``[T]``, the images' offsets ``[n]``, and the times to evaluate, ``[n,
        most]``, increasing, padded with 0.

    Raises:
        ValueError: if there are fewer than two evaluations per image or more than T.
    """
    inclusion = inclusion_probabilities(importance_from_pilot(times, pilot, timesteps), per_image)
    return inclusion, *times_table(inclusion, n, seed)


def times_table(inclusion: Array, n: int, seed: int) -> tuple[Array, Array]:
    """Select the times of n images by given probabilities.

    Args:
        inclusion: probability that each time is evaluated for an image, ``[T]``.
        n: number of images.
        seed: of the offsets.

    Returns:
        The images' offsets ``[n]``, and the times to evaluate, ``[n, most]``, increasing, padded with 0.
    """
    offsets = stratified_offsets(n, seed)
    chosen = systematic_times(inclusion, offsets)
    table = np.zeros((n, max(len(row) for row in chosen)), dtype=np.int64)
    for row, selected in zip(table, chosen, strict=True):
        row[: len(selected)] = selected
    return offsets, table


def from_full(full: FullBoundTerms, per_image: float, seed: int) -> StratifiedBoundTerms:
    """Return the stratified estimate that would have been made, reading its terms from a full evaluation."""
    n, timesteps = full.terms.shape
    times = pilot_times(timesteps)
    pilot = full.terms[:PILOT_IMAGES][:, times - 1]
    inclusion, offset, t = select(pilot, times, timesteps, n, per_image, seed)
    row = np.arange(n)[:, None]
    return StratifiedBoundTerms(
        image_id=full.image_id,
        t=t,
        terms=np.where(t > 0, full.terms[row, t - 1], 0.0),
        x_0_squared_error=np.where(t > 0, full.x_0_squared_error[row, t - 1], 0.0),
        prior=full.prior,
        inclusion=inclusion,
        offset=offset,
        split=full.split,
        protocol=full.protocol,
        variance=full.variance,
        dimensions=full.dimensions,
        inexact_left_out=full.inexact_left_out,
        network_evaluations=int((t > 0).sum()) + pilot.size,
    )
