"""What the commands of the paper's experiments have in common."""

from collections.abc import Callable, Sequence

import click

from ddpm_eval.stages.scheduler import Job
from experiments.commands.open_study import open_study
from experiments.commands.options import ExperimentParameters
from experiments.perform import perform
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
    study = open_study(parameters, trained_spec, parameters.inception_weights, default_preset, seeds)
    perform(study, jobs(study), tables, dry_run=parameters.dry_run, echo=click.echo)
