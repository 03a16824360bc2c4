"""Progressive decoding as a rate-distortion curve (Fig. 5) and its ten rows in Table 4.

After tau reverse steps the receiver is at t = T - tau + 1 and has x_t. The rate counts the terms received
before that, in bits/dim; the distortion is the error of the estimate x0_hat from x_t, on the 0-255 scale.
Intervals lie in the columns of `estimate_columns`.

Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, section 4.3.
"""

import numpy as np
import pandas as pd

from ddpm_eval.reporting.estimate_columns import add_interval
from ddpm_eval.reporting.intervals import MeanDistribution, grouped_estimate, mean_estimate
from ddpm_eval.results.bound_terms import BoundTerms, FullBoundTerms, StratifiedBoundTerms
from ddpm_eval.results.fields import Array

HALF_RANGE = 127.5
"""What turns errors on [-1, 1] into errors on 0-255."""
PAPER_STEPS = 1000
TABLE4_COLUMNS = (
    *("reverse_steps", "t", "rate_bits_per_dim", "rmse_255"),
    *("paper_rate_bits_per_dim", "paper_rmse_255"),
)


def rate_distortion_curve(terms: BoundTerms) -> pd.DataFrame:
    """Follow progressive decoding step by step: what was received, and how well x_0 can be estimated from it.

    The root mean squared error is pooled over images before the root (``rmse_255``) and averaged over each
    image's root (``image_rmse_255``); PSNR is the pooled one's. Of stratified terms the rate is a
    Horvitz-Thompson mean over all images, and the distortion at t the mean over the images that were
    evaluated there (``n_distortion``).

    Returns:
        One row per reverse step, increasing: reverse_steps, t, rate_bits_per_dim, rmse_255, image_rmse_255
        and psnr_db, each with its interval, n_images, n_distortion.
    """
    frame = pd.DataFrame({"t": np.arange(1, terms.num_steps + 1)})
    frame["reverse_steps"] = len(frame) - frame["t"] + 1
    add_interval(frame, "rate_bits_per_dim", *_received(terms).with_interval())
    _add_distortion(frame, terms)
    frame["n_images"] = len(terms.image_id)
    frame["n_distortion"] = terms.evaluated_per_step
    return frame.sort_values("reverse_steps", ignore_index=True)


def table4(terms: BoundTerms, paper: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the paper's Table 4: progressive lossy compression at ten equally spaced numbers of steps.

    Args:
        terms: of one model, split and protocol.
        paper: reverse_steps, rate_bits_per_dim, rmse_255; joined where T is the paper's 1000, else blank.

    Returns:
        reverse_steps (T, 0.9 T, ...), t, rate_bits_per_dim, rmse_255, paper_rate_bits_per_dim,
        paper_rmse_255, then the intervals and further columns of `rate_distortion_curve`.
    """
    count = terms.num_steps
    wanted = sorted({round(count * share / 10) for share in range(1, 11)} - {0}, reverse=True)
    frame = rate_distortion_curve(terms).set_index("reverse_steps").loc[wanted].reset_index()
    known = paper if count == PAPER_STEPS else None
    for column in ("rate_bits_per_dim", "rmse_255"):
        published = {} if known is None else known.set_index("reverse_steps")[column].to_dict()
        frame[f"paper_{column}"] = frame["reverse_steps"].map(published).astype(float)
    others = [column for column in frame if column not in TABLE4_COLUMNS]
    return frame[[*TABLE4_COLUMNS, *others]]


def _received(terms: BoundTerms) -> MeanDistribution:
    """Estimate the mean of what was received before each t, bits/dim ``[t]``."""
    values = terms.term_values()
    received = np.flip(np.cumsum(np.flip(values, 1), 1), 1)
    received -= values  # in place: these arrays are large
    return mean_estimate(received, terms.stratified_by)


def _add_distortion(frame: pd.DataFrame, terms: BoundTerms) -> None:
    """Add the columns of both root mean squared errors and of PSNR."""
    errors = _squared_errors(terms)
    squared = _at_each_step(terms, errors)
    with np.errstate(invalid="ignore"):  # a bound below zero, of few and skewed images, is left empty
        pooled = [HALF_RANGE * np.sqrt(part) for part in squared.with_interval()]
    add_interval(frame, "rmse_255", *pooled)
    roots = _at_each_step(terms, np.sqrt(errors))
    add_interval(frame, "image_rmse_255", *(HALF_RANGE * part for part in roots.with_interval()))
    with np.errstate(divide="ignore"):  # a perfect estimate has infinite PSNR
        value, high, low = (20 * np.log10(255 / part) for part in pooled)
    add_interval(frame, "psnr_db", value, low, high)


def _squared_errors(terms: BoundTerms) -> Array:
    assert isinstance(terms, FullBoundTerms | StratifiedBoundTerms)
    return terms.x_0_squared_error


def _at_each_step(terms: BoundTerms, values: Array) -> MeanDistribution:
    """Estimate the mean of a per-image quantity at each t from the images that were evaluated there."""
    if terms.estimator == "full":
        return mean_estimate(values)
    _, column, entries = terms.entries(values)
    return grouped_estimate(entries, column, terms.num_steps)
