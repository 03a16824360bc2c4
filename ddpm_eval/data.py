"""Data sets as 8-bit images with stable ids, and the only mapping between pixels and the model's range.

Conventions: images are uint8 ``[n, channels, side, side]`` with levels 0..255; the model sees float32 in [-1, 1]. An id
names an image within its split (or, where a split is made here, within the whole set) and never changes; an index is a
position in an `ImageSet`. Small sets are held as one array, larger ones are read from disk image by image.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddpm_eval.records import Array
from ddpm_eval.spec import DataSpec

Ids = npt.NDArray[np.int64]
Split = Literal["train", "test"]
DIGITS_TEST_EVERY = 5


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A split of a data set.

    Attributes:
        name: of the data set, as in the specification.
        split: ``train`` or ``test``.
        ids: stable ids, int64 ``[n]``.
        labels: class of each image, int64 ``[n]``, or None where the set has none.
        inexact: ids whose pixels are known not to be bit-exact: left out of likelihood figures.
        digest: 12 hexadecimal digits that identify the content (of a streamed set: names and sizes of its files).
        channels: 1 or 3.
        side: in pixels.
        source: the images, or how to read one by its index.
    """

    name: str
    split: str
    ids: Ids
    labels: Ids | None
    inexact: Ids
    digest: str
    channels: int
    side: int
    source: npt.NDArray[np.uint8] | Callable[[int], npt.NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def in_memory(self) -> bool:
        """Whether all images are held as one array."""
        return isinstance(self.source, np.ndarray)

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """All images, uint8 ``[n, channels, side, side]``; only for a set that is `in_memory`."""
        if not isinstance(self.source, np.ndarray):
            raise ValueError(f"{self.name} is streamed from disk: its {len(self)} images are not held in memory")
        return self.source

    def take(self, index: Ids) -> npt.NDArray[np.uint8]:
        """Return the images at positions ``index`` (not ids), uint8 ``[len(index), channels, side, side]``."""
        if isinstance(self.source, np.ndarray):
            return self.source[index]
        images = np.empty((len(index), self.channels, self.side, self.side), np.uint8)
        for row, i in enumerate(index):
            images[row] = self.source(int(i))
        return images


def to_model_range(images: Tensor) -> Tensor:
    """Map 8-bit levels u to ``2 u / 255 - 1``, float32 in [-1, 1], correctly rounded.

    Raises:
        ValueError: if ``images`` is not uint8.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be 8-bit levels (uint8), but are {images.dtype} (already in the model's range?)")
    return (2 * images.float() - 255) / 255


def to_pixels(x: Tensor) -> Tensor:
    """Map the model's range to 8-bit levels: clip to [-1, 1], round to nearest; the inverse of `to_model_range`.

    Raises:
        ValueError: if an element is NaN, which has no level.
    """
    if x.isnan().any():
        raise ValueError(f"{int(x.isnan().sum())} of {x.numel()} elements are NaN and have no 8-bit level")
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def load(spec: DataSpec, split: str, root: Path | None = None) -> ImageSet:
    """Load a split of a data set.

    Args:
        spec: the data set's name and the shape that its images must have.
        split: ``train`` or ``test``.
        root: folder of downloaded data sets.

    Raises:
        ValueError: with one sentence, for anything that the user must change.
    """
    if split not in ("train", "test"):
        raise ValueError(f"there is no split {split!r} (train and test are)")
    if spec.name == "digits":
        return _digits(spec, split)
    raise ValueError(f"there is no data set {spec.name!r} (digits is)")


def _digits(spec: DataSpec, split: str) -> ImageSet:
    """The 1,797 handwritten digits of scikit-learn, 8x8 with 17 levels, scaled to 8 bits; every fifth is a test image."""
    from sklearn.datasets import load_digits

    levels, labels = load_digits(return_X_y=True)
    images = np.round(levels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    ids = np.arange(len(images))
    ids = ids[(ids % DIGITS_TEST_EVERY == 0) == (split == "test")]
    return _hold(spec, split, images[ids], ids, labels[ids].astype(np.int64))


def _hold(
    spec: DataSpec,
    split: str,
    images: npt.NDArray[np.uint8],
    ids: Ids,
    labels: Ids | None = None,
    inexact: Ids | None = None,
) -> ImageSet:
    _, channels, side, _ = images.shape
    _check_shape(spec, channels, side)
    inexact = np.array([], np.int64) if inexact is None else inexact
    digest = _digest(images, ids, inexact, *([] if labels is None else [labels]))
    return ImageSet(spec.name, split, ids, labels, inexact, digest, channels, side, np.ascontiguousarray(images))


def _check_shape(spec: DataSpec, channels: int, side: int) -> None:
    if (channels, side) != (spec.channels, spec.side):
        raise ValueError(
            f"images of {spec.name} have {channels} channels and {side} pixels a side, but the run asks for {spec.channels} "
            f"and {spec.side} (set data.channels={channels} and data.side={side}, or choose another preset)"
        )


def _digest(*arrays: Array) -> str:
    content = hashlib.sha256()
    for a in arrays:
        content.update(f"{a.dtype} {a.shape}".encode())
        content.update(np.ascontiguousarray(a).data)
    return content.hexdigest()[:12]
