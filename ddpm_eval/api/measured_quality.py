"""The quality of samples of any origin against reference images, with intervals.

Nothing is cached but the classifier, in a folder that the caller names, under a digest of its images.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ddpm_eval.api.progress_bars import shown
from ddpm_eval.data.image_set import ImageSet, from_array
from ddpm_eval.metrics import coverage, quality
from ddpm_eval.metrics.classifier import load_or_train_classifier
from ddpm_eval.metrics.distances import PROTOCOLS, QualityProtocol
from ddpm_eval.metrics.embeddings import EMBEDDINGS, load_embedding
from ddpm_eval.metrics.features import Extractor
from ddpm_eval.metrics.inception import load_inception
from ddpm_eval.reporting.coverage_tables import coverage_table
from ddpm_eval.reporting.quality_tables import quality_table
from ddpm_eval.reporting.tables import format_estimate
from ddpm_eval.results.fields import Array
from ddpm_eval.results.records import Coverage, Quality, Samples
from ddpm_eval.runtime import Progress, Runtime

NETWORKS = ("classifier", "inception")
ACCURACY_EVERY = 5
"""Every so many-th reference image is kept from the classifier's training and tells its accuracy."""


@dataclass(frozen=True, eq=False)
class SampleQuality:
    """The quality of samples, in the features of one network; `evaluate_quality` makes one.

    Example:
        >>> quality = ddpm_eval.evaluate_quality(samples, images, progress=False)
        >>> quality.table().columns.tolist()
        ['metric', 'value', 'low', 'high', 'n', 'features', 'reference']

    Attributes:
        record: every number as an `Estimate`, and how it was made.
        coverage: density and coverage, and in a classifier's features the classes of samples and reference.
    """

    record: Quality
    coverage: Coverage

    def table(self) -> pd.DataFrame:
        """Return one row per metric: metric, value, low, high, n, features, reference."""
        tables = [quality_table({"": self.record}), coverage_table({"": self.coverage})]
        return pd.concat(tables, ignore_index=True).drop(columns="run")

    def __repr__(self) -> str:
        distance, score = self.record.frechet_distance, self.record.score
        return (
            f"SampleQuality({self.record.distance_name} {format_estimate(*distance[:3])}, "
            f"{self.record.score_name} {format_estimate(*score[:3])}; {self.record.caption})"
        )


def evaluate_quality(
    samples: Samples | Array,
    images: ImageSet | Array,
    *,
    features: str | Path | Extractor = "classifier",
    test: ImageSet | None = None,
    protocol: str | QualityProtocol = "paper",
    cache: Path | str | None = None,
    progress: bool | Progress = True,
) -> SampleQuality:
    """Measure samples against reference images: distances, score, precision, recall, density and coverage.

    Example:
        >>> quality = ddpm_eval.evaluate_quality(samples, images, progress=False)
        >>> quality.record.distance_name
        'Frechet distance (digits classifier)'
        >>> 0 < quality.coverage.coverage.low < quality.coverage.coverage.high <= 1
        True

    Args:
        samples: from `sample`, or uint8 ``[n, channels, side, side]``.
        images: reference images that distances are taken to; the paper's are the training split.
        features: ``classifier`` (trained on the reference images' labels: its numbers are never called FID),
            ``inception`` (its weights are downloaded: FID and Inception score), the file of Inception's
            weights, a name of `EMBEDDINGS` such as ``dinov2-vit-l-14`` (FD-DINOv2) or ``clip-vit-l-14-336px``
            (as CMMD), or an extractor: `load_embedding` reads their weights from a file.
        test: held-out images, whose own distance is the yardstick.
        protocol: ``paper``, ``torch-fidelity``, or a quality protocol.
        cache: folder in which the classifier is kept, under a digest of the images and labels; None trains
            it anew.
        progress: whether a bar is shown, or a function of stage, done and total.

    Raises:
        ValueError: if there are too few images, a sample is not finite, the images have no labels to train a
            classifier on, or weights cannot be read.

    Source: docs/quality.md names that of each number.
    """
    reference = images if isinstance(images, ImageSet) else from_array(images)
    drawn = samples.finite_images() if isinstance(samples, Samples) else samples
    wanted = _protocol(protocol) if isinstance(protocol, str) else protocol
    with shown(progress) as report:
        extractor = _extractor(features, reference, cache, report)
        measured = quality.evaluate_quality(
            drawn, reference, extractor, test=test, protocol=wanted, progress=report
        )
        spread = coverage.evaluate_coverage(drawn, reference, extractor, progress=report)
        return SampleQuality(measured, spread)


def _protocol(name: str) -> QualityProtocol:
    if name not in PROTOCOLS:
        raise ValueError(
            f"there is no quality protocol {name!r} ({', '.join(PROTOCOLS)} are, or give a QualityProtocol)"
        )
    return PROTOCOLS[name]


def _extractor(
    features: str | Path | Extractor, reference: ImageSet, cache: Path | str | None, progress: Progress
) -> Extractor:
    if isinstance(features, Extractor):
        return features
    runtime = Runtime(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if features in EMBEDDINGS:
        return load_embedding(str(features), runtime=runtime)
    if isinstance(features, str) and features not in NETWORKS and not Path(features).is_file():
        raise ValueError(
            f"features is {features!r}, but must be a file of Inception's weights or one of "
            f"{', '.join((*NETWORKS, *EMBEDDINGS))}"
        )
    if features != "classifier":
        weights = None if features == "inception" else Path(features)
        return load_inception(weights, runtime=runtime)
    if reference.labels is None:
        raise ValueError(
            "the images have no labels, which a classifier is trained on (load_images(array, labels=...) "
            "gives them; features='inception' needs none)"
        )
    index = np.arange(len(reference))
    held_out = index % ACCURACY_EVERY == 0
    parts = reference.subset(index[~held_out]), reference.subset(index[held_out])
    with tempfile.TemporaryDirectory() as folder:
        return load_or_train_classifier(*parts, Path(cache or folder), runtime=runtime, progress=progress)
