"""The command ``progressive``."""

from dataclasses import dataclass, replace
from typing import Annotated

from experiments.commands.experiment import run_experiment
from experiments.commands.options import ExperimentParameters, command_with, limit_option, with_limit
from experiments.plan import progressive_jobs
from experiments.study import BOUND_PRESET


@dataclass(frozen=True)
class ProgressiveParameters(ExperimentParameters):
    """Which run to follow, and how many samples of it."""

    limit: Annotated[int | None, limit_option("samples")]


@command_with(ProgressiveParameters)
def command(parameters: ProgressiveParameters) -> None:
    r"""The estimate of x_0 over the reverse process, Fig. 6 [of the photos' model].

    \b
    Example:
        python cli.py progressive runs/digits/eps-mse-fixed-large
    """
    settings = with_limit(parameters.settings, parameters.limit, "evaluation.n_progressive")
    run_experiment(replace(parameters, settings=settings), progressive_jobs, default_preset=BOUND_PRESET)
