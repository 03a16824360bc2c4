"""How samples spread over a data set: density and coverage, and the classes that a classifier assigns.

With reference images X_1 ... X_N, samples Y_1 ... Y_M and r_i the distance from X_i to its k-th nearest other
reference image, in features:

    density  = 1 / (k M) sum_j sum_i [ |Y_j - X_i| < r_i ]
    coverage = 1 / N sum_i [ some j has |Y_j - X_i| < r_i ]

Density is the mean number of reference balls around a sample over k, which an outlier among the reference
images changes little, unlike precision; it may exceed 1. Coverage is the share of reference images that have
a sample in their ball. Where samples and reference are equally distributed, the expected density is 1 and the
expected coverage 1 - (N-1)...(N-k) / ((M+N-1)...(M+N-k)): it grows with the number of samples.

Source: Naeem, Oh, Uh, Choi, Yoo, "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020,
arXiv:2002.09797, whose code takes balls without their surface, as here.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ddpm_eval.data.image_set import Images, ImageSet, as_images
from ddpm_eval.metrics.distances import (
    GROUPS,
    PAIR_ROWS,
    Float64,
    confidence,
    jackknife_error,
    symmetric_estimate,
    within_unit_interval,
)
from ddpm_eval.metrics.features import Extractor, Float32
from ddpm_eval.metrics.fidelity import calc_cdist_part
from ddpm_eval.metrics.quality import collect_features
from ddpm_eval.results.fields import Array, Estimate
from ddpm_eval.results.records import Coverage
from ddpm_eval.runtime import Progress, silent

NEIGHBOURS = 5
"""k, as in the source."""
FEWEST_SAMPLES = 2 * GROUPS
NO_CLASSES = np.empty(0, np.int64)


def evaluate_coverage(
    images: Images | Array,
    reference: ImageSet,
    extractor: Extractor,
    *,
    neighbours: int = NEIGHBOURS,
    progress: Progress = silent,
) -> Coverage:
    """Measure how samples spread over reference images, with 95% intervals.

    Args:
        images: samples, uint8 ``[n, channels, side, side]`` or anything with `len` and `take`.
        reference: the images that samples are compared with.
        extractor: the network in whose features distances are taken; if it is the data set's classifier, its
            classes are counted, too.
        neighbours: k.
        progress: called while features are computed.

    Raises:
        ValueError: if there are too few images for so many neighbours and the interval.
    """
    samples = as_images(images)
    _check(len(samples), len(reference), neighbours)
    ours = collect_features(samples, extractor, progress=progress)
    theirs = collect_features(reference, extractor, progress=progress)
    density, coverage = density_and_coverage(ours.features, theirs.features, neighbours)
    labels = None if extractor.classes is None else np.array(extractor.classes, np.int64)
    return Coverage(
        class_label=NO_CLASSES if labels is None else labels,
        class_counts=NO_CLASSES if labels is None else confidence(ours.logits)[0],
        reference_counts=NO_CLASSES if labels is None else confidence(theirs.logits)[0],
        density=density,
        coverage=coverage,
        neighbours=neighbours,
        n_samples=len(samples),
        n_reference=len(reference),
        reference=reference.split,
        features=extractor.name,
        weights_digest=extractor.weights_digest,
    )


def density_and_coverage(
    features: Float32, reference: Float32, neighbours: int = NEIGHBOURS
) -> tuple[Estimate, Estimate]:
    """Return density and coverage.

    The interval of density is that of a mean over samples; that of coverage is a jackknife over `GROUPS`
    groups of samples, t-distributed. Both hold the reference images fixed.

    Args:
        features: of the samples, ``[n, width]``.
        reference: features of the reference images, ``[m, width]``.
        neighbours: k.
    """
    found = _count(torch.from_numpy(features), torch.from_numpy(reference), neighbours)
    per_sample = found.balls / neighbours
    error = per_sample.std(ddof=1) / np.sqrt(len(per_sample))
    density = symmetric_estimate(float(per_sample.mean()), float(error), "1")
    total = found.groups.sum(axis=1)
    without = (total[:, None] > found.groups).mean(axis=0)  # a ball that only group g reaches is lost with it
    quantile = float(stats.t.ppf(0.975, GROUPS - 1))
    coverage = symmetric_estimate(float((total > 0).mean()), jackknife_error(without), "1", quantile)
    return density, within_unit_interval(coverage)


class _Counts(NamedTuple):
    """How samples lie in the balls of reference images.

    Attributes:
        balls: number of balls that each sample lies in, ``[samples]``.
        groups: number of samples of each group in each ball, ``[reference, group]``.
    """

    balls: Float64
    groups: Float64


def _count(ours: Tensor, theirs: Tensor, neighbours: int) -> _Counts:
    balls = torch.zeros(len(ours), dtype=torch.float64)
    group = torch.nn.functional.one_hot(torch.arange(len(ours)) % GROUPS, GROUPS).float()
    parts = []
    for rows in theirs.split(PAIR_ROWS):
        to_others = calc_cdist_part(rows, theirs, PAIR_ROWS)
        radius = to_others.kthvalue(neighbours + 1, dim=1).values  # the nearest is the image itself
        inside = calc_cdist_part(rows, ours, PAIR_ROWS) < radius[:, None]
        balls += inside.sum(dim=0)
        parts.append(inside.float() @ group)  # exact: counts below 2^24
    return _Counts(balls.numpy(), torch.cat(parts).double().numpy())


def _check(n: int, m: int, neighbours: int) -> None:
    if n < FEWEST_SAMPLES or m <= neighbours:
        raise ValueError(
            f"{n} samples and {m} reference images are too few for density and coverage (at least "
            f"{FEWEST_SAMPLES} samples and {neighbours + 1} reference images)"
        )
