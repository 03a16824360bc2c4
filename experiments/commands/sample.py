"""The command ``sample``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import click

from ddpm_eval.data.image_set import as_images
from ddpm_eval.results.sample_files import export_npz, export_png
from ddpm_eval.spec import Method
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.sampling_stages import SamplesStage
from experiments.commands.open_run import RunParameters, checked_steps, open_run, working_on
from experiments.commands.options import PATH, command_with


@dataclass(frozen=True)
class SampleParameters(RunParameters):
    """What to draw from which run, and where to write it."""

    n_samples: Annotated[
        int | None,
        click.Option(
            ["-n", "--n-samples"], type=click.IntRange(1), help="How many (default: the preset's number)."
        ),
    ]
    steps: Annotated[
        int | None,
        click.Option(["--steps"], type=click.IntRange(2), help="Visit only this many evenly spaced steps."),
    ]
    method: Annotated[
        Method,
        click.Option(
            ["--method"], type=click.Choice(get_args(Method)), default="ancestral", show_default=True
        ),
    ]
    png: Annotated[
        Path | None, click.Option(["--png"], type=PATH, help="Also write PNG files into this folder.")
    ]
    npz: Annotated[
        Path | None,
        click.Option(
            ["--npz"],
            type=PATH,
            help="Also write this .npz file (arr_0, NHWC, as the ADM evaluator reads).",
        ),
    ]


@command_with(SampleParameters)
def command(parameters: SampleParameters) -> None:
    """Draw samples into the run's results; resumes after a kill."""
    run = open_run(parameters)
    stage = SamplesStage(parameters.n_samples, checked_steps(run, parameters.steps), parameters.method)
    with working_on(run):
        ensure(stage, run)
    if not run.runtime.main:
        return
    n = parameters.n_samples or run.spec.evaluation.n_samples
    images = as_images(stage.read(run).images[:n])
    click.echo(f"{len(images)} samples in {run.results.store.path}")
    if parameters.png is not None:
        export_png(images, parameters.png)
    if parameters.npz is not None:
        export_npz(images, parameters.npz)
