"""The command ``validate``."""

from dataclasses import dataclass
from typing import Annotated

import click

from experiments import validate
from experiments.commands.options import command_with

CHECK_FAILED = 1
"""The exit code where a check fails."""


@dataclass(frozen=True)
class ValidateParameters:
    """Which checks to make."""

    only: Annotated[str | None, click.Option(["--only"], help="Only the checks whose name contains this.")]


@command_with(ValidateParameters)
def command(parameters: ValidateParameters) -> None:
    r"""Run the production code against Gaussian data with known answers; exit 1 if any check fails.

    \b
    Example:
        python cli.py validate
    """
    text, passed = validate.run(parameters.only, click.echo)
    click.echo(text)
    if not passed:
        raise SystemExit(CHECK_FAILED)
