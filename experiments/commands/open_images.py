"""The images whose quality a command measures: a run's samples, or anybody's."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import click

from ddpm_eval.metrics.embeddings import EMBEDDINGS
from ddpm_eval.metrics.features import INCEPTION
from ddpm_eval.results.sample_files import load_images
from experiments.commands.open_run import RunParameters, identity, open_run
from experiments.commands.options import DEFAULT_RUNS, PATH, limit_option, with_limit
from experiments.image_quality import (
    EvaluationSet,
    FeatureChoice,
    any_images,
    first_images,
    samples_of_run,
)
from experiments.json_document import Document
from experiments.progress import stage_bars


@dataclass(frozen=True)
class ImageParameters(RunParameters):
    """Which images are meant, and whose features they are compared in."""

    images: Annotated[
        Path | None,
        click.Option(
            ["--images"],
            type=PATH,
            help="Any images: a folder, .npz (arr_0) or results.h5, instead of a run.",
        ),
    ]
    data: Annotated[
        str | None,
        click.Option(["--data"], help="With --images: the data set to compare with; else that of the run."),
    ]
    limit: Annotated[int | None, limit_option("samples, the first ones")]
    inception_weights: Annotated[
        Path | None,
        click.Option(
            ["--inception-weights"],
            type=PATH,
            help="File of Inception weights (pytorch-fid's or torch-fidelity's).",
        ),
    ]
    inception: Annotated[
        bool,
        click.Option(
            ["--inception"],
            is_flag=True,
            help="Use Inception, downloading its weights if none are given.",
        ),
    ]
    features: Annotated[
        str | None,
        click.Option(
            ["--features"],
            type=click.Choice(EMBEDDINGS),
            metavar="NAME",
            help="Use DINOv2 or CLIP: dinov2-vit-l-14 (FD-DINOv2), clip-vit-l-14-336px (as CMMD), or "
            "another of torch-fidelity's sizes.",
        ),
    ]
    features_weights: Annotated[
        Path | None,
        click.Option(
            ["--features-weights"], type=PATH, help="File of their weights (default: downloaded once)."
        ),
    ]


def open_images(parameters: ImageParameters) -> EvaluationSet:
    """Return the images that are meant.

    Raises:
        ValueError: if there are none, or the parameters contradict each other.
    """
    features = _features(parameters)
    if parameters.images is None:
        settings = with_limit(parameters.settings, parameters.limit, "evaluation.n_samples")
        run = open_run(replace(parameters, settings=settings))
        return samples_of_run(run, features, parameters.limit)
    if parameters.run is not None or parameters.preset is not None or parameters.network is not None:
        raise ValueError("name --images or a run, not both")
    if parameters.data is None:
        raise ValueError("--images needs --data, the data set to compare with (such as --data cifar10)")
    if parameters.settings or parameters.precision != "fp32" or parameters.batch_size is not None:
        raise ValueError("--set, --precision and --batch-size belong to a run, not to --images")
    return any_images(
        first_images(load_images(parameters.images), parameters.limit, str(parameters.images)),
        parameters.data,
        parameters.data_root,
        parameters.runs or DEFAULT_RUNS,
        features,
        parameters.device,
        stage_bars(),
    )


def subject(parameters: ImageParameters, images: EvaluationSet) -> Document:
    """Return whose images were measured: those of a run, or those in files."""
    if images.run is not None:
        return {"run": identity(images.run)}
    return {"images": parameters.images, "data": images.data.name}


def _features(parameters: ImageParameters) -> FeatureChoice:
    inception = parameters.inception or parameters.inception_weights is not None
    if parameters.features is None:
        if parameters.features_weights is not None:
            raise ValueError("--features-weights needs --features, which says whose weights they are")
        return FeatureChoice(INCEPTION, parameters.inception_weights) if inception else FeatureChoice()
    if inception:
        raise ValueError("name --features or --inception, not both: the numbers are of one network")
    return FeatureChoice(parameters.features, parameters.features_weights)
