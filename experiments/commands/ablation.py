"""The command ``ablation``."""

from experiments.commands.experiment import run_experiment
from experiments.commands.options import ReplicatedParameters, command_with
from experiments.plan import ablation_jobs
from experiments.study import ABLATION_PRESET


@command_with(ReplicatedParameters)
def command(parameters: ReplicatedParameters) -> None:
    r"""Table 2 [of the digits]: train what is missing, measure, print the table.

    With three trainings of each cell, in folders of their own, and the spread between them:

        python cli.py ablation --seeds 3

    \b
    Example:
        python cli.py ablation --preset digits
    """
    tables = ["table2", "table2_differences"]
    run_experiment(parameters, ablation_jobs, tables, ABLATION_PRESET, parameters.seeds)
