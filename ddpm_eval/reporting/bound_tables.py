"""From the stored terms of one bound to its split into rate, distortion and prior, and to the table of terms.

Bits/dim are nats per image divided by (dimensions x ln 2). Row j of a table over ``t`` is t = j + 1.
Intervals are over images, see `ddpm_eval.reporting.intervals`; they lie in the columns of `estimate_columns`.
Columns that start with ``paper_`` hold published CIFAR-10 values.

Source of the split: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, section 4.3.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ddpm_eval.reporting.estimate_columns import ROW_BOUNDS
from ddpm_eval.reporting.intervals import mean_estimate, ratio_estimate
from ddpm_eval.results.bound_terms import BoundTerms
from ddpm_eval.results.fields import Array, Estimate

BITS_PER_DIM = "bits/dim"


def bound_estimates(terms: BoundTerms) -> dict[str, Estimate]:
    """Return the means over images of rate, distortion, prior and total by name, in bits/dim."""
    design = terms.stratified_by
    return {
        quantity: mean_estimate(values, design).estimate(BITS_PER_DIM)
        for quantity, values in terms.values().items()
    }


def distortion_share(terms: BoundTerms) -> Estimate:
    """Return the share of the bound that is distortion, L_0 / L; its interval is the linearised ratio's."""
    values = terms.values()
    return ratio_estimate(values["distortion"], values["total"], terms.stratified_by).estimate("1")


def halfwidth(terms: BoundTerms) -> float:
    """Return half the width of the total's 95% interval, in bits/dim."""
    total = bound_estimates(terms)["total"]
    return (total.high - total.low) / 2


def split_table(terms: BoundTerms, paper: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Split the bound into rate L_1 + ... + L_{T-1}, distortion L_0, prior L_T and their sum.

    Args:
        terms: of one model, split and protocol.
        paper: published bits/dim by quantity, for the column ``paper_bits_per_dim``.

    Returns:
        quantity, bits_per_dim, low, high, n_images, split, variance, paper_bits_per_dim.
    """
    rows = [(quantity, *estimate[:3]) for quantity, estimate in bound_estimates(terms).items()]
    frame = pd.DataFrame(rows, columns=["quantity", "bits_per_dim", *ROW_BOUNDS])
    frame["n_images"] = len(terms.image_id)
    frame["split"] = terms.split
    frame["variance"] = terms.variance
    frame["paper_bits_per_dim"] = frame["quantity"].map(dict(paper or {})).astype(float)
    return frame


def terms_table(terms: BoundTerms, floor: Array | None = None) -> pd.DataFrame:
    """List every term of the bound: t, bits_per_dim, low, high, n_images, floor_bits_per_dim.

    Args:
        terms: of one model, split and protocol.
        floor: each term's lower limit under the protocol's variance, from `variance_floor`, bits/dim ``[t]``.
    """
    mean = mean_estimate(terms.term_values(), terms.stratified_by)
    low, high = mean.interval()
    return pd.DataFrame(
        {
            "t": np.arange(1, terms.num_steps + 1),
            "bits_per_dim": mean.value,
            "low": low,
            "high": high,
            "n_images": terms.evaluated_per_step,
            "floor_bits_per_dim": np.full(terms.num_steps, np.nan) if floor is None else floor,
        }
    )


def variance_floor(sigma2: Array, beta_tilde: Array) -> Array:
    """Return what the choice of the reverse variance alone adds to each term, bits/dim ``[t]``.

    It is the KL divergence between Gaussians of variance beta_tilde and sigma2 with equal means, and zero at
    t = 1 (the decoder). Its sum is a lower limit of the bound.

    Args:
        sigma2: reverse variances indexed 0..T.
        beta_tilde: posterior variances indexed 0..T.
    """
    ratio = np.asarray(beta_tilde, dtype=np.float64)[2:] / np.asarray(sigma2, dtype=np.float64)[2:]
    return np.concatenate([[0.0], 0.5 * (ratio - 1 - np.log(ratio)) / math.log(2)])
