"""The bound of one run under one protocol, by the full or the stratified estimator."""

from typing import Literal

from ddpm_eval import analyse
from ddpm_eval.pipeline import Run, bound_name
from ddpm_eval.records import BoundAtoms, StratifiedAtoms
from ddpm_eval.spec import PROTOCOLS, Decoder, Protocol, ProtocolVariance, combine

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
        target_halfwidth: double the stratified evaluations until the interval's half-width, bits/dim, is at most this.

    Raises:
        ValueError: if the choices contradict each other, or the target cannot be reached with these images.
    """
    if estimator == "full" and (evaluations is not None or target_halfwidth is not None):
        raise ValueError("--evaluations and --target-halfwidth belong to --estimator stratified")
    chosen = combine(PROTOCOLS[protocol], variance, clip, decoder, draws)
    few = estimator == "stratified"
    if few and evaluations is not None:
        run.spec = run.with_evaluations(split, evaluations)
    run.likelihood(split, [chosen], few)
    atoms = _stored(run, split, chosen, few)
    while target_halfwidth is not None and analyse.halfwidth(atoms) > target_halfwidth:
        wider = 2 * run.spec.evaluation.evaluations_per_image
        if wider > min(LARGEST, run.spec.diffusion.timesteps):
            raise ValueError(
                f"the half-width is {analyse.halfwidth(atoms):.4f} bits/dim with {len(atoms.image_id)} images, and more "
                f"evaluations per image cannot bring it to {target_halfwidth:g}: the images differ (use more images)"
            )
        run.spec = run.with_evaluations(split, wider * len(atoms.image_id))
        run.likelihood(split, [chosen], few)
        atoms = _stored(run, split, chosen, few)
    table = analyse.split_table(atoms, run.spec.diffusion.variance).drop(columns="paper_bits_per_dim")
    cost = f"{atoms.network_evaluations:,}" if isinstance(atoms, StratifiedAtoms) else f"{atoms.terms.size * chosen.draws:,}"
    left_out = f", {atoms.inexact_left_out} inexact images left out" if atoms.inexact_left_out else ""
    note = f"{chosen.caption()}; {estimator} estimator, {cost} network evaluations{left_out}; 95% intervals over images"
    return f"{table.to_string(index=False)}\n{note}"


def _stored(run: Run, split: str, protocol: Protocol, few: bool) -> BoundAtoms | StratifiedAtoms:
    name = bound_name(split, protocol, few)
    return run.store.get(name, StratifiedAtoms) if few else run.store.get(name, BoundAtoms)
