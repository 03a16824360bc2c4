"""Are samples copies? The training images nearest to each, in pixels and in features, against those of
held-out images.

Conventions: images are uint8 ``[n, channels, side, side]``; distance in pixels is the root mean squared
    difference in 8-bit
levels, in features the Euclidean one. Searches compare float32 products in blocks; the distances that they
report are computed anew in float64, so a copy has distance 0.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from ddpm_eval.data.image_set import Images, ImageSet, as_images
from ddpm_eval.metrics.distances import Estimate, Float64, around
from ddpm_eval.metrics.features import Extractor, match_channels
from ddpm_eval.metrics.quality import collect
from ddpm_eval.results.records import Array, Neighbours
from ddpm_eval.runtime import Progress, silent

Ids = npt.NDArray[np.int64]
Rows = Callable[[Ids], Array]
"""Gives the rows at some positions, ``[k, width]``."""
BLOCK = 2048
"""Rows of either side that are compared at a time."""
MIDDLE_LEVEL = 127.5


def neighbours(
    samples: Images | Array,
    train: ImageSet,
    test: ImageSet,
    extractor: Extractor,
    *,
    mirrored: bool = False,
    count: int = 5,
    shown: int = 8,
    progress: Progress = silent,
) -> Neighbours:
    """Find the training images nearest to each sample, and compare the distances with those of held-out
    images.

    Args:
        samples: uint8 ``[n, channels, side, side]`` or anything with `len` and `take`.
        train: images that the model was trained on.
        test: images that it was not trained on.
        extractor: whose features are compared.
        mirrored: search the training images' mirror images, too, as they belong to the training data where it
            was flipped.
        count: neighbours per sample.
        shown: samples whose images and neighbours are part of the result.
        progress: called while features are computed.

    Raises:
        ValueError: if there are no samples, they do not suit the data set, or there are fewer training images
            than neighbours.
    """
    samples = as_images(samples)
    if not 1 <= count <= len(train):
        raise ValueError(f"{count} neighbours asked for, but {train.name} has {len(train)} training images")
    side = samples.take(np.array([0])).shape[2:]
    if side != (train.side, train.side):
        raise ValueError(
            f"the samples are {side[0]}x{side[1]} pixels, but {train.name}'s images {train.side}x{train.side}"
        )
    candidates = Mirrored(train) if mirrored else train
    sets: tuple[Images, ...] = (samples, test, candidates)
    pixels = [_pixel_rows(images, train.channels) for images in sets]
    features = [_rows_of(collect(images, extractor, progress=progress).features) for images in sets]
    lengths = (len(samples), len(test), len(candidates))
    scale = 1 / np.sqrt(train.channels * train.side**2)
    pixel, pixel_distance, pixel_held_out = _compare(pixels, lengths, count, MIDDLE_LEVEL, scale)
    feature, feature_distance, feature_held_out = _compare(features, lengths, count, 0.0, 1.0)
    first = np.arange(min(shown, len(samples)))
    return Neighbours(
        pixel_id=train.ids[pixel % len(train)],
        pixel_distance=pixel_distance,
        feature_id=train.ids[feature % len(train)],
        feature_distance=feature_distance,
        held_out_pixel_distance=pixel_held_out,
        held_out_feature_distance=feature_held_out,
        shown=_images(samples, first, train.channels),
        shown_pixel=np.stack([candidates.take(row) for row in pixel[first]]),
        shown_feature=np.stack([candidates.take(row) for row in feature[first]]),
        **_named("pixel_memorisation", memorisation(pixel_distance[:, 0], pixel_held_out)),
        **_named("feature_memorisation", memorisation(feature_distance[:, 0], feature_held_out)),
        n_samples=lengths[0],
        n_held_out=lengths[1],
        n_train=len(train),
        mirrored=mirrored,
        features=extractor.name,
        weights_digest=extractor.weights_digest,
    )


@dataclass(frozen=True, eq=False)
class Mirrored:
    """A set's images followed by their mirror images."""

    images: ImageSet

    def __len__(self) -> int:
        return 2 * len(self.images)

    def take(self, index: Ids) -> npt.NDArray[np.uint8]:
        """Return the images at positions ``index``, mirrored from the set's length on."""
        n = len(self.images)
        found = self.images.take(index % n)
        return np.where((index >= n)[:, None, None, None], found[..., ::-1], found)


def memorisation(samples: Float64, held_out: Float64) -> Estimate:
    """Probability that a sample is nearer to its training neighbour than a held-out image, ties counting
    half.

    The 95% interval is DeLong's for the area under a ROC curve, kept within [0, 1]; where one side wins
    always, it is the Clopper-Pearson bound for as many trials as the smaller set has images; for a single
    image it is NaN.

    Args:
        samples: distance of each sample to its nearest training image, ``[n]``.
        held_out: distance of each held-out image to its own, ``[m]``.
    """
    wins = _share_farther(samples, held_out)  # of each sample: share of held-out images that are farther
    losses = 1 - _share_farther(held_out, samples)  # of each held-out image: share of samples that are nearer
    value, smaller = float(wins.mean()), min(len(samples), len(held_out))
    if value in (0.0, 1.0):
        bound = float(stats.beta.ppf(0.025, smaller, 1))
        return Estimate(value, bound, 1.0) if value else Estimate(value, 0.0, 1 - bound)
    if smaller < 2:
        return Estimate(value, float("nan"), float("nan"))
    error = np.sqrt(wins.var(ddof=1) / len(wins) + losses.var(ddof=1) / len(losses))
    estimate = around(value, float(error))
    return Estimate(value, max(0.0, estimate.low), min(1.0, estimate.high))


def nearest(
    queries: Rows, n_queries: int, candidates: Rows, n_candidates: int, count: int, offset: float = 0.0
) -> tuple[Ids, Float64]:
    """Find the nearest candidates of each query by Euclidean distance.

    Args:
        queries: gives query rows by position.
        n_queries: number of them.
        candidates: gives candidate rows by position; each is read once per search, and once more if it is
            nearest.
        n_candidates: number of them.
        count: candidates per query.
        offset: subtracted from both before they are multiplied, against cancellation.

    Returns:
        Positions and distances, nearest first, both ``[n_queries, count]``.
    """
    found = np.zeros((n_queries, count), np.int64)
    best = np.full((n_queries, count), np.inf, np.float32)
    for block in _blocks(n_candidates):
        b = candidates(block).astype(np.float32) - np.float32(offset)
        for rows in _blocks(n_queries):
            a = queries(rows).astype(np.float32) - np.float32(offset)
            squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
            both = np.concatenate([best[rows], squared], axis=1)
            where = np.concatenate([found[rows], np.broadcast_to(block, squared.shape)], axis=1)
            chosen = np.argpartition(both, count - 1, axis=1)[:, :count]
            best[rows], found[rows] = (
                np.take_along_axis(both, chosen, 1),
                np.take_along_axis(where, chosen, 1),
            )
    return _exactly(queries, candidates, found)


def _exactly(queries: Rows, candidates: Rows, found: Ids) -> tuple[Ids, Float64]:
    """Compute the distances of the found candidates in float64 and sort by them (then by position)."""
    distances = np.empty(found.shape)
    for i, row in enumerate(found):
        difference = candidates(row).astype(np.float64) - queries(np.array([i])).astype(np.float64)
        distances[i] = np.sqrt((difference**2).sum(axis=1))
        order = np.lexsort((row, distances[i]))
        found[i], distances[i] = row[order], distances[i][order]
    return found, distances


def _compare(
    rows: list[Rows], lengths: tuple[int, int, int], count: int, offset: float, scale: float
) -> tuple[Ids, Float64, Float64]:
    """Return the samples' neighbours and distances ``[n, count]``, and the held-out images' nearest distance
    ``[m]``.
    """
    samples, test, train = rows
    found, distance = nearest(samples, lengths[0], train, lengths[2], count, offset)
    _, held_out = nearest(test, lengths[1], train, lengths[2], 1, offset)
    return found, distance * scale, held_out[:, 0] * scale


def _images(images: Images, index: Ids, channels: int) -> npt.NDArray[np.uint8]:
    return match_channels(torch.from_numpy(images.take(index)), channels).numpy()


def _pixel_rows(images: Images, channels: int) -> Rows:
    return lambda index: _images(images, index, channels).reshape(len(index), -1)


def _rows_of(array: Array) -> Rows:
    return lambda index: np.asarray(array[index])


def _blocks(n: int) -> list[Ids]:
    return [np.arange(first, min(first + BLOCK, n)) for first in range(0, n, BLOCK)]


def _share_farther(distances: Float64, others: Float64) -> Float64:
    """Of each distance: the share of the others that are larger, ties counting half."""
    ordered = np.sort(others)
    nearer, not_farther = (
        np.searchsorted(ordered, distances, "left"),
        np.searchsorted(ordered, distances, "right"),
    )
    return 1 - (nearer + not_farther) / (2 * len(ordered))


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
