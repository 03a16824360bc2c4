"""The run that a command works on: which one is meant, and how it is opened and locked."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

import click

from ddpm_eval import runtime
from ddpm_eval.files import locked_folder
from ddpm_eval.runtime import Precision
from ddpm_eval.spec import RunSpec
from ddpm_eval.stages import run_folders
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.training_stage import record_training
from experiments.commands.options import (
    DEFAULT_PRESET,
    DEFAULT_RUNS,
    DataRoot,
    Device,
    RunFolder,
    Runs,
    Settings,
    refuse_beside_run,
    settings_option,
)
from experiments.paper.presets import preset
from experiments.progress import stage_bars
from experiments.study import run_folder, with_evaluation

PRECISIONS = click.Choice(get_args(Precision))


@dataclass(frozen=True)
class RunParameters:
    """Which trained run is meant, and how it is computed with."""

    run: RunFolder
    preset: Annotated[
        str | None,
        click.Option(
            ["--preset"],
            show_default=DEFAULT_PRESET,
            help="Instead of RUN: this preset's eps / L_simple run.",
        ),
    ]
    runs: Runs
    data_root: DataRoot
    device: Device
    precision: Annotated[
        Precision, click.Option(["--precision"], type=PRECISIONS, default="fp32", show_default=True)
    ]
    settings: Annotated[Settings, settings_option("Fields of the evaluation; repeatable.")]


def open_run(parameters: RunParameters) -> Run:
    """Return the trained run that is meant.

    Raises:
        ValueError: if there is none, or the parameters contradict each other.
    """
    folder = chosen_folder(parameters)
    here = runtime.start(parameters.device, precision=parameters.precision)
    run = run_folders.open_run(folder, here, parameters.data_root, stage_bars())
    return replace(run, spec=with_evaluation(folder, run.spec, parameters.settings))


def chosen_folder(parameters: RunParameters) -> Path:
    """Return the folder of the run that is meant, which need not exist."""
    if parameters.run is not None:
        refuse_beside_run(parameters.run, {"preset": parameters.preset, "runs": parameters.runs})
        return parameters.run
    return run_folder(parameters.runs or DEFAULT_RUNS, preset(parameters.preset or DEFAULT_PRESET))


def run_to_train(folder: Path, spec: RunSpec, device: str, data_root: Path | None) -> Run:
    """Return a run that need not exist yet."""
    return Run(folder, spec, runtime.start(device), data_root, stage_bars())


def checked_steps(run: Run, num_steps: int | None) -> int | None:
    """Return the number of steps of a shorter chain; None means all steps.

    Raises:
        ValueError: if the run's network does not serve a chain of so many steps.
    """
    if num_steps == run.spec.diffusion.timesteps:
        return None
    run.schedule(num_steps)
    return num_steps


@contextmanager
def working_on(run: Run) -> Iterator[None]:
    """Keep other processes away from a run, and store what is known of its training before it is measured.

    The processes of torchrun part at the end.

    Raises:
        ValueError: if another process works on the run.
    """
    with locked_folder(run.folder) if run.runtime.main else nullcontext():
        if run.exists:
            record_training(run)
        yield
    runtime.stop()


def say(text: str) -> None:
    """Print a text, on the main process only."""
    if runtime.is_main_process():
        click.echo(text)
