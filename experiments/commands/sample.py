"""The command ``sample``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import click

from ddpm_eval.data.image_set import as_images
from ddpm_eval.reporting.intervals import mean_estimate
from ddpm_eval.results.records import Samples
from ddpm_eval.results.sample_files import export_npz, export_png
from ddpm_eval.spec import Method, Spacing
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.sampling_stages import SamplesStage
from experiments.commands.open_run import (
    RunParameters,
    checked_steps,
    identity,
    open_run,
    say_results,
    working_on,
)
from experiments.commands.options import PATH, command_with
from experiments.json_document import Document


@dataclass(frozen=True)
class SampleParameters(RunParameters):
    """What to draw from which run, and where to write it."""

    n_samples: Annotated[
        int | None,
        click.Option(
            ["-n", "--n-samples", "--limit", "n_samples"],
            type=click.IntRange(1),
            help="How many (default: the preset's number).",
        ),
    ]
    steps: Annotated[
        int | None,
        click.Option(["--steps"], type=click.IntRange(2), help="Visit only this many evenly spaced steps."),
    ]
    spacing: Annotated[
        Spacing | None,
        click.Option(
            ["--spacing"],
            type=click.Choice(get_args(Spacing)),
            help="Times that fewer steps visit, of 10 in 1000: 100, 200, ... 1000 (trailing, the usual); 1, "
            "101, ... 901 (leading, the DDIM paper's); 1, 112, ... 1000 (linspace).",
        ),
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
    r"""Draw samples into the run's results; resumes after a kill.

    Fewer steps: sample runs/digits/eps-mse-fixed-large --method ddim --steps 50 --spacing leading

    \b
    Example:
        python cli.py sample runs/digits/eps-mse-fixed-large --steps 50 --png images
    """
    run = open_run(parameters)
    if parameters.spacing is not None and parameters.steps is None:
        raise ValueError("--spacing says which times fewer steps visit: name their number by --steps")
    spacing = parameters.spacing or run.spec.evaluation.spacing
    steps = checked_steps(run, parameters.steps)
    stage = SamplesStage(parameters.n_samples, steps, parameters.method, spacing)
    with working_on(run):
        ensure(stage, run)
    if not run.runtime.main:
        return
    n = parameters.n_samples or run.spec.evaluation.n_samples
    samples = stage.read(run)
    _export(parameters, samples, n)
    broken = len(samples.not_finite(n))
    text = f"{n} samples in {run.results.store.path}"
    text += f", {broken} of them not finite" if broken else ""
    say_results(parameters, text, samples_document(run, stage, samples, n))


def _export(parameters: SampleParameters, samples: Samples, n: int) -> None:
    """Write the first n samples as images where files are asked for.

    Raises:
        ValueError: if one of the samples is not finite, for it has no image; nothing is written then.
    """
    if parameters.png is None and parameters.npz is None:
        return
    broken = samples.not_finite(n)
    if len(broken):
        raise ValueError(
            f"{len(broken)} samples are not finite, the first is sample {broken[0]}: they have no images, "
            "and no files are written (did the training diverge? the samples themselves are stored, and -n "
            "exports fewer of them)"
        )
    images = as_images(samples.images[:n])
    if parameters.png is not None:
        export_png(images, parameters.png)
    if parameters.npz is not None:
        export_npz(images, parameters.npz)


def samples_document(run: Run, stage: SamplesStage, samples: Samples, n: int) -> Document:
    """Return how n samples were drawn, and where they are stored, for programs."""
    (where,) = stage.outputs(run)
    return {
        "command": "sample",
        "run": identity(run),
        "result": where.name,
        "key": where.key,
        "method": samples.method,
        "num_steps": samples.num_steps,
        "seed": samples.seed,
        "n_samples": n,
        "results": run.results.store.path,
        "values": {
            "out_of_range": mean_estimate(samples.out_of_range[:n]).estimate("1"),
            "seconds_per_sample": mean_estimate(samples.seconds[:n]).estimate("s"),
        },
    }
