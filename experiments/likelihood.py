"""The bound of one run under one protocol, by the full or the stratified estimator."""

from dataclasses import replace
from typing import Literal

from ddpm_eval import runtime
from ddpm_eval.protocol import PROTOCOLS, Decoder, Protocol, ProtocolVariance, combine
from ddpm_eval.reporting import analyse
from ddpm_eval.results.records import StratifiedBoundTerms
from ddpm_eval.runtime import Precision
from ddpm_eval.stages.likelihood import Likelihood
from ddpm_eval.stages.pipeline import Run

LARGEST = 1_000
"""Evaluations per image beyond which a target half-width is given up."""


def measure(
    run: Run,
    split: str,
    *,
    protocol: str,
    variance: ProtocolVariance | None,
    clip: bool | None,
    decoder: Decoder | None,
    draws: int | None,
    estimator: Literal["full", "stratified"],
    evaluations: int | None,
    target_halfwidth: float | None,
    chain: int | None = None,
    against: Precision | None = None,
) -> str:
    """Measure and store a bound; return it as a table.

    Args:
        run: the run.
        split: ``test`` or ``train``.
        protocol: ``paper`` or ``exact``, from which the next four differ where they are not None.
        variance: of the reverse process.
        clip: whether x_0 estimates are clipped.
        decoder: which CDF.
        draws: per image and step.
        estimator: all T terms per image, or a few.
        evaluations: network evaluations of the stratified estimator over all images.
        target_halfwidth: double the stratified evaluations until the interval's half-width, bits/dim, is at
            most this.
        chain: number of evenly spaced steps instead of all.
        against: another precision to measure in too, for the paired difference.

    Raises:
        ValueError: if the choices contradict each other, or the target cannot be reached with these images.
    """
    if estimator == "full" and (evaluations is not None or target_halfwidth is not None):
        raise ValueError("--evaluations and --target-halfwidth belong to --estimator stratified")
    if against is not None and (estimator != "full" or against == run.runtime.precision):
        raise ValueError(
            f"--against {against} compares with another precision than {run.runtime.precision}, by the full estimator (the few "
            "steps of the stratified one would differ)"
        )
    chosen = combine(PROTOCOLS[protocol], variance, clip, decoder, draws)
    few = estimator == "stratified"
    task = Likelihood(run, split, few, chain)
    if few and evaluations is not None:
        run.spec = task.with_evaluations(evaluations)
    task.measure([chosen])
    atoms = task.result(chosen)
    while target_halfwidth is not None and analyse.halfwidth(atoms) > target_halfwidth:
        wider = 2 * run.spec.evaluation.evaluations_per_image
        if wider > min(LARGEST, run.spec.diffusion.timesteps):
            raise ValueError(
                f"the half-width is {analyse.halfwidth(atoms):.4f} bits/dim with {len(atoms.image_id)} images, and more "
                f"evaluations per image cannot bring it to {target_halfwidth:g}: the images differ (use more images)"
            )
        evaluation = run.spec.evaluation.model_copy(update={"evaluations_per_image": wider})
        run.spec = run.spec.model_copy(update={"evaluation": evaluation})
        task.measure([chosen])
        atoms = task.result(chosen)
    table = analyse.split_table(atoms, run.spec.diffusion.variance).drop(columns="paper_bits_per_dim")
    evaluations = (
        atoms.network_evaluations
        if isinstance(atoms, StratifiedBoundTerms)
        else atoms.terms.size * chosen.draws
    )
    left_out = f", {atoms.inexact_left_out} inexact images left out" if atoms.inexact_left_out else ""
    steps = "" if chain is None else f"a chain of {chain} of {run.spec.diffusion.timesteps} steps; "
    note = (
        f"{steps}{chosen.caption()}; {estimator} estimator, {evaluations:,} network evaluations{left_out}; "
        "95% intervals over images"
    )
    text = f"{table.to_string(index=False)}\n{note}, {run.runtime.precision}"
    return text if against is None else f"{text}\n\n{_compared(task, chosen, against)}"


def _compared(task: Likelihood, protocol: Protocol, against: Precision) -> str:
    """Measure the same bound in another precision; return the paired difference as a table."""
    run, here = task.run, task.run.runtime.precision
    other = replace(task, run=replace(run, runtime=runtime.start(str(run.runtime.device), precision=against)))
    other.measure([protocol])
    table = analyse.paired_table(task.result(protocol), other.result(protocol), (here, against))
    note = (
        f"difference: {here} - {against}, paired (same images, same noise), with its 95% interval over images"
    )
    return f"{table.to_string(index=False)}\n{note}"
