"""From the parameters of a command to the study that they mean."""

from collections.abc import Callable
from pathlib import Path

from ddpm_eval.data.datasets import inspect
from ddpm_eval.spec import RunSpec
from experiments.commands.options import (
    DEFAULT_PRESET,
    DEFAULT_RUNS,
    ReportParameters,
    Settings,
    refuse_beside_run,
)
from experiments.study import (
    DEFAULT,
    Study,
    StudyOptions,
    replicated,
    resolve_default,
    resolve_preset,
    resolve_run,
)


def open_study(
    parameters: ReportParameters,
    spec_of_run: Callable[[Path], RunSpec],
    inception_weights: Path | None = None,
    default_preset: str = DEFAULT,
    seeds: int | None = None,
    batch_size: int | None = None,
) -> Study:
    """Return the study of a preset, or of a run that was named by its folder.

    With another data set and no preset it is the digits' preset with these images.

    Args:
        parameters: of the command.
        spec_of_run: reads what the run in a folder is.
        inception_weights: file of Inception's weights; None measures quality with the data set's classifier.
        default_preset: the preset that is meant where none is named; `DEFAULT` means the default study.
        seeds: the number of trainings of each cell, with seeds that follow each other; None means 1.
        batch_size: images in each network evaluation; None takes a number that suits the device.

    Raises:
        ValueError: if the parameters contradict each other, or there is no such preset, run or data set.
    """
    options = StudyOptions(
        parameters.reports, parameters.data_root, parameters.device, inception_weights, batch_size
    )
    if parameters.run is not None:
        refuse_beside_run(parameters.run, {**parameters.preset_options, "seeds": seeds})
        return resolve_run(parameters.run, spec_of_run(parameters.run), parameters.settings, options)
    settings = preset_settings(parameters.data, parameters.settings)
    runs = parameters.runs or DEFAULT_RUNS
    name = parameters.preset or (default_preset if parameters.data is None else DEFAULT_PRESET)

    def resolve(seed: int) -> Study:
        if name == DEFAULT:
            return resolve_default(settings, seed, runs=runs, options=options)
        return resolve_preset(name, settings, seed, runs=runs, options=options)

    return replicated(resolve, parameters.seed or 0, seeds or 1)


def preset_settings(data: str | None, settings: Settings) -> Settings:
    """Return the fields of a preset that were set, among them the shape of another data set's images.

    Args:
        data: name of the data set; None takes the preset's.
        settings: that were set one by one.

    Raises:
        ValueError: if there is no such data set.
    """
    if data is None:
        return settings
    channels, side = inspect(data)
    shape = {"data.name": data, "data.channels": str(channels), "data.side": str(side)}
    return {**shape, **settings}
