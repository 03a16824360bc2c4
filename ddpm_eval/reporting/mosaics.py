"""Grids of images as pixels, and as PNG in the page itself.

Images are uint8 ``[image, channel, row, column]``; grey ones are shown as three equal channels.
"""

import io
from base64 import b64encode

import numpy as np
from PIL import Image

from ddpm_eval.results.fields import Array


def mosaic(images: Array, columns: int) -> Array:
    """Lay images out on white, row by row, one pixel apart.

    Args:
        images: uint8 ``[image, channel, row, column]``.
        columns: images per row.

    Returns:
        uint8 ``[row, column, 3]``.
    """
    rows = -(-len(images) // columns)
    height, width = images.shape[2:]
    canvas = np.full((rows * (height + 1), columns * (width + 1), 3), 255, dtype=np.uint8)
    for k, image in enumerate(images):
        top = k // columns * (height + 1)
        left = k % columns * (width + 1)
        colour = np.broadcast_to(image, (3, height, width))
        canvas[top : top + height, left : left + width] = np.moveaxis(colour, 0, -1)
    return canvas[:-1, :-1]


def png(canvas: Array) -> bytes:
    """Encode uint8 ``[row, column, 3]`` as PNG, without loss; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def data_uri(content: bytes) -> str:
    """Return the address under which a page holds a PNG file within itself."""
    return f"data:image/png;base64,{b64encode(content).decode()}"
