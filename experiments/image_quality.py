"""Sample quality of a run's samples or of anybody's images, and their nearest training images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from ddpm_eval.data import datasets
from ddpm_eval.data.image_set import ArrayImages, Images, ImageSet
from ddpm_eval.files import content_digest, digest
from ddpm_eval.metrics.classifier import load_or_train_classifier
from ddpm_eval.metrics.coverage import evaluate_coverage
from ddpm_eval.metrics.distances import PROTOCOLS
from ddpm_eval.metrics.embeddings import load_embedding
from ddpm_eval.metrics.features import INCEPTION, Extractor
from ddpm_eval.metrics.inception import load_inception
from ddpm_eval.metrics.neighbours import find_neighbours
from ddpm_eval.metrics.quality import evaluate_quality
from ddpm_eval.reporting.coverage_tables import coverage_table
from ddpm_eval.reporting.quality_tables import memorisation_table, quality_table
from ddpm_eval.results.records import Coverage, Neighbours, Quality
from ddpm_eval.results.store import Store
from ddpm_eval.runtime import Progress, Runtime, silent, start
from ddpm_eval.spec import DataSpec
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.quality_stages import (
    CLASSIFIERS,
    STATISTICS_FILE,
    CoverageStage,
    FeatureSource,
    QualityStage,
    classifiers_folder,
)
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.sampling_stages import SamplesStage
from experiments.json_document import Document, estimates
from experiments.sections.fig15_neighbours import MEMORISATION

S = TypeVar("S", QualityStage, CoverageStage)
CLASSIFIER = "classifier"
DIGEST_BATCH = 256
"""Images that are held in memory at once while a digest is taken of them."""


@dataclass(frozen=True)
class FeatureChoice:
    """Which network's features images are compared in.

    Attributes:
        network: the data set's ``classifier``, ``inception-v3-compat``, or one of `EMBEDDINGS`.
        weights: file of its weights; None downloads them.
    """

    network: str = CLASSIFIER
    weights: Path | None = None


@dataclass(frozen=True)
class EvaluationSet:
    """Generated images, the data set that they are compared with, and the feature extractor.

    Attributes:
        images: the generated images.
        data: the data set's name and the shape of its images.
        data_root: where data sets lie; None takes the default.
        classifiers: folder of the classifiers and of the statistics of reference images.
        features: whose features are compared.
        runtime: where features are computed.
        progress: called while features are computed.
        run: whose samples the images are; None if they are not any run's.
    """

    images: Images
    data: DataSpec
    data_root: Path | None
    classifiers: Path
    features: FeatureChoice
    runtime: Runtime
    progress: Progress = silent
    run: Run | None = None

    @cached_property
    def train(self) -> ImageSet:
        """The training split."""
        return datasets.load(self.data, "train", self.data_root)

    @cached_property
    def test(self) -> ImageSet:
        """The test split."""
        return datasets.load(self.data, "test", self.data_root)

    @cached_property
    def extractor(self) -> Extractor:
        """The network whose features are compared; a classifier that does not exist yet is trained."""
        name, weights = self.features.network, self.features.weights
        if name == INCEPTION:
            return load_inception(weights, runtime=self.runtime)
        if name != CLASSIFIER:
            return load_embedding(name, weights, runtime=self.runtime)
        return load_or_train_classifier(
            self.train, self.test, self.classifiers, runtime=self.runtime, progress=self.progress
        )


def first_images(images: Images, limit: int | None, source: str) -> Images:
    """Return the first images.

    Args:
        images: all of them.
        limit: their number; None returns all.
        source: where they come from, for the message.

    Raises:
        ValueError: if there are fewer.
    """
    if limit is None:
        return images
    if limit > len(images):
        raise ValueError(f"{source} holds {len(images)} images, but --limit asks for {limit}")
    return ArrayImages(images.take(np.arange(limit)))


def samples_of_run(run: Run, features: FeatureChoice, limit: int | None = None) -> EvaluationSet:
    """Return a run's stored samples as an evaluation set.

    Args:
        run: whose samples they are.
        features: whose features are compared.
        limit: take only so many samples, the first ones; None takes all that are stored.

    Raises:
        ValueError: if there are none of its present weights, or fewer than the limit.
    """
    images = ArrayImages(SamplesStage().read(run).finite_images(limit))
    return EvaluationSet(
        first_images(images, limit, str(run.results.store.path)),
        run.spec.data,
        run.data_root,
        classifiers_folder(run),
        features,
        start(str(run.runtime.device)),
        run.progress,
        run,
    )


def any_images(
    images: Images,
    data: str,
    data_root: Path | None,
    runs: Path,
    features: FeatureChoice,
    device: str,
    progress: Progress,
) -> EvaluationSet:
    """Return any images as an evaluation set.

    Args:
        images: of any origin.
        data: name of the data set to compare with.
        data_root: where data sets lie; None takes the default.
        runs: folder below which classifiers are kept.
        features: whose features are compared.
        device: auto, cpu, cuda or cuda:N.
        progress: called while features are computed.

    Raises:
        ValueError: if there is no such data set.
    """
    channels, side = datasets.inspect(data)
    spec = DataSpec(name=data, channels=1 if channels == 1 else 3, side=side)
    return EvaluationSet(images, spec, data_root, runs / CLASSIFIERS, features, start(device), progress)


def measure_quality(
    evaluation_set: EvaluationSet, protocols: Sequence[str], references: Sequence[str], allow_singular: bool
) -> dict[str, Quality]:
    """Measure images under protocols and against splits; return the quality by protocol and split.

    Args:
        evaluation_set: what to measure.
        protocols: names of `ddpm_eval.metrics.distances.PROTOCOLS`.
        references: train, test or both.
        allow_singular: measure a distance with too few images all the same.

    Raises:
        ValueError: if there are too few images, or they do not suit the data set.
    """
    found = {}
    for protocol in protocols:
        for split in references:
            standard = (protocol, split, allow_singular) == ("paper", "train", False)
            stored = _stored(evaluation_set, QualityStage) if standard else None
            name = f"{protocol}, against {split}"
            if stored is None:
                found[name] = _evaluate(evaluation_set, protocol, split, allow_singular)
            else:
                run, stage = stored
                found[name] = stage.read(run)
    return found


def measure_coverage(evaluation_set: EvaluationSet, references: Sequence[str]) -> dict[str, Coverage]:
    """Measure density and coverage of images among splits, and return them by split.

    Args:
        evaluation_set: what to measure.
        references: train, test or both.

    Raises:
        ValueError: if there are too few images, or they do not suit the data set.
    """
    found = {}
    for split in references:
        stored = _stored(evaluation_set, CoverageStage) if split == "train" else None
        if stored is None:
            reference = evaluation_set.train if split == "train" else evaluation_set.test
            found[split] = evaluate_coverage(
                evaluation_set.images,
                reference,
                evaluation_set.extractor,
                progress=evaluation_set.progress,
            )
        else:
            run, stage = stored
            found[split] = stage.read(run)
    return found


def quality_text(results: Mapping[str, Quality], coverage: Mapping[str, Coverage]) -> str:
    """Return the quality under several protocols as a table, with the captions that the numbers need.

    Args:
        results: quality by protocol and split.
        coverage: density and coverage by split, which no protocol changes.
    """
    spread = coverage_table({f"against {split}": found for split, found in coverage.items()})
    table = pd.concat([quality_table(results), spread]).drop(columns=["reference"])
    notes = [
        f"{name}: {quality.caption}" + (f" ({quality.caveat})" if quality.caveat else "")
        for name, quality in results.items()
    ]
    first = next(iter(results.values()))
    names = f"frechet_distance is the {first.distance_name}; kid is the {first.kernel_name}"
    if first.score.known:
        names += f"; score is the {first.score_name}"
    if first.features.endswith(CLASSIFIER):
        names += " (of this data set's own classifier: not comparable with any published FID or IS)"
    return "\n".join([table.to_string(index=False, float_format=lambda x: f"{x:.5g}"), *notes, names])


def quality_documents(
    evaluation_set: EvaluationSet, results: Mapping[str, Quality], coverage: Mapping[str, Coverage]
) -> Sequence[Document]:
    """Return the quality under each protocol for programs; a key is a digest of all that it depends on.

    Args:
        evaluation_set: what was measured.
        results: quality by protocol and split.
        coverage: density and coverage by split.
    """
    images = images_digest(evaluation_set.images)
    return [
        {
            "protocol": quality.protocol,
            "reference": quality.reference,
            "key": digest(images, evaluation_set.train.digest, name, quality.weights_digest),
            "n_samples": quality.n_samples,
            "features": quality.features,
            "features_weights": quality.weights_digest,
            "distance_name": quality.distance_name,
            "score_name": quality.score_name,
            "caption": quality.caption,
            "caveat": quality.caveat,
            "values": {**estimates(quality), **estimates(coverage[quality.reference])},
        }
        for name, quality in results.items()
    ]


def images_digest(images: Images) -> str:
    """Return the digest of images, which are taken a few at a time."""
    parts = np.array_split(np.arange(len(images)), -(-len(images) // DIGEST_BATCH))
    return digest([content_digest([images.take(part)]) for part in parts])


def nearest_images(evaluation_set: EvaluationSet, mirrored: bool) -> Neighbours:
    """Find the training images nearest to images.

    Args:
        evaluation_set: the images.
        mirrored: whether mirror images are searched, too; they are for a run that was trained with flips.

    Raises:
        ValueError: if the images do not suit the data set.
    """
    run = evaluation_set.run
    return find_neighbours(
        evaluation_set.images,
        evaluation_set.train,
        evaluation_set.test,
        evaluation_set.extractor,
        mirrored=mirrored or (run is not None and run.spec.data.flips),
        progress=evaluation_set.progress,
    )


def neighbours_text(found: Neighbours) -> str:
    """Return whether samples are copies as a table, with what the statistic means."""
    table = memorisation_table(found).to_string(index=False, float_format=lambda x: f"{x:.4g}")
    return f"{table}\n{MEMORISATION}"


def _stored(evaluation_set: EvaluationSet, kind: type[S]) -> tuple[Run, S] | None:
    """Return the run and its stage that measures these images, which is stored; None if there is none."""
    run = evaluation_set.run
    features = evaluation_set.features
    if run is None or run.runtime.precision != "fp32":  # reports are of fp32 samples
        return None
    if len(evaluation_set.images) != run.spec.evaluation.n_samples:
        return None
    by_file = features.network == INCEPTION and features.weights is not None
    if not by_file and features.network != CLASSIFIER:  # a stored result is keyed by its file of weights
        return None
    stage = kind(FeatureSource(features.weights))
    if not stage.applies(run):
        return None
    ensure(stage, run)
    return run, stage


def _evaluate(evaluation_set: EvaluationSet, protocol: str, split: str, allow_singular: bool) -> Quality:
    to_train = split == "train"
    return evaluate_quality(
        evaluation_set.images,
        evaluation_set.train if to_train else evaluation_set.test,
        evaluation_set.extractor,
        test=evaluation_set.test if to_train else None,
        protocol=PROTOCOLS[protocol].model_copy(update={"allow_singular": allow_singular}),
        statistics_cache=Store(evaluation_set.classifiers / STATISTICS_FILE),
        progress=evaluation_set.progress,
    )
