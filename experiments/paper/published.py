"""The paper's published CIFAR-10 and LSUN numbers as rows; a blank cell of the paper is NaN here.

Source of all: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239v2;
the column ``source`` names the table. The Inception score (10 splits, mean and std over splits) and the FID
(against the training set) are of 50,000 samples with the original codes; NLL is the variational bound in
bits/dim. None of these numbers is of another data set than the one its table names, so beside any other data
they are an orientation, not a target.
"""

import math
from collections.abc import Sequence

import pandas as pd

PAPER = "arXiv:2006.11239v2"
NAN = math.nan

SPLIT_BITS_PER_DIM = {"rate": 1.78, "distortion": 1.97, "total": 3.75}
"""Section 4.3: eps / L_simple on the CIFAR-10 test set. L_T, 7e-6, is below the last digit whether or not it
is counted.
"""

RMSE_255 = 0.95
"""Section 4.3: of the lossy reconstruction that the distortion belongs to."""

_TABLE_1 = [
    # model, conditional, IS, its std, FID, NLL test, NLL train, whether the NLL is an upper bound
    ("EBM (conditional)", True, 8.30, NAN, 37.9, NAN, NAN, False),
    ("JEM", True, 8.76, NAN, 38.4, NAN, NAN, False),
    ("BigGAN", True, 9.22, NAN, 14.73, NAN, NAN, False),
    ("StyleGAN2 + ADA (v1; conditional)", True, 10.06, NAN, 2.67, NAN, NAN, False),
    ("Diffusion (original)", False, NAN, NAN, NAN, 5.40, NAN, True),
    ("Gated PixelCNN", False, 4.60, NAN, 65.93, 3.03, 2.90, False),
    ("Sparse Transformer", False, NAN, NAN, NAN, 2.80, NAN, False),
    ("PixelIQN", False, 5.29, NAN, 49.46, NAN, NAN, False),
    ("EBM", False, 6.78, NAN, 38.2, NAN, NAN, False),
    ("NCSNv2", False, NAN, NAN, 31.75, NAN, NAN, False),
    ("NCSN", False, 8.87, 0.12, 25.32, NAN, NAN, False),
    ("SNGAN", False, 8.22, 0.05, 21.7, NAN, NAN, False),
    ("SNGAN-DDLS", False, 9.09, 0.10, 15.42, NAN, NAN, False),
    ("StyleGAN2 + ADA (v1)", False, 9.74, 0.05, 3.26, NAN, NAN, False),
    ("DDPM (L, fixed isotropic Sigma)", False, 7.67, 0.13, 13.51, 3.70, 3.69, True),
    ("DDPM (L_simple)", False, 9.46, 0.11, 3.17, 3.75, 3.72, True),
]

_TABLE_2 = [
    # prediction, objective, variance, IS, its std, FID
    ("mu", "L", "learned", 7.28, 0.10, 23.69),
    ("mu", "L", "fixed", 8.06, 0.09, 13.22),
    ("mu", "MSE", "fixed", NAN, NAN, NAN),
    ("eps", "L", "learned", NAN, NAN, NAN),
    ("eps", "L", "fixed", 7.67, 0.13, 13.51),
    ("eps", "MSE", "fixed", 9.46, 0.11, 3.17),
]

_TABLE_3 = [
    # model, FID on LSUN Bedroom, Church, Cat at 256 x 256
    ("ProgressiveGAN", 8.34, 6.42, 37.52),
    ("StyleGAN", 2.65, 4.21, 8.53),
    ("StyleGAN2", NAN, 3.86, 6.93),
    ("DDPM (L_simple)", 6.36, 7.89, 19.75),
    ("DDPM (L_simple, large)", 4.90, NAN, NAN),
]

_TABLE_4 = [
    # reverse steps taken, rate in bits/dim received before them, RMSE of the estimate of x_0 on 0-255
    (1000, 1.77581, 0.95136),
    (900, 0.11994, 12.02277),
    (800, 0.05415, 18.47482),
    (700, 0.02866, 24.43656),
    (600, 0.01507, 30.80948),
    (500, 0.00716, 38.03236),
    (400, 0.00282, 46.12765),
    (300, 0.00081, 54.18826),
    (200, 0.00013, 60.97170),
    (100, 0.00000, 67.60125),
]


def table_1() -> pd.DataFrame:
    """CIFAR-10 sample quality and NLL of this and other models."""
    columns = ["model", "conditional", "inception_score", "inception_score_std", "fid"]
    columns += ["nll_test_bits_per_dim", "nll_train_bits_per_dim", "nll_is_bound"]
    return _rows(_TABLE_1, columns, "Table 1")


def table_2() -> pd.DataFrame:
    """The ablation on CIFAR-10.

    Blank cells "were unstable to train and generated poor samples with out-of-range scores". The objective
    ``MSE`` of eps is the paper's L_simple, that of mu its unweighted mean squared error.
    """
    columns = ["prediction", "objective", "variance", "inception_score", "inception_score_std", "fid"]
    return _rows(_TABLE_2, columns, "Table 2")


def table_3() -> pd.DataFrame:
    """FID on LSUN at 256 x 256."""
    return _rows(_TABLE_3, ["model", "lsun_bedroom_fid", "lsun_church_fid", "lsun_cat_fid"], "Table 3")


def table_4() -> pd.DataFrame:
    """Progressive lossy compression of the CIFAR-10 test set (the numbers of Fig. 5)."""
    return _rows(_TABLE_4, ["reverse_steps", "rate_bits_per_dim", "rmse_255"], "Table 4")


def score_text(score: float, std: float) -> str:
    """Return an Inception score as the paper prints it, ``9.46 ± 0.11``; empty for a blank."""
    if math.isnan(score):
        return ""
    return f"{score:.2f}" if math.isnan(std) else f"{score:.2f} ± {std:.2f}"


def bits_text(bits_per_dim: float, is_bound: bool) -> str:
    """Return bits/dim as the paper prints them, ``≤ 3.75`` where they are a bound; empty for a blank."""
    if math.isnan(bits_per_dim):
        return ""
    return f"{'≤ ' if is_bound else ''}{bits_per_dim:.2f}"


def _rows(rows: Sequence[tuple[object, ...]], columns: list[str], table: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns).assign(source=f"{PAPER}, {table}")
