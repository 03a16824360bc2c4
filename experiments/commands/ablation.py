"""The command ``ablation``."""

from experiments.commands.experiment import run_experiment
from experiments.commands.options import ExperimentParameters, command_with
from experiments.plan import ablation_jobs
from experiments.study import ABLATION_PRESET


@command_with(ExperimentParameters)
def command(parameters: ExperimentParameters) -> None:
    """Table 2 [of the digits]: train what is missing, measure, print the table."""
    run_experiment(parameters, ablation_jobs, ["table2"], ABLATION_PRESET)
