"""The command ``show``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from ddpm_eval.reporting.tables import format_estimate
from ddpm_eval.results.fields import Estimate
from ddpm_eval.results.store import Entry, Store
from experiments.commands.options import PATH, command_with
from experiments.describe import describe_run
from experiments.study import RESULTS_FILE

PROVENANCE = ("created", "device", "precision", "wall_seconds", "git_commit", "choices")
DIMENSIONLESS = "1"


@dataclass(frozen=True)
class ShowParameters:
    """Which run to show."""

    run: Annotated[Path, click.Argument(["run"], type=PATH)]


@command_with(ShowParameters)
def command(parameters: ShowParameters) -> None:
    """Print what a run is and what its results file holds."""
    run = parameters.run
    path = run if run.suffix == ".h5" else run / RESULTS_FILE
    for label, text in describe_run(path).items():
        click.echo(f"{label}: {text}")
    entries = Store(path).entries()
    if not entries:
        click.echo("Nothing has been measured yet. Begin with one of")
        click.echo(f"    python cli.py likelihood {run} --estimator stratified")
        click.echo(f"    python cli.py reproduce {run}")
    for entry in entries:
        click.secho(f"{entry.name}  ({entry.record})", bold=True)
        for line in describe_entry(entry):
            click.echo(line)


def describe_entry(entry: Entry) -> Iterator[str]:
    """Yield lines about a stored result: how it was made, and what it holds."""
    yield from _block("made", {name: entry.provenance.get(name, "") for name in PROVENANCE})
    yield from _block("holds", {**entry.arrays, **entry.scalars})


def _block(title: str, values: Mapping[str, object]) -> Iterator[str]:
    yield f"    {title}"
    for name, value in values.items():
        yield f"        {name:<24} {_written(value)}"


def _written(value: object) -> str:
    """Return a value as text, an estimate with its interval and unit."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {part}" for name, part in value.items())
    if not isinstance(value, Estimate):
        return str(value)
    if not value.known:
        return "not measured"
    unit = "" if value.unit == DIMENSIONLESS else f" {value.unit}"
    return f"{format_estimate(value.value, value.low, value.high)}{unit}"
