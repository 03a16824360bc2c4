"""The command ``train``."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import click

from ddpm_eval.reporting.training_caveats import training_caveat, young_average
from ddpm_eval.results.records import TrainingLog
from ddpm_eval.spec import Objective, Prediction, RunSpec
from ddpm_eval.spec_text import override
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.preview import training_callbacks
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.training_stage import TrainingStage, stored_log
from ddpm_eval.training.checkpoint import FILE_NAME, load
from ddpm_eval.training.loop import TrainingOptions
from experiments.commands.open_run import run_to_train, say, warn, working_on
from experiments.commands.open_study import preset_settings
from experiments.commands.options import (
    DEFAULT_PRESET,
    DEFAULT_RUNS,
    DryRun,
    StudyParameters,
    command_with,
    refuse_beside_run,
)
from experiments.paper.presets import MAIN_CELL, preset
from experiments.study import run_folder

Logger = Literal["tensorboard"]


@dataclass(frozen=True)
class TrainParameters(StudyParameters):
    """Which run to train, and how."""

    preset: Annotated[
        str | None,
        click.Option(
            ["--preset"],
            show_default=DEFAULT_PRESET,
            help="Which experiment, instead of a RUN; see the command presets.",
        ),
    ]
    dry_run: DryRun
    prediction: Annotated[
        Prediction | None,
        click.Option(
            ["--prediction"], type=click.Choice(get_args(Prediction)), help="Instead of the preset's eps."
        ),
    ]
    objective: Annotated[
        Objective | None,
        click.Option(
            ["--objective"],
            type=click.Choice(get_args(Objective)),
            help="Instead of the preset's mse (L_simple).",
        ),
    ]
    max_minutes: Annotated[
        float | None,
        click.Option(
            ["--max-minutes"],
            type=click.FloatRange(0, min_open=True),
            help="Stop cleanly after this time.",
        ),
    ]
    mixed_precision: Annotated[
        bool | None,
        click.Option(
            ["--mixed-precision/--no-mixed-precision"],
            default=None,
            help="Train in bf16 autocast with float32 weights; default: on GPUs alone.",
        ),
    ]
    resume: Annotated[
        bool,
        click.Option(
            ["--resume/--no-resume"],
            default=True,
            help="Continue from the run's checkpoint (default), or refuse to.",
        ),
    ]
    logger: Annotated[
        Logger | None,
        click.Option(
            ["--log", "--logger", "logger"],  # torchrun takes any --log for an abbreviation of its own option
            type=click.Choice(get_args(Logger)),
            help="Also write the curves into the run's tensorboard/ (under torchrun: --logger).",
        ),
    ]
    preview_steps: Annotated[
        int,
        click.Option(
            ["--preview-steps"],
            type=click.IntRange(0),
            default=5000,
            show_default=True,
            help="Updates between previews of samples (previews/) and bits/dim; 0: none.",
        ),
    ]
    ignore_memory: Annotated[
        bool,
        click.Option(["--ignore-memory"], is_flag=True, help="Train even if the memory seems too small."),
    ]


@command_with(TrainParameters)
def command(parameters: TrainParameters) -> None:
    r"""Train a preset's run, or go on with a RUN; continues from its checkpoint.

    \b
    Example:
        python cli.py train --preset digits --set train.steps=5000 --max-minutes 30
    """
    folder, spec = chosen_run(parameters)
    if parameters.dry_run:
        click.echo(f"{folder}\n{spec.model_dump_json(indent=2)}")
        return
    run = run_to_train(folder, spec, parameters.device, parameters.mixed_precision, parameters.data_root)
    if not parameters.resume and run.checkpoint.exists():
        raise ValueError(
            f"{run.checkpoint} exists: leave out --no-resume to continue from it, or delete it to start again"
        )
    warn(run, young_average(spec.train, spec.train.steps))
    log = train(run, parameters)
    if log.over and not log.diverged:
        raise ValueError(
            f"{folder}: {log.reason}, without the optimiser's state: its training cannot go on here"
        )
    parts = (f"{folder}: {log.status} after {log.steps} updates", log.reason)
    said = ", ".join(part for part in parts if part)
    caveat = training_caveat(spec.train, log)
    say(f"{said}; {caveat}" if caveat else said)


def chosen_run(parameters: TrainParameters) -> tuple[Path, RunSpec]:
    """Return the folder and the specification of the run that is meant."""
    if parameters.run is not None:
        varied = {"prediction": parameters.prediction, "objective": parameters.objective}
        refuse_beside_run(parameters.run, {**varied, **parameters.preset_options})
        return parameters.run, override(
            load(parameters.run / FILE_NAME, prefixes=()).spec, parameters.settings
        )
    cell = replace(
        MAIN_CELL,
        prediction=parameters.prediction or MAIN_CELL.prediction,
        objective=parameters.objective or MAIN_CELL.objective,
    )
    settings = preset_settings(parameters.data, parameters.settings)
    spec = preset(parameters.preset or DEFAULT_PRESET, cell, settings, parameters.seed or 0)
    return run_folder(parameters.runs or DEFAULT_RUNS, spec), spec


def train(run: Run, parameters: TrainParameters) -> TrainingLog:
    """Train a run, or continue to, and return the log."""
    with_events = parameters.logger == "tensorboard"
    with training_callbacks(run, parameters.preview_steps, with_events) as callbacks, working_on(run):
        options = TrainingOptions(parameters.max_minutes, callbacks, parameters.ignore_memory)
        ensure(TrainingStage(options), run)
        log = stored_log(run)
    assert log is not None, "training ends with a log"
    return log
