"""What a checkpoint says of its run: its specification, and how its training went."""

from pathlib import Path

from ddpm_eval.interchange.published_run import check_card
from ddpm_eval.results.records import TrainingLog
from ddpm_eval.spec import RunSpec
from ddpm_eval.training import checkpoint, loop


def trained_spec(folder: Path) -> RunSpec:
    """Return the run as far as it is trained, so that measuring it trains it no further.

    Raises:
        ValueError: if the folder holds no checkpoint, or a published run whose card does not fit.
    """
    saved = checkpoint.load(folder / checkpoint.FILE_NAME, prefixes=())
    check_card(folder)
    steps = saved.step or saved.spec.train.steps
    return saved.spec.model_copy(update={"train": saved.spec.train.model_copy(update={"steps": steps})})


def trained_log(folder: Path) -> tuple[RunSpec, TrainingLog]:
    """Return what the checkpoint in ``folder`` was made with, and the log of its training.

    Raises:
        ValueError: if the folder holds no checkpoint.
    """
    saved = checkpoint.load(folder, prefixes=("ema/", "log/"))
    return saved.spec, loop.training_log(saved)
