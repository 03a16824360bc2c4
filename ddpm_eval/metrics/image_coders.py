"""Codelengths of image coders in use: bits/dim of a whole test set, coded without loss as one image.

The images are laid side by side on a sheet, row by row, and Pillow codes the sheet. The file counts only if
decoding it returns every pixel. The bits are those of the whole file, headers included. Unlike a model of
single images, a coder may learn from one image for the next, and use what neighbours on the sheet have in
common: give the images in an order in which neighbours belong together.
"""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import PIL
from PIL import Image

from ddpm_eval.data.errors import one_line
from ddpm_eval.data.image_set import Pixels, as_images


@dataclass(frozen=True)
class Coder:
    """An image format with the options of Pillow that make it lossless.

    Attributes:
        name: of the format.
        pillow_name: the format's name in Pillow.
        options: of Pillow's `Image.save`.
    """

    name: str
    pillow_name: str
    options: Mapping[str, int]


CODERS = (
    Coder("PNG", "PNG", {"optimize": True}),
    Coder("WebP", "WEBP", {"lossless": True}),
    Coder("JPEG XL", "JXL", {"lossless": True}),
    Coder("AVIF", "AVIF", {"quality": 100}),
)
"""Pillow itself has no JPEG XL, but a plugin may add it; its AVIF is exact for grayscale only, as it converts
colours to YCbCr.
"""


@dataclass(frozen=True)
class CodedSheet:
    """What one coder made of the images.

    Attributes:
        coder: the coder's name.
        options: the options, in one phrase.
        pillow: the version of Pillow.
        n_images: images on the sheet.
        dimensions: elements of all images together, blank cells of the sheet not counted.
        height: of the sheet in pixels.
        width: of the sheet in pixels.
        size_bytes: the size of the file; None if the images could not be coded without loss.
        reason: why they could not; empty if they could.
    """

    coder: str
    options: str
    pillow: str
    n_images: int
    dimensions: int
    height: int
    width: int
    size_bytes: int | None
    reason: str = ""

    @property
    def bits_per_dim(self) -> float:
        """Bits of the file for each element of the images; NaN if they could not be coded without loss."""
        return math.nan if self.size_bytes is None else 8 * self.size_bytes / self.dimensions


def code_images(images: Pixels, coders: tuple[Coder, ...] = CODERS) -> tuple[CodedSheet, ...]:
    """Code images as one sheet with each coder.

    Args:
        images: uint8 ``[n, 1 or 3, height, width]``, in an order in which neighbours belong together.
        coders: the coders.

    Returns:
        One result for each coder, in their order.

    Raises:
        ValueError: if the images are not such an array, or none.
    """
    as_images(images)
    sheet = image_sheet(images)
    return tuple(_code(coder, sheet, images) for coder in coders)


def image_sheet(images: Pixels) -> Pixels:
    """Lay images row by row on a sheet that is about as many images wide as high.

    Args:
        images: ``[n, channels, height, width]``.

    Returns:
        The sheet ``[rows, columns, channels]``, without the last axis for one channel. Cells after the last
        image are black.
    """
    n, channels, height, width = images.shape
    down = math.ceil(n / math.ceil(math.sqrt(n)))
    across = math.ceil(n / down)
    cells = np.zeros((down * across, channels, height, width), np.uint8)
    cells[:n] = images
    grid = cells.reshape(down, across, channels, height, width).transpose(0, 3, 1, 4, 2)
    sheet = np.ascontiguousarray(grid.reshape(down * height, across * width, channels))
    return sheet[..., 0] if channels == 1 else sheet


def encode(sheet: Pixels, coder: Coder) -> bytes:
    """Code a sheet without loss.

    Args:
        sheet: uint8 ``[rows, columns]`` or ``[rows, columns, 3]``.
        coder: the coder.

    Raises:
        ValueError: if Pillow has no such coder, the coder fails, or decoding returns other pixels.
    """
    Image.init()
    if coder.pillow_name not in Image.SAVE or coder.pillow_name not in Image.OPEN:
        raise ValueError(f"Pillow {PIL.__version__} cannot write and read {coder.name}")
    file = io.BytesIO()
    original = Image.fromarray(sheet)
    try:
        original.save(file, format=coder.pillow_name, **coder.options)
        decoded = Image.open(file, formats=[coder.pillow_name]).convert("RGB")
    except Exception as error:  # whatever a coder raises
        raise ValueError(f"{coder.name} failed: {one_line(error)}") from error
    if not np.array_equal(np.asarray(decoded), np.asarray(original.convert("RGB"))):
        raise ValueError(f"{coder.name} of Pillow {PIL.__version__} is not exact: other pixels are decoded")
    return file.getvalue()


def _code(coder: Coder, sheet: Pixels, images: Pixels) -> CodedSheet:
    size, reason = None, ""
    try:
        size = len(encode(sheet, coder))
    except ValueError as error:
        reason = str(error)
    return CodedSheet(
        coder=coder.name,
        options=", ".join(f"{option} {value}" for option, value in coder.options.items()),
        pillow=PIL.__version__,
        n_images=len(images),
        dimensions=images.size,
        height=sheet.shape[0],
        width=sheet.shape[1],
        size_bytes=size,
        reason=reason,
    )
