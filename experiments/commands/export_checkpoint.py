"""The command ``export-checkpoint``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import click

from ddpm_eval.interchange.import_export import export_checkpoint
from ddpm_eval.interchange.published_run import publish_run
from experiments.commands.options import PATH, command_with
from experiments.model_card import model_card

Layout = Literal["diffusers", "run"]


@dataclass(frozen=True)
class ExportParameters:
    """Which run to export, and where to."""

    run: Annotated[Path, click.Argument(["run"], type=PATH)]
    layout: Annotated[
        Layout,
        click.Option(
            ["--format", "layout"],
            type=click.Choice(get_args(Layout)),
            default="diffusers",
            show_default=True,
            help="A pipeline of diffusers, or a RUN of averaged weights with their card.",
        ),
    ]
    out: Annotated[Path, click.Option(["--out"], type=PATH, required=True, help="Folder to write.")]


@command_with(ExportParameters)
def command(parameters: ExportParameters) -> None:
    r"""Write a run's averaged weights, for diffusers or as a run that others can measure.

    \b
    Example:
        python cli.py export-checkpoint runs/digits/eps-mse-fixed-large --format diffusers --out exported
    """
    out = parameters.out
    if parameters.layout == "run":
        publish_run(parameters.run, out, model_card(parameters.run, out))
        click.echo(f"{out}: averaged weights and a card; commands that measure take it as a RUN")
        return
    export_checkpoint(parameters.run, out, format=parameters.layout)
    click.echo(f"{out}: DDPMPipeline.from_pretrained({str(out)!r}) loads it")
