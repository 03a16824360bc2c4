"""The command ``show``."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from ddpm_eval.reporting.tables import format_estimate
from ddpm_eval.results.fields import Estimate
from ddpm_eval.results.store import Entry, Store
from experiments.commands.options import (
    DEFAULT_RUNS,
    AsJson,
    NetworkArguments,
    NetworkName,
    RunFolder,
    Runs,
    command_with,
    refuse_beside_run,
    refuse_lonely_arguments,
)
from experiments.describe import describe_run
from experiments.json_document import Document, as_text
from experiments.study import RESULTS_FILE

PROVENANCE = ("created", "device", "precision", "wall_seconds", "git_commit", "choices")
DIMENSIONLESS = "1"


@dataclass(frozen=True)
class ShowParameters:
    """Which run to show."""

    run: RunFolder
    network: NetworkName
    network_arguments: NetworkArguments
    runs: Runs
    data: Annotated[str | None, click.Option(["--data"], help="With --network: the data set.")]
    as_json: AsJson


@command_with(ShowParameters)
def command(parameters: ShowParameters) -> None:
    r"""Print what a run is and what its results file holds.

    \b
    Example:
        python cli.py show runs/digits/eps-mse-fixed-large
    """
    run = shown_run(parameters)
    path = run if run.suffix == ".h5" else run / RESULTS_FILE
    description = describe_run(path)
    entries = Store(path).entries()
    if parameters.as_json:
        click.echo(as_text(run_document(run, description, entries)))
        return
    for label, text in description.items():
        click.echo(f"{label}: {text}")
    if not entries:
        click.echo("Nothing has been measured yet. Begin with one of")
        click.echo(f"    python cli.py likelihood {run} --estimator stratified")
        click.echo(f"    python cli.py reproduce {run}")
    for entry in entries:
        click.secho(f"{entry.name}  ({entry.record})", bold=True)
        for line in describe_entry(entry):
            click.echo(line)


def shown_run(parameters: ShowParameters) -> Path:
    """Return the folder or the results file of the run that is meant.

    Raises:
        ValueError: if there is none, or the parameters contradict each other.
    """
    network = parameters.network
    refuse_lonely_arguments(network, parameters.network_arguments)
    others = {"network": network, "data": parameters.data, "runs": parameters.runs}
    if parameters.run is not None:
        refuse_beside_run(parameters.run, others)
        return parameters.run
    if network is None:
        raise ValueError("name the folder of a RUN, or a --network with its --data")
    from experiments.commands.open_run import network_folder  # torch, which other runs do without

    runs = parameters.runs or DEFAULT_RUNS
    return network_folder(network, parameters.network_arguments, parameters.data, runs, None)


def run_document(run: Path, description: Mapping[str, str], entries: Sequence[Entry]) -> Document:
    """Return what a run is and what is stored of it, for programs."""
    results = [
        {
            "result": entry.name,
            "key": entry.key,
            "record": entry.record,
            "made": {name: entry.provenance.get(name) for name in PROVENANCE},
            "weights": entry.provenance.get("weights"),
            "arrays": entry.arrays,
            "values": entry.scalars,
        }
        for entry in entries
    ]
    return {"command": "show", "run": {"folder": run, **description}, "results": results}


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
