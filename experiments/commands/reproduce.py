"""The command ``reproduce``."""

from experiments.commands.experiment import run_experiment
from experiments.commands.options import ReplicatedParameters, command_with
from experiments.plan import reproduce_jobs


@command_with(ReplicatedParameters)
def command(parameters: ReplicatedParameters) -> None:
    r"""All experiments of the default study, a preset or one RUN; resumes; ends with the report's path.

    The default study is of two data sets: Table 2 and sample quality are of the digits, all about
    likelihood is of the photos. With three trainings of each model, over which Table 2 and the claims are
    then judged:

        python cli.py reproduce --seeds 3

    \b
    Examples:
        python cli.py reproduce
        python cli.py reproduce --preset cifar10 --data-root data
    """
    run_experiment(parameters, reproduce_jobs, ["table2", "split", "table4"], seeds=parameters.seeds)
