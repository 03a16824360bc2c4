"""The command ``rate-distortion``."""

from experiments.commands.experiment import run_experiment
from experiments.commands.options import ExperimentParameters, command_with
from experiments.plan import rate_distortion_jobs
from experiments.study import BOUND_PRESET


@command_with(ExperimentParameters)
def command(parameters: ExperimentParameters) -> None:
    """The split into rate and distortion, Table 4 and Fig. 5 [of the photos' model] or of a RUN."""
    run_experiment(parameters, rate_distortion_jobs, ["split", "table4", "protocols"], BOUND_PRESET)
