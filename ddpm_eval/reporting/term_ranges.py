"""The bound by ranges of t: where the bits go, what training weights, and where two objectives differ.

Terms fall off steeply with t, so the ranges widen with t; t = 1, the decoder, is alone in its range.
Intervals are over images and lie in the columns of `estimate_columns`. Weights are those of Eq. 12.

Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, sections 3.2 to 3.4.
"""

import numpy as np
import pandas as pd

from ddpm_eval.reporting.estimate_columns import ROW_BOUNDS, add_interval
from ddpm_eval.reporting.intervals import mean_estimate, ratio_estimate
from ddpm_eval.results.bound_terms import BoundTerms
from ddpm_eval.results.fields import Array
from ddpm_eval.results.records import ScheduleTables

LAST = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Ends of the ranges below T."""
OBJECTIVES = ("L", "L_simple")


def time_ranges(num_steps: int) -> list[tuple[int, int]]:
    """Return the first and the last t of each range of a chain of ``num_steps``."""
    ends = [*(end for end in LAST if end < num_steps), num_steps]
    starts = [1, *(end + 1 for end in ends[:-1])]
    return list(zip(starts, ends, strict=True))


def range_name(first: int, last: int) -> str:
    """Return a range as it is written: ``3-5``, or ``1`` where it holds one t."""
    return str(first) if first == last else f"{first}-{last}"


def range_table(terms: BoundTerms) -> pd.DataFrame:
    """List the bits of each range of t: t, t_first, t_last, bits_per_dim, low, high, share, n_images.

    The share is of the sum of all terms, and has its interval.
    """
    values = _range_values(terms)
    design = terms.stratified_by
    frame = _ranges(terms)
    mean = mean_estimate(values, design)
    for column, numbers in zip(("bits_per_dim", *ROW_BOUNDS), mean.with_interval(), strict=True):
        frame[column] = numbers
    total = values.sum(axis=1)
    shares = [ratio_estimate(part, total, design).with_interval() for part in values.T]
    add_interval(frame, "share", *np.array(shares).T)
    return frame.assign(n_images=len(terms.image_id))


def objective_table(of_l: BoundTerms, of_l_simple: BoundTerms, schedule: ScheduleTables) -> pd.DataFrame:
    """Compare a model trained on L with one trained on L_simple, range by range.

    Args:
        of_l: the bound of the model of eps with a fixed variance that was trained on L.
        of_l_simple: that of the model trained on L_simple, of the same chain.
        schedule: the chain's tables.

    Returns:
        t, t_first, t_last, weight_l and weight_l_simple (of the squared error of eps, mean over the range,
        where the mean over t > 1 is one), l_bits_per_dim, l_simple_bits_per_dim and
        difference_bits_per_dim (L_simple - L, paired, NaN where the images differ), each with its interval,
        n_images.
    """
    frame = _ranges(of_l)
    first, second = _range_values(of_l), _range_values(of_l_simple)
    weights = {"weight_l": eps_weights(schedule, of_l.variance), "weight_l_simple": np.ones(of_l.num_steps)}
    for name, values in weights.items():
        frame[name] = _mean_weights(values, time_ranges(of_l.num_steps))
    for name, terms, values in (("l", of_l, first), ("l_simple", of_l_simple, second)):
        add_interval(
            frame, f"{name}_bits_per_dim", *mean_estimate(values, terms.stratified_by).with_interval()
        )
    same = np.array_equal(of_l.image_id, of_l_simple.image_id)
    paired = second - first if same else np.full_like(first, np.nan)
    design = of_l.stratified_by if of_l_simple.stratified_by is not None else None
    add_interval(frame, "difference_bits_per_dim", *mean_estimate(paired, design).with_interval())
    return frame.assign(n_images=len(of_l.image_id))


def eps_weights(schedule: ScheduleTables, variance: str) -> Array:
    """Return the weight of the squared error of eps in each term of L, Eq. 12, nats ``[t]``; NaN at t = 1.

    Args:
        schedule: the chain's tables.
        variance: fixed-large or fixed-small.
    """
    sigma2 = schedule.fixed_small if variance == "fixed-small" else schedule.fixed_large
    alpha = 1 - schedule.beta
    with np.errstate(divide="ignore"):  # fixed-small is zero at t = 1
        weights = schedule.beta**2 / (2 * sigma2 * alpha * (1 - schedule.alpha_bar))
    return np.where(np.arange(len(weights)) == 0, np.nan, weights)


def _ranges(terms: BoundTerms) -> pd.DataFrame:
    ranges = time_ranges(terms.num_steps)
    frame = pd.DataFrame(ranges, columns=["t_first", "t_last"])
    frame.insert(0, "t", [range_name(*ends) for ends in ranges])
    return frame


def _range_values(terms: BoundTerms) -> Array:
    """Return the sum of each image's terms in each range, bits/dim ``[image, range]``."""
    starts = [first - 1 for first, _ in time_ranges(terms.num_steps)]
    values: Array = np.add.reduceat(terms.term_values(), starts, axis=1)
    return values


def _mean_weights(values: Array, ranges: list[tuple[int, int]]) -> list[float]:
    """Return the mean weight of each range, in units of the mean over t > 1; NaN for t = 1."""
    scaled = values / values[1:].mean()
    means = [float(scaled[first - 1 : last].mean()) for first, last in ranges]
    return [np.nan, *means[1:]]
