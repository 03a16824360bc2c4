"""The command ``rate-distortion``."""

from dataclasses import dataclass, replace
from typing import Annotated

from experiments.commands.experiment import run_experiment
from experiments.commands.options import (
    ExperimentParameters,
    bound_limits,
    command_with,
    limit_option,
    with_limit,
)
from experiments.plan import rate_distortion_jobs
from experiments.study import BOUND_PRESET


@dataclass(frozen=True)
class RateDistortionParameters(ExperimentParameters):
    """Which run to measure, and on how many images."""

    limit: Annotated[int | None, limit_option("images of each split, a fixed random subset")]


@command_with(RateDistortionParameters)
def command(parameters: RateDistortionParameters) -> None:
    r"""The split into rate and distortion, Table 4 and Fig. 5 [of the photos' model] or of a RUN.

    \b
    Example:
        python cli.py rate-distortion --network networks:load --data cifar10 --limit 500
    """
    settings = with_limit(parameters.settings, parameters.limit, *bound_limits("test", "train"))
    tables = ["split", "table4", "protocols"]
    run_experiment(replace(parameters, settings=settings), rate_distortion_jobs, tables, BOUND_PRESET)
