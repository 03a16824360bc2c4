"""Bounds with known values: from given terms, or drawn from a law whose mean is known in closed form."""

import math

import numpy as np

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results.bound_terms import FullBoundTerms, StratifiedBoundTerms

T, DIMENSIONS = 1000, 64
NATS = DIMENSIONS * math.log(2)  # per image in one bit/dim
SPREAD_BETWEEN, SPREAD_WITHIN = 0.25, 0.2
MEAN_FACTOR = math.exp((SPREAD_BETWEEN**2 + SPREAD_WITHIN**2) / 2)
"""The mean of the log-normal factors by which terms of `realistic` images differ from `mean_term`."""


def make_terms(
    terms, error=None, prior=None, *, split="test", protocol=PROTOCOLS["exact"], variance="fixed-large"
):
    """Full terms from bits/dim ``[image, t]``."""
    terms = np.asarray(terms, dtype=float)
    error = np.full(terms.shape, 0.01) if error is None else np.asarray(error, dtype=float)
    prior = np.full(len(terms), 1e-5) if prior is None else prior
    return FullBoundTerms(
        image_id=np.arange(len(terms)),
        terms=terms * NATS,
        x_0_squared_error=error,
        prior=prior * NATS,
        split=split,
        protocol=protocol,
        variance=variance,
        dimensions=DIMENSIONS,
        inexact_left_out=0,
        network_evaluations=terms.size * protocol.draws,
    )


def mean_term(steps=T):
    """A shape like a trained model's: 2 bits/dim of decoder, 2 of rate, most of it at small t."""
    t = np.arange(1, steps + 1)
    return np.where(t == 1, 2.0, 1.2 * t**-2.0 + 3e-3 * np.exp(-t / 200))


def realistic(n, rng, steps=T):
    """Terms that vary between images and within them (log-normal)."""
    between = rng.lognormal(0, SPREAD_BETWEEN, size=(n, 1))
    terms = mean_term(steps) * between * rng.lognormal(0, SPREAD_WITHIN, size=(n, steps))
    error = (0.02 + np.arange(1, steps + 1) / steps) ** 2 * between * rng.lognormal(0, 0.2, size=(n, steps))
    return make_terms(terms, error, rng.uniform(5e-6, 1e-5, n))


def stratified_like(full, t, terms, error, inclusion, offset, network_evaluations):
    """Stratified terms of the images of full ones."""
    return StratifiedBoundTerms(
        image_id=full.image_id,
        t=t,
        terms=terms,
        x_0_squared_error=error,
        prior=full.prior,
        inclusion=inclusion,
        offset=offset,
        split=full.split,
        protocol=full.protocol,
        variance=full.variance,
        dimensions=full.dimensions,
        inexact_left_out=0,
        network_evaluations=network_evaluations,
    )


def subsample(full, evaluations, rng, *, offset=None):
    """Draw stratified terms: systematic sampling in t with inclusion roughly proportional to the terms."""
    n, steps = full.terms.shape
    size = mean_term(steps)
    inclusion = evaluations * (0.7 * size / size.sum() + 0.3 / steps)
    while (inclusion > 1).any():  # cap at one and let the others share the rest
        inclusion = np.minimum(inclusion, 1)
        free = inclusion < 1
        inclusion[free] *= (evaluations - (~free).sum()) / inclusion[free].sum()
    edges = np.concatenate([[0], np.cumsum(inclusion)])
    offset = (rng.permutation(n) + rng.random(n)) / n if offset is None else offset
    hit = np.diff(np.floor(edges[None] - offset[:, None] + 1), axis=1) > 0
    t = np.zeros((n, hit.sum(1).max()), dtype=np.int64)
    for row, chosen in zip(t, hit, strict=True):
        times = np.flatnonzero(chosen) + 1
        row[: len(times)] = times
    column = np.maximum(t - 1, 0)
    terms = np.where(t > 0, np.take_along_axis(full.terms, column, 1), np.nan)  # padding must never be read
    error = np.where(t > 0, np.take_along_axis(full.x_0_squared_error, column, 1), np.nan)
    return stratified_like(full, t, terms, error, inclusion, offset, int(hit.sum()))
