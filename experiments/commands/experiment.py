"""What the commands of the paper's experiments have in common."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import pandas as pd

from ddpm_eval.stages.scheduler import Job, pending
from experiments.commands.open_run import network_folder, say
from experiments.commands.open_study import open_study
from experiments.commands.options import (
    DEFAULT_RUNS,
    ExperimentParameters,
    refuse_beside_run,
    refuse_lonely_arguments,
)
from experiments.dry_run import make_plan
from experiments.json_document import Document, as_text, rows
from experiments.perform import perform, workers
from experiments.study import DEFAULT, Study
from experiments.trained_run import trained_spec


def run_experiment(
    parameters: ExperimentParameters,
    jobs: Callable[[Study], Sequence[Job]],
    tables: Sequence[str] = (),
    default_preset: str = DEFAULT,
    seeds: int | None = None,
) -> None:
    """Bring an experiment's jobs about, and write the report.

    Args:
        parameters: of the command.
        jobs: of the experiment.
        tables: names of the report's tables to print.
        default_preset: the preset that is meant where none is named; `DEFAULT` means the default study.
        seeds: the number of trainings of each cell; None means 1.

    Raises:
        ValueError: if the parameters contradict each other, or a job cannot be done.
    """
    chosen = with_network(parameters)
    study = open_study(
        chosen, trained_spec, chosen.inception_weights, default_preset, seeds, chosen.batch_size
    )
    if parameters.dry_run:
        _say_plan(study, jobs(study), parameters.as_json)
        return
    echo = partial(click.echo, err=parameters.as_json)
    page = perform(study, jobs(study), tables, echo)
    if parameters.as_json and page is not None:
        say(as_text(experiment_document(study, page, tables)))


def _say_plan(study: Study, jobs: Sequence[Job], as_json: bool) -> None:
    missing = {job.name: pending(job) for job in jobs}
    plan = make_plan(jobs, missing, workers(study.options.device))
    say(as_text(plan.document) if as_json else plan.text)


def with_network(parameters: ExperimentParameters) -> ExperimentParameters:
    """Return parameters that name the run of a network by its folder, if a network is named.

    Raises:
        ValueError: if a run or a preset is named, too, or no data set.
    """
    network = parameters.network
    refuse_lonely_arguments(network, parameters.network_arguments)
    if network is None:
        return parameters
    if parameters.run is not None:
        refuse_beside_run(parameters.run, {"network": network})
    if parameters.seed is not None:
        raise ValueError("--seed is of a training, and a network of --network is not trained here")
    runs = parameters.runs or DEFAULT_RUNS
    folder = network_folder(network, parameters.network_arguments, parameters.data, runs, parameters.preset)
    return replace(parameters, run=folder, data=None, runs=None)


def experiment_document(study: Study, page: Path, tables: Sequence[str]) -> Document:
    """Return the report's page, the runs behind it, and those of the named tables that exist."""
    files = {name: study.tables / f"{name}.csv" for name in tables}
    return {
        "report": page,
        "runs": [{"folder": run.folder, "weights": run.weights} for run in study.every_run],
        "tables": {name: rows(pd.read_csv(path)) for name, path in files.items() if path.exists()},
    }
