"""The command ``report``, which needs no torch."""

from dataclasses import dataclass

import click

from experiments.commands.open_study import open_study
from experiments.commands.options import ReportParameters, Seeds, command_with
from experiments.report import write_report
from experiments.study import measured_spec


@dataclass(frozen=True)
class RenderParameters(ReportParameters):
    """Which report to render."""

    seeds: Seeds


@command_with(RenderParameters)
def command(parameters: RenderParameters) -> None:
    r"""Render the report of the default study, a preset or a RUN from what is stored; computes nothing.

    \b
    Examples:
        python cli.py report
        python cli.py report runs/digits/eps-mse-fixed-large
    """
    study = open_study(parameters, measured_spec, seeds=parameters.seeds)
    if not any(run.entries() for run in study.every_run):
        raise ValueError(f"{study.main.folder.parent} holds no results to report (reproduce makes them)")
    click.echo(f"Report: {write_report(study)}")
