"""Noise as a function of (seed, stream, image, step), and never of batch size, process count or history.

A counter-based generator (Philox 4x32-10) is evaluated with tensor arithmetic on the device of the images. It
gives the same integers on every device; the normals agree to float64 rounding before the final cast.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
"""

import math
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


class Stream(IntEnum):
    """The purposes of noise, each of which draws from a stream of its own.

    The numbers are part of the results and must never be changed or used again.
    """

    SAMPLE = 1
    BOUND = 2
    INTERPOLATE = 3
    GAUSSIAN_DATA = 4
    BOUND_EXTRA_DRAWS = 1 << 16  # plus the number of the draw


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encrypt 128-bit counters by ten rounds of Philox 4x32.

    Args:
        counter: four int64 tensors of one shape (or broadcastable), each holding 32-bit unsigned values.
        key: two 32-bit unsigned values.

    Returns:
        Four int64 tensors of 32-bit unsigned values, uniform and independent.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # the products wrap around in int64, which leaves their 64 bits right
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> 32 & _MASK) ^ c1 ^ k0,
            product1 & _MASK,
            (product0 >> 32 & _MASK) ^ c3 ^ k1,
            product0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def normal(
    seed: int, stream: int, image: Tensor, t: Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """Draw standard normal noise for pairs of image and time step.

    Args:
        seed: an integer in 0..2**63 - 1.
        stream: the purpose of the noise, see `Stream`.
        image: int64 image ids in 0..2**32 - 1, shape ``[batch]``; the result is on their device.
        t: int64 time steps in 0..2**32 - 1, shape ``[batch]`` or ``[1]``.
        shape: the shape of one image.
        dtype: the dtype of the result; the arithmetic is float64.

    Returns:
        The noise, shape ``[batch, *shape]``.
    """
    size = math.prod(shape)
    block = torch.arange((size + 3) // 4, device=image.device)
    like = torch.zeros(len(image), len(block), dtype=torch.int64, device=image.device)
    words = philox(
        (like + block, like + t[:, None], like + image[:, None], like + stream),
        (seed & _MASK, seed >> 32 & _MASK),
    )
    u0, u1, u2, u3 = ((word.double() + 0.5) * 2.0**-32 for word in words)
    r0, r1 = (-2 * u0.log()).sqrt(), (-2 * u2.log()).sqrt()  # Box-Muller
    a0, a1 = 2 * math.pi * u1, 2 * math.pi * u3
    noise = torch.stack([r0 * a0.cos(), r0 * a0.sin(), r1 * a1.cos(), r1 * a1.sin()], dim=-1)
    return noise.reshape(len(image), -1)[:, :size].reshape(len(image), *shape).to(dtype)


def derive_seed(seed: int, *index: int) -> int:
    """Return a 63-bit seed for a library's generator, a hash of a seed and any number of indices.

    All arguments are in 0..2**64 - 1.
    """
    # two words for each value, and their number in front, so that no two lists of arguments look the same
    words = [word for value in (seed, *index) for word in (value & _MASK, value >> 32)]
    return int(np.random.SeedSequence((len(index), *words)).generate_state(1, np.uint64)[0] >> np.uint64(1))
