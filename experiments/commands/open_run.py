"""The run that a command works on: which one is meant, and how it is opened and locked."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

import click

from ddpm_eval import runtime
from ddpm_eval.files import locked_folder
from ddpm_eval.reporting.training_caveats import training_caveat
from ddpm_eval.runtime import Precision
from ddpm_eval.spec import RunSpec
from ddpm_eval.stages import run_folders
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.training_stage import record_training, stored_log
from experiments.commands.open_study import preset_settings
from experiments.commands.options import (
    DEFAULT_PRESET,
    DEFAULT_RUNS,
    AsJson,
    BatchSize,
    DataRoot,
    Device,
    NetworkArguments,
    NetworkName,
    RunFolder,
    Runs,
    Settings,
    refuse_beside_run,
    refuse_lonely_arguments,
    settings_option,
)
from experiments.json_document import Document, as_text
from experiments.named_networks import named_run, on_other_data
from experiments.paper.presets import preset
from experiments.progress import stage_bars
from experiments.study import run_folder, with_evaluation

log = logging.getLogger(__name__)

PRECISIONS = click.Choice(get_args(Precision))
ComputePrecision = Annotated[
    Precision, click.Option(["--precision"], type=PRECISIONS, default="fp32", show_default=True)
]


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
    network: NetworkName
    network_arguments: NetworkArguments
    runs: Runs
    data: Annotated[
        str | None,
        click.Option(["--data"], help="The data set, if it is another one than the run's or the preset's."),
    ]
    data_root: DataRoot
    device: Device
    batch_size: BatchSize
    precision: ComputePrecision
    settings: Annotated[
        Settings, settings_option("Fields of the evaluation, or without a RUN of a preset; repeatable.")
    ]
    as_json: AsJson


def open_run(parameters: RunParameters) -> Run:
    """Return the run that is meant; that of a named network, or on other data, is made unless it is there.

    Raises:
        ValueError: if there is none, or the parameters contradict each other.
    """
    folder = chosen_folder(parameters)
    here = runtime.start(parameters.device, precision=parameters.precision)
    if parameters.network is not None and not here.agrees(folder.name):
        raise ValueError(
            f"the processes were given different networks by {parameters.network} (are its weights random? "
            "seed or read them)"
        )
    run = run_folders.open_run(folder, here, parameters.data_root, stage_bars())
    settings = parameters.settings
    if parameters.run is None and parameters.network is None:  # the others have chosen the folder
        settings = {key: value for key, value in settings.items() if key.startswith("evaluation.")}
    spec = with_evaluation(folder, run.spec, settings)
    return replace(run, spec=spec, asked_batch_size=parameters.batch_size)


def chosen_folder(parameters: RunParameters) -> Path:
    """Return the folder of the run that is meant; that of a preset need not exist."""
    run, network, data = parameters.run, parameters.network, parameters.data
    refuse_lonely_arguments(network, parameters.network_arguments)
    if run is not None:
        refuse_beside_run(run, {"preset": parameters.preset, "network": network, "runs": parameters.runs})
        return run if data is None else on_other_data(run, data)
    runs = parameters.runs or DEFAULT_RUNS
    if network is not None:
        return network_folder(network, parameters.network_arguments, data, runs, parameters.preset)
    settings = preset_settings(data, parameters.settings)
    return run_folder(runs, preset(parameters.preset or DEFAULT_PRESET, settings=settings))


def network_folder(
    network: str, arguments: Settings, data: str | None, runs: Path, preset: str | None
) -> Path:
    """Return the folder of the run of a named network.

    Raises:
        ValueError: if no data set is named, or a preset is.
    """
    if preset is not None:
        raise ValueError("name --network or --preset, not both: a network brings its own sizes")
    if data is None:
        raise ValueError("--network needs --data, the data set that it models (such as --data cifar10)")
    return named_run(network, arguments, data, runs)


def run_to_train(
    folder: Path, spec: RunSpec, device: str, mixed_precision: bool | None, data_root: Path | None
) -> Run:
    """Return a run that need not exist yet."""
    here = runtime.start(device, mixed_precision=mixed_precision)
    return Run(folder, spec, here, data_root, stage_bars())


def checked_steps(run: Run, num_steps: int | None) -> int | None:
    """Return the number of steps of a shorter chain; None means all steps.

    Raises:
        ValueError: if the run's network does not serve a chain of so many steps.
    """
    if num_steps == run.spec.diffusion.timesteps:
        return None
    run.schedule(num_steps)
    return num_steps


def identity(run: Run) -> Document:
    """Return which run was measured, and how it was computed with."""
    return {
        "folder": run.folder,
        "data": run.spec.data.name,
        "weights": run.weights,
        "precision": run.runtime.precision,
        "device": run.runtime.describe(),
    }


@contextmanager
def working_on(run: Run) -> Iterator[None]:
    """Keep other processes away from a run, and store what is known of its training before it is measured.

    A warning tells if its averaged weights are largely those of the start. The processes of torchrun part at
    the end.

    Raises:
        ValueError: if another process works on the run.
    """
    with locked_folder(run.folder) if run.runtime.main else nullcontext():
        if run.exists:
            record_training(run)
            warn_of_start(run)
        yield
    runtime.stop()


def warn_of_start(run: Run) -> None:
    """Warn if the averaged weights that are measured are largely those of the start of the training."""
    training = stored_log(run)
    if training is not None:
        warn(run, training_caveat(run.spec.train, training))


def warn(run: Run, caveat: str) -> None:
    """Show a caveat about a run on stderr, on the main process only; nothing if it is empty."""
    if caveat and run.runtime.main:
        log.warning("%s: %s", run.folder, caveat)


def say(text: str) -> None:
    """Print a text, on the main process only."""
    if runtime.is_main_process():
        click.echo(text)


def say_results(parameters: RunParameters, text: str, document: Document) -> None:
    """Print what was found as a text or, if that was asked for, as a JSON document.

    Args:
        parameters: of the command.
        text: for people.
        document: for programs.
    """
    say(as_text(document) if parameters.as_json else text)
