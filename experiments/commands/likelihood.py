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
    open_run,
    say,
    working_on,
)
from experiments.commands.options import command_with
from experiments.likelihood import bound_text, comparison_text, measure_bound


@dataclass(frozen=True)
class LikelihoodParameters(RunParameters):
    """Which bound of which run to measure, and with what effort."""

    split: Annotated[
        str,
        click.Option(["--split"], type=click.Choice(["test", "train"]), default="test", show_default=True),
    ]
    protocol: Annotated[
        str,
        click.Option(
            ["--protocol"],
            type=click.Choice(list(PROTOCOLS)),
            default="paper",
            show_default=True,
            help="See docs/protocol.md.",
        ),
    ]
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
    """The variational bound of one run in bits/dim, with its split and intervals."""
    refuse_contradictions(parameters)
    run = open_run(parameters)
    with working_on(run):
        stage = chosen_stage(run, parameters)
        terms = measure_bound(run, stage, parameters.target_halfwidth)
        text = bound_text(run, terms)
        if parameters.against is not None:
            text += f"\n\n{comparison_text(run, stage, terms, parameters.against)}"
    say(text)


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
