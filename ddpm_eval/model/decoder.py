"""The discretised Gaussian decoder, Eq. 13: the negative log likelihood of 8-bit images.

Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, section 3.3.
"""

import math

import torch
from torch import Tensor

from ddpm_eval.spec import Decoder

HALF_BIN = 1 / 255  # half the width of one of 256 levels on [-1, 1]
TANH_FLOOR = 1e-12  # the smallest probability of the authors' decoder


def decoder_nll(x_0: Tensor, mean: Tensor, log_variance: Tensor, decoder: Decoder = "exact") -> Tensor:
    """Return -log p(x_0 | x_1) of 8-bit images under the discretised Gaussian decoder, Eq. 13.

    The density is integrated over the bin of width 2/255 around each level; the two outer bins extend to
    infinity. The decoder ``exact`` works in log space with the normal CDF and has no floor; ``tanh`` is the
    authors' approximation of the CDF, with their floor of 1e-12 on the probability.

    Args:
        x_0: the images in [-1, 1], on the 256 levels.
        mean: the mean of the Gaussian, shaped like ``x_0``.
        log_variance: the logarithm of its variance, which broadcasts to ``x_0``.
        decoder: the form of the CDF.

    Returns:
        Nats per element, shaped like ``x_0``.
    """
    scale = torch.exp(-0.5 * log_variance)
    first, final = x_0 < -1 + HALF_BIN, x_0 > 1 - HALF_BIN
    if decoder == "tanh":
        cdf_upper = _tanh_cdf((x_0 + HALF_BIN - mean) * scale).masked_fill(final, 1.0)
        cdf_lower = _tanh_cdf((x_0 - HALF_BIN - mean) * scale).masked_fill(first, 0.0)
        return -(cdf_upper - cdf_lower).clamp(min=TANH_FLOOR).log()
    centre, half_width = (x_0 - mean) * scale, HALF_BIN * scale
    edge = half_width + torch.where(first, centre, -centre)
    outer = first | final
    tail = _log_normal_cdf(torch.where(outer, edge, 0))
    return -torch.where(outer, tail, _log_normal_mass(torch.where(outer, 0, centre), half_width))


def _log_normal_mass(centre: Tensor, half_width: Tensor) -> Tensor:
    """Return the logarithm of the standard normal's mass on ``centre +- half_width``.

    The value and its gradient are precise in every regime, unlike the gradient of `torch.special.log_ndtr`,
    which in float32 loses all digits beyond a few hundred standard deviations.
    """
    distance = centre.abs()
    lower, upper = -half_width - distance, half_width - distance
    # an interval astride the mean: a sum of two positive parts
    astride = torch.erf(upper.clamp(min=0) / math.sqrt(2)) - torch.erf(lower / math.sqrt(2))
    near = torch.log(astride / 2)
    # in the tail: Phi(x) = exp(-x^2 / 2) erfcx(-x / sqrt 2) / 2, the nearer edge's exponential taken out
    edge = upper.clamp(max=0)
    ratio = torch.exp(-2 * half_width * distance)
    mills = torch.special.erfcx(-edge / math.sqrt(2)) - ratio * torch.special.erfcx(-lower / math.sqrt(2))
    narrow = half_width * distance.clamp(min=1) < 0.1
    far = -edge.square() / 2 + torch.log(torch.where(narrow, 1, mills) / 2)
    # a narrow interval: the density's Taylor series, integrated
    a = torch.where(narrow, half_width, 0).square()
    b = a * torch.where(narrow, centre, 0).square()
    series = (b - a) / 6 + (b**2 - 6 * a * b + 3 * a**2) / 120
    series = series + (b**3 - 15 * a * b**2 + 45 * a**2 * b - 15 * a**3) / 5040
    taylor = torch.log(2 * half_width) - centre.square() / 2 - math.log(2 * math.pi) / 2 + torch.log1p(series)
    return torch.where(narrow, taylor, torch.where(upper > 0, near, far))


def _log_normal_cdf(x: Tensor) -> Tensor:
    """Return log Phi(x), whose value and gradient are precise in the far left tail."""
    left = x.clamp(max=0)
    tail = -left.square() / 2 + torch.log(torch.special.erfcx(-left / math.sqrt(2)) / 2)
    return torch.where(x < 0, tail, torch.log1p(-torch.erfc(x.clamp(min=0) / math.sqrt(2)) / 2))


def _tanh_cdf(x: Tensor) -> Tensor:
    """Return the authors' approximation of the normal CDF."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
