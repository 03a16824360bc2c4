"""Are samples copies? Distances to the nearest training images, compared with those of held-out images.

Conventions: images are uint8 ``[n, channels, side, side]``; the distance in pixels is the root mean squared
difference in 8-bit levels, the one in features is Euclidean. Searches compare float32 products in blocks; the
distances that they report are computed anew in float64, so that a copy has distance 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from ddpm_eval.data.image_set import Ids, Images, ImageSet, Pixels, as_images
from ddpm_eval.metrics.distances import Float64, symmetric_estimate, within_unit_interval
from ddpm_eval.metrics.features import Extractor, match_channels
from ddpm_eval.metrics.quality import collect_features
from ddpm_eval.results.fields import Array, Estimate
from ddpm_eval.results.records import Neighbours
from ddpm_eval.runtime import Progress, silent

Rows = Callable[[Ids], Array]
"""Returns the rows at given positions, ``[k, width]``."""
BLOCK = 2048
"""Rows of either side that are compared at a time."""
MIDDLE_LEVEL = 127.5
NEIGHBOURS = 5
"""Neighbours per sample, unless another number is asked for."""
SHOWN = 8
"""Samples that are shown with their neighbours, unless another number is asked for."""


def find_neighbours(
    samples: Images | Array,
    train: ImageSet,
    test: ImageSet,
    extractor: Extractor,
    *,
    mirrored: bool = False,
    count: int = NEIGHBOURS,
    shown: int = SHOWN,
    progress: Progress = silent,
) -> Neighbours:
    """Find the training images nearest to each sample, and compare their distances with held-out images'.

    Args:
        samples: uint8 ``[n, channels, side, side]`` or anything with `len` and `take`.
        train: images that the model was trained on.
        test: images that it was not trained on.
        extractor: the network whose features are compared.
        mirrored: whether the training images' mirror images are searched, too, since they belong to the
            training data where it was flipped.
        count: neighbours per sample.
        shown: samples whose images and neighbours are part of the result.
        progress: called while features are computed.

    Raises:
        ValueError: if there are no samples, they do not suit the data set, or there are fewer training images
            than neighbours.
    """
    samples = as_images(samples)
    _check(samples, train, count)
    candidates = Mirrored(train) if mirrored else train
    sets = (samples, test, candidates)
    pixel = _search_pixels(sets, train, count)
    feature = _search_features(sets, extractor, count, progress)
    first = np.arange(min(shown, len(samples)))
    return Neighbours(
        pixel_id=train.ids[pixel.position % len(train)],
        pixel_distance=pixel.distance,
        feature_id=train.ids[feature.position % len(train)],
        feature_distance=feature.distance,
        held_out_pixel_distance=pixel.held_out_distance,
        held_out_feature_distance=feature.held_out_distance,
        shown=_take(samples, first, train.channels),
        shown_pixel=np.stack([candidates.take(row) for row in pixel.position[first]]),
        shown_feature=np.stack([candidates.take(row) for row in feature.position[first]]),
        pixel_memorisation=memorisation(pixel.distance[:, 0], pixel.held_out_distance),
        feature_memorisation=memorisation(feature.distance[:, 0], feature.held_out_distance),
        n_samples=len(samples),
        n_held_out=len(test),
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

    def take(self, index: Ids) -> Pixels:
        """Return the images at positions ``index``; from the set's length on they are mirrored."""
        n = len(self.images)
        found = self.images.take(index % n)
        return np.where((index >= n)[:, None, None, None], found[..., ::-1], found)


def memorisation(samples: Float64, held_out: Float64) -> Estimate:
    """Return the probability that a sample is nearer to a training image than a held-out image is.

    Ties count half. The 95% interval is DeLong's for the area under a ROC curve, kept within [0, 1]; where
    one side wins always, it is the Clopper-Pearson bound for as many trials as the smaller set has images;
    for a single image it is NaN.

    Args:
        samples: distance of each sample to its nearest training image, ``[n]``.
        held_out: distance of each held-out image to its own, ``[m]``.
    """
    wins = _share_farther(samples, held_out)  # of each sample: share of held-out images that are farther
    losses = 1 - _share_farther(held_out, samples)  # of each held-out image: share of samples that are nearer
    value = float(wins.mean())
    smaller = min(len(samples), len(held_out))
    if value in (0.0, 1.0):
        bound = float(stats.beta.ppf(0.025, smaller, 1))
        return Estimate(value, bound, 1.0, "1") if value else Estimate(value, 0.0, 1 - bound, "1")
    if smaller < 2:
        return Estimate(value, math.nan, math.nan, "1")
    error = np.sqrt(wins.var(ddof=1) / len(wins) + losses.var(ddof=1) / len(losses))
    return within_unit_interval(symmetric_estimate(value, float(error), "1"))


def nearest(
    queries: Rows, n_queries: int, candidates: Rows, n_candidates: int, count: int, offset: float = 0.0
) -> tuple[Ids, Float64]:
    """Find the nearest candidates of each query by Euclidean distance.

    Args:
        queries: returns query rows by position.
        n_queries: number of queries.
        candidates: returns candidate rows by position; each is read once per search, and once more if it is
            among the nearest.
        n_candidates: number of candidates.
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
            best[rows] = np.take_along_axis(both, chosen, 1)
            found[rows] = np.take_along_axis(where, chosen, 1)
    return _exactly(queries, candidates, found)


class _Nearest(NamedTuple):
    """The samples' nearest neighbours in one space.

    Attributes:
        position: positions of the samples' neighbours among the candidates, ``[n, count]``.
        distance: distances to them, ``[n, count]``.
        held_out_distance: distance of each held-out image to its nearest candidate, ``[m]``.
    """

    position: Ids
    distance: Float64
    held_out_distance: Float64


def _check(samples: Images, train: ImageSet, count: int) -> None:
    if not 1 <= count <= len(train):
        raise ValueError(f"{count} neighbours asked for, but {train.name} has {len(train)} training images")
    side = samples.take(np.array([0])).shape[2:]
    if side != (train.side, train.side):
        raise ValueError(
            f"the samples are {side[0]}x{side[1]} pixels, but {train.name}'s images {train.side}x{train.side}"
        )


def _search_pixels(sets: tuple[Images, Images, Images], train: ImageSet, count: int) -> _Nearest:
    rows = [_pixel_rows(images, train.channels) for images in sets]
    scale = 1 / np.sqrt(train.channels * train.side**2)
    return _compare(rows, [len(images) for images in sets], count, MIDDLE_LEVEL, scale)


def _search_features(
    sets: tuple[Images, Images, Images], extractor: Extractor, count: int, progress: Progress
) -> _Nearest:
    rows = [_array_rows(collect_features(images, extractor, progress=progress).features) for images in sets]
    return _compare(rows, [len(images) for images in sets], count, 0.0, 1.0)


def _compare(rows: list[Rows], lengths: list[int], count: int, offset: float, scale: float) -> _Nearest:
    """Search the candidates for the samples' and the held-out images' neighbours.

    Args:
        rows: of the samples, the held-out images and the candidates.
        lengths: of these three sets.
        count: neighbours per sample.
        offset: as in `nearest`.
        scale: factor of the distances.
    """
    samples, held_out, candidates = rows
    n_samples, n_held_out, n_candidates = lengths
    position, distance = nearest(samples, n_samples, candidates, n_candidates, count, offset)
    _, held_out_distance = nearest(held_out, n_held_out, candidates, n_candidates, 1, offset)
    return _Nearest(position, distance * scale, held_out_distance[:, 0] * scale)


def _exactly(queries: Rows, candidates: Rows, found: Ids) -> tuple[Ids, Float64]:
    """Compute the distances of the found candidates in float64 and sort by them (then by position)."""
    distances = np.empty(found.shape)
    for i, row in enumerate(found):
        difference = candidates(row).astype(np.float64) - queries(np.array([i])).astype(np.float64)
        distances[i] = np.sqrt((difference**2).sum(axis=1))
        order = np.lexsort((row, distances[i]))
        found[i] = row[order]
        distances[i] = distances[i][order]
    return found, distances


def _take(images: Images, index: Ids, channels: int) -> Pixels:
    return match_channels(torch.from_numpy(images.take(index)), channels).numpy()


def _pixel_rows(images: Images, channels: int) -> Rows:
    return lambda index: _take(images, index, channels).reshape(len(index), -1)


def _array_rows(array: Array) -> Rows:
    return lambda index: np.asarray(array[index])


def _blocks(n: int) -> list[Ids]:
    return [np.arange(first, min(first + BLOCK, n)) for first in range(0, n, BLOCK)]


def _share_farther(distances: Float64, others: Float64) -> Float64:
    """Return, for each distance, the share of the others that are larger; ties count half."""
    ordered = np.sort(others)
    nearer = np.searchsorted(ordered, distances, "left")
    not_farther = np.searchsorted(ordered, distances, "right")
    return 1 - (nearer + not_farther) / (2 * len(ordered))
