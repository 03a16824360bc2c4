"""The command ``likelihood``."""

from dataclasses import dataclass, replace
from typing import Annotated, get_args

import click

from ddpm_eval.metrics.bound import EstimatorName
from ddpm_eval.protocol import PROTOCOLS, ProtocolVariance, combine
from ddpm_eval.runtime import Precision
from ddpm_eval.spec import Decoder, Variance
from ddpm_eval.stages.bound_stage import BoundStage, evaluations_for_total
from ddpm_eval.stages.run import Run
from experiments.commands.open_run import (
    PRECISIONS,
    RunParameters,
    checked_steps,
    identity,
    open_run,
    say_results,
    working_on,
)
from experiments.commands.options import (
    ProtocolName,
    Split,
    bound_limits,
    command_with,
    limit_option,
    with_limit,
)
from experiments.json_document import rows
from experiments.likelihood import (
    bound_document,
    bound_text,
    compare_precisions,
    comparison_text,
    measure_bound,
)


@dataclass(frozen=True)
class LikelihoodParameters(RunParameters):
    """Which bound of which run to measure, and with what effort."""

    limit: Annotated[int | None, limit_option("images of the split, a fixed random subset")]
    split: Split
    protocol: ProtocolName
    variance: Annotated[
        ProtocolVariance | None,
        click.Option(["--variance"], type=click.Choice([*get_args(Variance), "optimal"])),
    ]
    clip: Annotated[
        bool | None,
        click.Option(["--clip/--no-clip"], default=None, help="Clip x_0 estimates to [-1, 1]."),
    ]
    decoder: Annotated[Decoder | None, click.Option(["--decoder"], type=click.Choice(get_args(Decoder)))]
    draws: Annotated[
        int | None,
        click.Option(["--draws"], type=click.IntRange(1), help="Noise draws per image and step."),
    ]
    steps: Annotated[
        int | None,
        click.Option(
            ["--steps"],
            type=click.IntRange(2),
            help="The bound of a chain of this many evenly spaced steps.",
        ),
    ]
    estimator: Annotated[
        EstimatorName,
        click.Option(
            ["--estimator"], type=click.Choice(get_args(EstimatorName)), default="full", show_default=True
        ),
    ]
    evaluations: Annotated[
        int | None,
        click.Option(
            ["--evaluations"],
            type=click.IntRange(1),
            help="Network evaluations of the stratified estimator, in all.",
        ),
    ]
    target_halfwidth: Annotated[
        float | None,
        click.Option(
            ["--target-halfwidth"],
            type=click.FloatRange(0, min_open=True),
            help="Stratified: go on until +- this (bits/dim).",
        ),
    ]
    against: Annotated[
        Precision | None,
        click.Option(
            ["--against"], type=PRECISIONS, help="Measure in this precision too: the paired difference."
        ),
    ]


@command_with(LikelihoodParameters)
def command(parameters: LikelihoodParameters) -> None:
    r"""The variational bound of one run in bits/dim, with its split and intervals.

    \b
    Examples:
        python cli.py likelihood runs/digits/eps-mse-fixed-large --estimator stratified --json
        python cli.py likelihood runs/digits/eps-mse-fixed-large --data npz:others.npz --limit 100
        python cli.py likelihood --network networks:load --network-args path=net.pt --data cifar10
    """
    refuse_contradictions(parameters)
    settings = with_limit(parameters.settings, parameters.limit, *bound_limits(parameters.split))
    run = open_run(replace(parameters, settings=settings))
    against = parameters.against
    with working_on(run):
        stage = measure_bound(run, chosen_stage(run, parameters), parameters.target_halfwidth)
        terms = stage.read(run, stage.protocols[0])
        table = None if against is None else compare_precisions(run, stage, terms, against)
    text = f"{bound_text(run, terms)}\nin {run.results.store.path}"
    document = {"command": "likelihood", "run": identity(run), **bound_document(run, stage, terms)}
    if table is not None and against is not None:
        text += f"\n\n{comparison_text(table, run.runtime.precision, against)}"
        document["difference"] = rows(table)
    say_results(parameters, text, document)


def refuse_contradictions(parameters: LikelihoodParameters) -> None:
    """Refuse options that do not go together.

    Raises:
        ValueError: if there are some.
    """
    stratified = parameters.estimator == "stratified"
    if not stratified and (parameters.evaluations is not None or parameters.target_halfwidth is not None):
        raise ValueError("--evaluations and --target-halfwidth belong to --estimator stratified")
    against = parameters.against
    if against is not None and (stratified or against == parameters.precision):
        raise ValueError(
            f"--against {against} compares with another precision than {parameters.precision}, by the full "
            "estimator (the few steps of the stratified one would differ)"
        )


def chosen_stage(run: Run, parameters: LikelihoodParameters) -> BoundStage:
    """Return the bound that is meant.

    Raises:
        ValueError: if the network does not serve the chain, or the evaluations are too few.
    """
    protocol = combine(
        PROTOCOLS[parameters.protocol],
        parameters.variance,
        parameters.clip,
        parameters.decoder,
        parameters.draws,
    )
    num_steps = checked_steps(run, parameters.steps)
    stage = BoundStage(parameters.split, (protocol,), parameters.estimator, num_steps=num_steps)
    if parameters.evaluations is None:
        return stage
    per_image = evaluations_for_total(run, stage, parameters.evaluations)
    return replace(stage, evaluations_per_image=per_image)
