"""Images with stable ids: a split of a data set, and anything else that can be measured.

Conventions: images are uint8 ``[n, channels, height, width]`` with levels 0..255; those of an `ImageSet` are
square. An id names an image within its split (or, where the split is made here, within the whole set) and
never changes. An index is a position in the set.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ddpm_eval.files import content_digest

Pixels = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int64]

MEMORY_LIMIT_BYTES = 2**30
"""A set of encoded images of up to this size is held as one array; a larger one is read image by image."""


class Images(Protocol):
    """Anything that has a length and returns the images at given positions."""

    def __len__(self) -> int:
        """Return the number of images."""

    def take(self, index: Ids) -> Pixels:
        """Return the images at positions ``index``, uint8 ``[len(index), channels, height, width]``."""


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """An array of images, uint8 ``[n, channels, height, width]``, to be measured."""

    array: Pixels

    def __len__(self) -> int:
        return len(self.array)

    def take(self, index: Ids) -> Pixels:
        """Return the images at positions ``index``."""
        return np.asarray(self.array[index])


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A split of a data set, with stable ids; `load_images` makes one.

    Example:
        >>> images = ddpm_eval.load_images("digits", "test")
        >>> images.array.shape, images.ids[:3].tolist(), images.labels[:3].tolist()
        ((360, 1, 8, 8), [2, 5, 6], [2, 5, 6])

    Attributes:
        name: of the data set, as in the specification.
        split: ``train``, ``test`` or ``all``.
        ids: stable ids, int64 ``[n]``.
        labels: class of each image, int64 ``[n]``, or None where the set has none.
        inexact: ids whose pixels are known not to be bit-exact: they are left out of likelihood figures.
        digest: 12 hexadecimal digits that identify the content (of a streamed set: file names and sizes).
        channels: 1 or 3.
        side: in pixels.
        source: the images, or a function that reads one by its index.
    """

    name: str
    split: str
    ids: Ids
    labels: Ids | None
    inexact: Ids
    digest: str
    channels: int
    side: int
    source: Pixels | Callable[[int], Pixels]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def in_memory(self) -> bool:
        """Whether all images are held as one array."""
        return isinstance(self.source, np.ndarray)

    @property
    def array(self) -> Pixels:
        """All images, uint8 ``[n, channels, side, side]``; only for a set that is `in_memory`."""
        if not isinstance(self.source, np.ndarray):
            raise ValueError(
                f"{self.name} is streamed from disk: its {len(self)} images are not held in memory"
            )
        return self.source

    def take(self, index: Ids) -> Pixels:
        """Return the images at positions ``index`` (not ids), uint8 ``[len(index), channels, side, side]``.

        Raises:
            ValueError: if an image of a streamed set is unreadable; it is named.
        """
        if isinstance(self.source, np.ndarray):
            return self.source[index]
        images = np.empty((len(index), self.channels, self.side, self.side), np.uint8)
        for row, i in enumerate(index):
            images[row] = self.source(int(i))
        return images

    def subset(self, index: Ids) -> "ImageSet":
        """Return the images at positions ``index`` with their ids and labels; a streamed set stays one."""
        ids = self.ids[index]
        inexact = np.intersect1d(self.inexact, ids)
        labels = None if self.labels is None else self.labels[index]
        source = self.source
        if isinstance(source, np.ndarray):
            return in_memory_set(self.name, self.split, source[index], ids, labels, inexact)
        return replace(
            self,
            ids=ids,
            labels=labels,
            inexact=inexact,
            digest=content_digest([self.digest, ids]),
            source=lambda i: source(int(index[i])),
        )


def as_images(images: Images | Pixels) -> Images:
    """Check a set of images and return it with `len` and `take`.

    Raises:
        ValueError: if there are none, or an array is not uint8 ``[n, 1 or 3, height, width]``.
    """
    if len(images) == 0:
        raise ValueError("there are no images to measure (an empty set)")
    if not isinstance(images, np.ndarray):
        return images
    if images.dtype != np.uint8:
        raise ValueError(
            f"images must be 8-bit levels (uint8), but are {images.dtype} (round them with to_pixels)"
        )
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must have shape [n, 1 or 3, height, width], but have {list(images.shape)}")
    return ArrayImages(images)


def from_array(
    images: Pixels, name: str = "array", split: str = "test", labels: npt.NDArray[np.integer] | None = None
) -> ImageSet:
    """Make an image set of an array; the ids are 0..n-1.

    Args:
        images: uint8 ``[n, channels, side, side]`` with 1 or 3 channels.
        name: of the set, by which results refer to it.
        split: ``train``, ``test`` or ``all``.
        labels: class of each image, integers ``[n]``.

    Raises:
        ValueError: if the images are not such an array, or the labels are not n integers.
    """
    n, _, height, width = as_images(images).take(np.arange(len(images))).shape
    if height != width:
        raise ValueError(f"images must be square, but have {height}x{width} pixels")
    if labels is not None:
        labels = integer_list(labels, "labels", length=n)
    return in_memory_set(name, split, images, np.arange(n), labels)


def in_memory_set(
    name: str, split: str, images: Pixels, ids: Ids, labels: Ids | None = None, inexact: Ids | None = None
) -> ImageSet:
    """Make an image set of an array ``[n, channels, side, side]``; the digest covers all that is in it."""
    _, channels, side, _ = images.shape
    images = np.ascontiguousarray(images)
    inexact = np.array([], np.int64) if inexact is None else inexact
    digest = content_digest([images, ids, inexact, *([] if labels is None else [labels])])
    return ImageSet(name, split, ids, labels, inexact, digest, channels, side, images)


def streamed_set(
    name: str,
    split: str,
    read: Callable[[int], Pixels],
    ids: Ids,
    shape: tuple[int, int],
    files: Sequence[str],
) -> ImageSet:
    """Make an image set of images that are read when they are needed.

    Args:
        name: of the data set.
        split: of the data set.
        read: returns the image of an index, uint8 ``[channels, side, side]``.
        ids: int64 ``[n]``.
        shape: channels, and side in pixels.
        files: names and sizes of the files, which the digest covers in place of the pixels.
    """
    content = np.frombuffer("\n".join(files).encode(), np.uint8)
    digest = content_digest([content, ids, np.array(shape)])
    return ImageSet(name, split, ids, None, np.array([], np.int64), digest, *shape, read)


def fits_in_memory(n: int, channels: int, side: int) -> bool:
    """Tell whether n decoded images are to be held as one array."""
    return n * channels * side**2 <= MEMORY_LIMIT_BYTES


def integer_list(
    values: npt.NDArray[np.generic], what: str, *, length: int | None = None, below: int | None = None
) -> Ids:
    """Return a list of labels or ids as int64.

    Args:
        values: integers of any type, of one dimension.
        what: the list's name, for messages.
        length: how many there must be.
        below: the limit of ids, if they must lie in ``0 .. below - 1``.

    Raises:
        ValueError: if the values are not such a list.
    """
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(
            f"{what} must be a list of integers, but have shape {values.shape} of {values.dtype}"
        )
    if length is not None and len(values) != length:
        raise ValueError(f"{what} are {len(values)}, but there are {length} images")
    integers = values.astype(np.int64)
    if below is not None and len(integers) and not (0 <= integers.min() and integers.max() < below):
        raise ValueError(f"{what} are ids {integers.min()} to {integers.max()}, but there are {below} images")
    return integers
