"""Encoded images, decoded to 8-bit pixels.

An image is used as it is or refused with a sentence that names it: it must be 8-bit grayscale or RGB, of the
wanted channels and size. Only where a `Shape` says ``crop`` is it cropped, centred, to a square and resized
(Pillow's Lanczos filter, which averages when it shrinks). An orientation tag is followed, as any viewer does.

What a file claims to be is checked by its header before it is decoded: an image of more than `MOST_PIXELS` is
refused, and a named pipe, a device or a socket among the images is never opened.
"""

import io
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ddpm_eval.data.errors import one_line
from ddpm_eval.data.image_set import Pixels
from ddpm_eval.host_memory import usable_cores

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")
CHANNELS = {"L": 1, "RGB": 3}
"""Of the modes that are read."""
MOST_PIXELS = 2**26
"""Of an image that is to be cropped: 8192 x 8192, which take 200 MB in colour."""
LARGE_PIXELS = 2**24
"""Images of more pixels are decoded by at most as many threads at once as there are cores."""

_large_images = threading.BoundedSemaphore(usable_cores())


@dataclass(frozen=True)
class Shape:
    """What an image must be, and whether it may be cropped and resized to it."""

    channels: int
    side: int
    crop: bool

    def objection(self, image: Image.Image) -> str | None:
        """Say why an image cannot be used, judging by its header."""
        channels = CHANNELS.get(image.mode)
        if channels is None:
            return f"is of mode {image.mode}, but 8-bit grayscale (L) and RGB are read (convert it)"
        if channels != self.channels:
            return (
                f"has {channels} channels, but the run asks for {self.channels} "
                f"(set data.channels={channels}, or convert it)"
            )
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            return "holds more than one image"  # a camera's MPO is a photograph with extras
        if not self.crop and image.size != (self.side, self.side):
            found, wanted = f"{image.width}x{image.height}", f"{self.side}x{self.side}"
            return (
                f"is {found} pixels, but the run asks for {wanted} (folder@{self.side}:DIR crops and resizes)"
            )
        if image.width * image.height > MOST_PIXELS:
            return (
                f"is {image.width}x{image.height} pixels, but {MOST_PIXELS} in all are the most (resize it)"
            )
        return None

    def pixels(self, image: Image.Image) -> Pixels:
        """Decode to ``[channels, side, side]``."""
        with _large_images if image.width * image.height > LARGE_PIXELS else nullcontext():
            return self._pixels(image)

    def _pixels(self, image: Image.Image) -> Pixels:
        image = ImageOps.exif_transpose(image)
        if self.crop:
            image = _centre_square(image)
        if image.size != (self.side, self.side):
            image = image.resize((self.side, self.side), Image.Resampling.LANCZOS)
        levels = np.asarray(image)
        return levels[None] if levels.ndim == 2 else levels.transpose(2, 0, 1)


def images_in(directory: Path) -> list[Path]:
    """List the images below a folder, recursively, in the order of their relative paths.

    Images are files with one of `SUFFIXES` that are not hidden; links to folders are not followed.

    Raises:
        ValueError: if the folder is missing, unreadable, or holds none, or one of them is no regular file (a
            named pipe, a device, a socket, or a link that leads nowhere or in a circle).
    """
    if not directory.is_dir():
        raise ValueError(
            f"{directory} is a file, not a folder"
            if directory.exists()
            else f"there is no folder {directory}"
        )
    files = []
    for folder, _, names in os.walk(directory, onerror=_unreadable):
        files += [Path(folder, name) for name in names if name[0] != "." and name.lower().endswith(SUFFIXES)]
    if not files:
        raise ValueError(f"{directory} holds no images (files that end in {', '.join(SUFFIXES)} are read)")
    for file in files:
        check_regular(file)
    return sorted(files, key=lambda file: file.relative_to(directory).as_posix())


def check_regular(path: Path) -> None:
    """Refuse a path at which there is something else than a regular file, which must not be opened.

    Raises:
        ValueError: if it is a named pipe, a device, a socket, or a link that leads nowhere or in a circle.
    """
    if os.path.lexists(path) and not path.is_file():
        raise ValueError(f"{path} is no regular file, or a link that leads to none (remove it)")


def shape_of(file: Path) -> tuple[str, int, int]:
    """Return the mode, width and height of an image, by its header.

    Raises:
        ValueError: if it is unreadable.
    """
    try:
        with Image.open(file) as image:
            return image.mode, image.width, image.height
    except Exception as error:  # whatever a decoder raises on a damaged file
        raise ValueError(f"{file} cannot be decoded ({one_line(error)})") from error


def decode(file: Path | io.BytesIO, name: str, shape: Shape) -> Pixels:
    """Read an image, uint8 ``[channels, side, side]``.

    Raises:
        ValueError: with the image's ``name``, if it is damaged or not of the shape.
    """
    try:
        with Image.open(file) as image:
            if not (objection := shape.objection(image)):
                return shape.pixels(image)
    except Exception as error:
        objection = f"cannot be decoded ({one_line(error)})"
    raise ValueError(f"{name} {objection}")


def decode_file(files: Sequence[Path], shape: Shape, index: int) -> Pixels:
    """Read the image at position ``index`` of ``files``; see `decode`."""
    return decode(files[index], str(files[index]), shape)


def decode_all(read: Callable[[int], Pixels], shape: Shape, n: int) -> Pixels:
    """Read n images by their index, uint8 ``[n, channels, side, side]``.

    Raises:
        ValueError: counting all that cannot be used, and naming the first.
    """
    images = np.empty((n, shape.channels, shape.side, shape.side), np.uint8)

    def fill(index: int) -> None:
        images[index] = read(index)

    _try_each(fill, n)
    return images


def check_headers(files: Sequence[Path], shape: Shape) -> None:
    """Check mode and size of all files without decoding them.

    Raises:
        ValueError: counting all that cannot be used, and naming the first.
    """

    def check(index: int) -> None:
        try:
            with Image.open(files[index]) as image:
                objection = shape.objection(image)
        except Exception as error:
            objection = f"cannot be decoded ({one_line(error)})"
        if objection:
            raise ValueError(f"{files[index]} {objection}")

    _try_each(check, len(files))


def _centre_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _try_each(action: Callable[[int], None], n: int) -> None:
    """Do something with each index, and raise one error that counts the failures and names the first."""

    def problem(index: int) -> str | None:
        try:
            action(index)
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        problems = [p for p in pool.map(problem, range(n)) if p]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{len(problems)} of {n} images cannot be used: {'; '.join(problems[:3])}{more}")


def _unreadable(error: OSError) -> None:
    raise ValueError(f"the folder {error.filename} cannot be read: {error.strerror}") from error
