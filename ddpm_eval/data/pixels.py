"""The only mapping between 8-bit pixels and the model's range [-1, 1]."""

import torch
from torch import Tensor


def to_model_range(images: Tensor) -> Tensor:
    """Map 8-bit levels u to ``2 u / 255 - 1``, float32 in [-1, 1], correctly rounded.

    Raises:
        ValueError: if ``images`` is not uint8.
    """
    if images.dtype != torch.uint8:
        raise ValueError(
            f"images must be 8-bit levels (uint8), but are {images.dtype} (already in the model's range?)"
        )
    return (2 * images.float() - 255) / 255


def to_pixels(x: Tensor) -> Tensor:
    """Map the model's range to 8-bit levels: clip to [-1, 1] and round; the inverse of `to_model_range`.

    Raises:
        ValueError: if an element is NaN, which has no level.
    """
    if x.isnan().any():
        raise ValueError(f"{int(x.isnan().sum())} of {x.numel()} elements are NaN and have no 8-bit level")
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
