"""The command ``import-checkpoint``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from ddpm_eval.interchange.import_export import import_checkpoint
from experiments.commands.options import PATH, Settings, command_with, settings_option


@dataclass(frozen=True)
class ImportParameters:
    """Which model to import, and what it becomes."""

    source: Annotated[str, click.Argument(["source"])]
    out: Annotated[Path, click.Option(["--out"], type=PATH, required=True, help="Folder of the new run.")]
    data: Annotated[
        str,
        click.Option(["--data"], default="cifar10", show_default=True, help="The data set it models."),
    ]
    settings: Annotated[Settings, settings_option("Fields of the specification.")]


@command_with(ImportParameters)
def command(parameters: ImportParameters) -> None:
    r"""Turn another project's model into a run.

    SOURCE is a diffusers folder or hub id, or the authors' converted weights.

    \b
    Example:
        python cli.py import-checkpoint google/ddpm-cifar10-32 --out runs/imported/published
    """
    out = parameters.out
    spec = import_checkpoint(parameters.source, out, data=parameters.data, settings=parameters.settings)
    shape = f"{spec.data.channels}x{spec.data.side}x{spec.data.side}"
    click.echo(f"{out}: {spec.cell}, {shape}; python cli.py show {out}")
