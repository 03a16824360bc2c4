"""Folders of encoded images.

A folder's images are listed in the order of their relative paths. If it has subfolders ``train`` or
``test``, these are its splits and an id is a position in a split; otherwise every tenth image is a test
image and an id is a position in the whole folder.
"""

from functools import partial
from pathlib import Path

import numpy as np

from ddpm_eval.data.image_files import (
    CHANNELS,
    Shape,
    check_headers,
    decode_all,
    decode_file,
    images_in,
    shape_of,
)
from ddpm_eval.data.image_set import Ids, ImageSet, fits_in_memory, in_memory_set, streamed_set
from ddpm_eval.data.splits import every_nth
from ddpm_eval.spec import DataSpec

TEST_EVERY = 10
"""Of the images of a folder without splits."""


def read_folder(spec: DataSpec, split: str, directory: Path, side: int | None) -> ImageSet:
    """Read a split of a folder.

    Args:
        spec: the data set's name and the shape that its images must have.
        split: ``train``, ``test`` or ``all``.
        directory: the folder.
        side: side in pixels to which images are cropped and resized; None if they are used as they are.

    Raises:
        ValueError: if an image is unusable, or the specification asks for another side.
    """
    if side not in (None, spec.side):
        raise ValueError(
            f"{spec.name} resizes to {side} pixels, but the run asks for {spec.side} (set data.side={side})"
        )
    if split != "all" and any((directory / part).is_dir() for part in ("train", "test")):
        files = images_in(directory / split)
        ids = np.arange(len(files))
    else:
        found = images_in(directory)
        ids = every_nth(len(found), TEST_EVERY, split)
        files = [found[i] for i in ids]
    return set_of_files(spec, split, files, ids, directory, crop=side is not None)


def inspect_folder(directory: Path, side: int | None) -> tuple[int, int]:
    """Return the channels and the side in pixels of a folder's first image, or ``side`` if it is resized.

    Raises:
        ValueError: if that image is unusable.
    """
    first = images_in(directory)[0]
    mode, width, height = shape_of(first)
    if mode not in CHANNELS:
        raise ValueError(f"{first} is of mode {mode}, but 8-bit grayscale (L) and RGB are read (convert it)")
    if side is None and width != height:
        raise ValueError(
            f"{first} is {width}x{height} pixels, but images must be square "
            "(folder@SIDE:DIR crops and resizes)"
        )
    return CHANNELS[mode], side or width


def set_of_files(
    spec: DataSpec, split: str, files: list[Path], ids: Ids, base: Path, *, crop: bool
) -> ImageSet:
    """Make an image set of files, held in memory where it fits and otherwise read when it is needed.

    Args:
        spec: the data set's name and the shape that its images must have.
        split: of the data set.
        files: one per image.
        ids: int64 ``[n]``.
        base: folder below which the files lie; a streamed set's digest covers the paths from there on.
        crop: whether images are cropped and resized to the shape.

    Raises:
        ValueError: if an image is unusable.
    """
    shape = Shape(spec.channels, spec.side, crop)
    read = partial(decode_file, files, shape)
    if fits_in_memory(len(files), spec.channels, spec.side):
        return in_memory_set(spec.name, split, decode_all(read, shape, len(files)), ids)
    check_headers(files, shape)
    content = [f"{file.relative_to(base)} {file.stat().st_size}" for file in files]
    return streamed_set(spec.name, split, read, ids, (spec.channels, spec.side), content)
