"""The command ``export-checkpoint``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import click

from ddpm_eval.interchange.import_export import export_checkpoint
from experiments.commands.options import PATH, command_with

Layout = Literal["diffusers"]


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
        ),
    ]
    out: Annotated[Path, click.Option(["--out"], type=PATH, required=True, help="Folder to write.")]


@command_with(ExportParameters)
def command(parameters: ExportParameters) -> None:
    """Write a run's averaged weights for diffusers."""
    out = parameters.out
    export_checkpoint(parameters.run, out, format=parameters.layout)
    click.echo(f"{out}: DDPMPipeline.from_pretrained({str(out)!r}) loads it")
