"""The command ``quality``."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated

import click

from ddpm_eval import runtime
from ddpm_eval.metrics.distances import PROTOCOLS
from experiments.commands.open_images import ImageParameters, open_images, subject
from experiments.commands.open_run import say_results, working_on
from experiments.commands.options import command_with
from experiments.image_quality import (
    measure_coverage,
    measure_quality,
    quality_documents,
    quality_text,
)


@dataclass(frozen=True)
class QualityParameters(ImageParameters):
    """Which images to measure, and how."""

    protocols: Annotated[
        tuple[str, ...],
        click.Option(
            ["--protocol", "protocols"],
            multiple=True,
            type=click.Choice(list(PROTOCOLS)),
            default=("paper",),
        ),
    ]
    references: Annotated[
        tuple[str, ...],
        click.Option(
            ["--reference", "references"],
            multiple=True,
            type=click.Choice(["train", "test"]),
            default=("train",),
        ),
    ]
    allow_singular: Annotated[
        bool,
        click.Option(
            ["--allow-singular"],
            is_flag=True,
            help="Measure a distance with too few images all the same, marked as biased.",
        ),
    ]


@command_with(QualityParameters)
def command(parameters: QualityParameters) -> None:
    r"""Sample quality of a run or of any images under named protocols, side by side, with intervals.

    Density and coverage stand below, once for each reference.

    \b
    Example:
        python cli.py quality runs/digits/eps-mse-fixed-large
    """
    found = open_images(parameters)
    with nullcontext() if found.run is None else working_on(found.run):
        results = measure_quality(
            found, parameters.protocols, parameters.references, parameters.allow_singular
        )
        coverage = measure_coverage(found, parameters.references)
    measured = quality_documents(found, results, coverage)
    document = {"command": "quality", **subject(parameters, found), "measurements": measured}
    say_results(parameters, quality_text(results, coverage), document)
    runtime.stop()
