"""What the commands of the paper's experiments have in common."""

from collections.abc import Callable, Sequence

import click

from ddpm_eval.stages.scheduler import Job
from experiments.commands.open_study import open_study
from experiments.commands.options import ExperimentParameters
from experiments.perform import perform
from experiments.study import Study
from experiments.trained_run import trained_spec


def run_experiment(
    parameters: ExperimentParameters, jobs: Callable[[Study], Sequence[Job]], tables: Sequence[str] = ()
) -> None:
    """Bring an experiment's jobs about, write the report, and print the report's tables of these names."""
    study = open_study(parameters, trained_spec, parameters.inception_weights)
    perform(study, jobs(study), tables, dry_run=parameters.dry_run, echo=click.echo)
