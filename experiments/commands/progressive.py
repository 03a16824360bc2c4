"""The command ``progressive``."""

from experiments.commands.experiment import run_experiment
from experiments.commands.options import ExperimentParameters, command_with
from experiments.plan import progressive_jobs
from experiments.study import BOUND_PRESET


@command_with(ExperimentParameters)
def command(parameters: ExperimentParameters) -> None:
    """The estimate of x_0 over the reverse process, Fig. 6 [of the photos' model]."""
    run_experiment(parameters, progressive_jobs, default_preset=BOUND_PRESET)
