"""The run of a network that is named by a function, or of a run's network on another data set.

Both get a folder below that of the data set, with a digest of the network and of all that shapes its results.
"""

from collections.abc import Mapping
from pathlib import Path

from ddpm_eval.api.named_network import describe_named, load_named
from ddpm_eval.data.datasets import inspect
from ddpm_eval.interchange.model_description import ModelDescription
from ddpm_eval.spec import EvaluationSpec, NamedNetwork, RunSpec
from ddpm_eval.stages.named_run import PRESET, save_named
from ddpm_eval.stages.run_folders import runs_above, stored_spec

OF_A_RUN = "ddpm_eval.api.loading:load_run"
"""The function that returns the network of a run with a checkpoint."""


def named_run(reference: str, arguments: Mapping[str, str], data: str, runs: Path) -> Path:
    """Return the folder of a named network's run, which is made unless it is there.

    Args:
        reference: ``package.module:function``.
        arguments: of the function by name.
        data: name of the data set.
        runs: folder of all runs.

    Raises:
        ValueError: if there is no such network or data set, or they do not suit each other.
    """
    return _saved(runs, _specification(reference, arguments, data), reference.rpartition(":")[2])


def on_other_data(folder: Path, data: str) -> Path:
    """Return the folder of the network of a run on another data set, which is made unless it is there.

    Noise and evaluation are those of the run. On the run's own data set this is the run itself.

    Args:
        folder: of the run.
        data: name of the data set.

    Raises:
        ValueError: if there is no such run or data set, or they do not suit each other.
    """
    spec = stored_spec(folder)
    if data == spec.data.name:
        return folder
    network = spec.network
    if isinstance(network, NamedNetwork):
        other = _specification(network.reference, dict(network.arguments), data)
    else:
        other = _specification(OF_A_RUN, {"folder": str(folder.resolve())}, data)
    kept = {"seed": spec.seed, "evaluation": _without_limits(spec.evaluation)}
    return _saved(runs_above(folder, spec), other.model_copy(update=kept), folder.resolve().name)


def _specification(reference: str, arguments: Mapping[str, str], data: str) -> RunSpec:
    model = load_named(reference, arguments)
    channels, side = inspect(data)
    model.check_shape((channels, side, side))
    network, diffusion = describe_named(reference, arguments, model)
    description = ModelDescription(
        channels, side, network.model_dump(mode="json"), diffusion.model_dump(mode="json")
    )
    return description.specification(data, PRESET)


def _without_limits(evaluation: EvaluationSpec) -> EvaluationSpec:
    """Return how much is measured, without numbers of test images that another set may not have."""
    return evaluation.model_copy(update={"n_test_images": None})


def _saved(runs: Path, spec: RunSpec, name: str) -> Path:
    folder = runs / spec.data.folder_name / f"{name}-{spec.training_digest()}"
    save_named(folder, spec)
    return folder
