"""What the folder of a run says of it: its specification, and how its training went."""

from pathlib import Path

from ddpm_eval.results.records import TrainingLog
from ddpm_eval.spec import NamedNetwork, RunSpec
from ddpm_eval.stages.named_run import named_spec, unknown_training
from ddpm_eval.stages.run_folders import stored_spec
from ddpm_eval.training import checkpoint, loop


def trained_spec(folder: Path) -> RunSpec:
    """Return the run as far as it is trained, so that measuring it trains it no further.

    Raises:
        ValueError: if the folder holds no run, or a published run whose card does not fit.
    """
    spec = stored_spec(folder)
    if isinstance(spec.network, NamedNetwork):
        return spec
    steps = checkpoint.load(folder, prefixes=()).step or spec.train.steps
    return spec.model_copy(update={"train": spec.train.model_copy(update={"steps": steps})})


def trained_log(folder: Path) -> tuple[RunSpec, TrainingLog]:
    """Return what the network in ``folder`` was made with, and the log of its training.

    Raises:
        ValueError: if the folder holds neither a checkpoint nor a named network.
    """
    named = named_spec(folder)
    if named is not None:
        assert isinstance(named.network, NamedNetwork)
        return named, unknown_training(named.network)
    saved = checkpoint.load(folder, prefixes=("ema/", "log/"))
    return saved.spec, loop.training_log(saved)
