"""The command ``report``, which needs no torch."""

import click

from experiments.commands.open_study import open_study
from experiments.commands.options import ReportParameters, command_with
from experiments.report import write_report
from experiments.study import measured_spec


@command_with(ReportParameters)
def command(parameters: ReportParameters) -> None:
    """Render the report of the default study, a preset or a RUN from what is stored; computes nothing."""
    study = open_study(parameters, measured_spec)
    if not any(run.entries() for run in study.every_run):
        raise ValueError(f"{study.main.folder.parent} holds no results to report (reproduce makes them)")
    click.echo(f"Report: {write_report(study)}")
