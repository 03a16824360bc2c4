"""The command ``neighbours``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from ddpm_eval import runtime
from ddpm_eval.files import digest
from experiments.commands.open_images import ImageParameters, open_images, subject
from experiments.commands.open_run import say_results
from experiments.commands.options import PATH, command_with, figure_stem
from experiments.image_quality import images_digest, nearest_images, neighbours_text
from experiments.json_document import estimates
from experiments.sections.fig15_neighbours import neighbours_figure


@dataclass(frozen=True)
class NeighboursParameters(ImageParameters):
    """Which images to compare, and where the figure is written."""

    mirrored: Annotated[
        bool,
        click.Option(
            ["--mirrored"], is_flag=True, help="Search mirror images, too, as for a run trained with flips."
        ),
    ]
    out: Annotated[
        Path, click.Option(["--out"], type=PATH, required=True, help="Figure to write, without suffix.")
    ]


@command_with(NeighboursParameters)
def command(parameters: NeighboursParameters) -> None:
    r"""The training images nearest to each sample (Fig. 15), and whether samples are copies.

    \b
    Example:
        python cli.py neighbours runs/digits/eps-mse-fixed-large --out nearest
    """
    images = open_images(parameters)
    found = nearest_images(images, parameters.mirrored)
    stem = figure_stem(parameters.out)
    if images.runtime.main:
        neighbours_figure(found, stem)
    document = {
        "command": "neighbours",
        **subject(parameters, images),
        "key": digest(images_digest(images.images), images.train.digest, found.weights_digest),
        "n_samples": found.n_samples,
        "n_train": found.n_train,
        "features": found.features,
        "values": estimates(found),
        "figure": f"{stem}.png",
    }
    say_results(parameters, f"{neighbours_text(found)}\n{stem}.png", document)
    runtime.stop()
