"""Codelengths of models that know no image: the least that a model of images must beat.

All are fitted to the training images and score test images, both uint8 ``[n, channels, height, width]``; a
codelength is in bits/dim and comes as one number for each test image, float64 ``[n]``. With n training images
of D pixels (a pixel here is one channel of one place), n_v pixels of level v among all and n_{d,v} images
with level v in pixel d:

- uniform: 1 / k for each of the k levels that occur in training, a code that knows the format alone;
- one histogram: p(v) = (n_v + 1/2) / (n D + 128), that is add-half smoothing over all 256 levels;
- a histogram for each pixel: p_d(v) = (n_{d,v} + p(v)) / (n + 1), that is smoothed as if by one more training
  image whose pixels were distributed like the one histogram.

Sources: Krichevsky and Trofimov, "The performance of universal encoding", 1981 (add-half).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ddpm_eval.data.image_set import Pixels

LEVELS = 256
ADDED = 0.5

Float64 = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HistogramBits:
    """Bits/dim of each test image under the three models, float64 ``[n]``.

    Attributes:
        uniform: under the uniform distribution over the levels that occur in training; infinite for an image
            with another level.
        histogram: under one histogram of all pixels.
        pixel_histograms: under a histogram for each pixel and channel.
        levels: k, the number of levels that occur in training.
    """

    uniform: Float64
    histogram: Float64
    pixel_histograms: Float64
    levels: int


def histogram_bits(train: Pixels, test: Pixels) -> HistogramBits:
    """Fit the three models to training images and score test images.

    Args:
        train: training images, ``[n, channels, height, width]``.
        test: test images of the same shape.

    Raises:
        ValueError: if the images are not uint8, of different shapes, or none.
    """
    _check(train, test)
    counts = level_counts(train)
    return HistogramBits(
        uniform=code_bits(uniform(counts), test),
        histogram=code_bits(one_histogram(counts), test),
        pixel_histograms=code_bits(pixel_histograms(counts), test),
        levels=int(counts.any(axis=0).sum()),
    )


def level_counts(images: Pixels) -> Counts:
    """Count how many images have each level in each pixel, int64 ``[pixel, level]``."""
    pixels = images.reshape(len(images), -1).T
    return np.stack([np.bincount(levels, minlength=LEVELS) for levels in pixels])


def uniform(counts: Counts) -> Float64:
    """Return equal probabilities of the levels that occur, zero of others, ``[1, level]``."""
    occurs = counts.any(axis=0, keepdims=True)
    return occurs / occurs.sum()


def one_histogram(counts: Counts) -> Float64:
    """Return the smoothed frequencies of the levels in all pixels, ``[1, level]``."""
    total = counts.sum(axis=0, keepdims=True)
    return (total + ADDED) / (total.sum() + ADDED * LEVELS)


def pixel_histograms(counts: Counts) -> Float64:
    """Return the smoothed frequencies of the levels in each pixel, ``[pixel, level]``."""
    images = counts.sum(axis=1, keepdims=True)
    return (counts + one_histogram(counts)) / (images + 1)


def code_bits(probability: Float64, images: Pixels) -> Float64:
    """Return -log2 p of images with independent pixels, in bits/dim, ``[n]``.

    Args:
        probability: of each level in each pixel, ``[pixel, level]``, or ``[1, level]`` for all pixels alike.
        images: ``[n, channels, height, width]``.
    """
    with np.errstate(divide="ignore"):  # a level of probability zero takes infinitely many bits
        bits = -np.log2(probability)
    pixels = images.reshape(len(images), -1)
    bits = np.broadcast_to(bits, (pixels.shape[1], LEVELS))
    place = np.arange(pixels.shape[1])
    return np.array([bits[place, levels].mean() for levels in pixels])


def _check(train: Pixels, test: Pixels) -> None:
    for name, images in (("training", train), ("test", test)):
        if images.dtype != np.uint8:
            raise ValueError(f"{name} images must be 8-bit levels (uint8), but are {images.dtype}")
        if images.ndim != 4 or not images.size:
            raise ValueError(
                f"{name} images must have shape [n, channels, height, width], but have {images.shape}"
            )
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(f"training images have shape {train.shape[1:]}, but test images {test.shape[1:]}")
