"""The command ``interpolate``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from ddpm_eval.results.records import Interpolations
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.sampling_stages import InterpolationStage
from experiments.commands.open_run import RunParameters, identity, open_run, say_results, working_on
from experiments.commands.options import PATH, command_with, figure_stem
from experiments.sections.fig8_interpolation import interpolation_figure


@dataclass(frozen=True)
class InterpolateParameters(RunParameters):
    """What to interpolate with which run, and where the figure is written."""

    time: Annotated[
        int | None,
        click.Option(
            ["--t", "time"], type=click.IntRange(1), help="Time of the latent space (default T / 2)."
        ),
    ]
    pairs: Annotated[
        int,
        click.Option(
            ["--pairs"], type=click.IntRange(1), default=4, show_default=True, help="Pairs of test images."
        ),
    ]
    out: Annotated[
        Path, click.Option(["--out"], type=PATH, required=True, help="Figure to write, without suffix.")
    ]


@command_with(InterpolateParameters)
def command(parameters: InterpolateParameters) -> None:
    r"""Images between pairs of test images (Fig. 8), encoded with q and decoded with p.

    \b
    Example:
        python cli.py interpolate runs/digits/eps-mse-fixed-large --t 500 --out between
    """
    run = open_run(parameters)
    times = () if parameters.time is None else (parameters.time,)
    stage = InterpolationStage(times, parameters.pairs)
    stage.check(run)
    with working_on(run):
        ensure(stage, run)
    if run.runtime.main:
        (where,) = stage.outputs(run)
        found = run.results.get(where.name, Interpolations, where.key)
        figure = f"{interpolation_figure(found, figure_stem(parameters.out)).stem}.png"
        document = {
            "command": "interpolate",
            "run": identity(run),
            "result": where.name,
            "key": where.key,
            "t": found.t,
            "pairs": len(found.source),
            "figure": figure,
        }
        say_results(parameters, figure, document)
