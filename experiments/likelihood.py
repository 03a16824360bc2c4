"""The bound of one run under one protocol: measured until it is precise enough, and laid out as text."""

from dataclasses import replace

import pandas as pd

from ddpm_eval import runtime
from ddpm_eval.reporting.bound_comparisons import paired_table
from ddpm_eval.reporting.bound_tables import bound_estimates, halfwidth, split_table
from ddpm_eval.results.bound_terms import BoundTerms
from ddpm_eval.runtime import Precision
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.bound_stage import BoundStage
from ddpm_eval.stages.run import Run
from experiments.json_document import Document

MOST_EVALUATIONS = 1_000
"""Evaluations per image beyond which a target half-width is given up."""


def measure_bound(run: Run, stage: BoundStage, target_halfwidth: float | None = None) -> BoundStage:
    """Measure and store the bound of a stage's first protocol, and return the stage that is precise enough.

    Args:
        run: to be measured.
        stage: what to measure.
        target_halfwidth: double the stratified evaluations until half the width of the total's interval,
            in bits/dim, is at most this; None measures once.

    Raises:
        ValueError: if the target cannot be reached with these images.
    """
    ensure(stage, run)
    terms = stage.read(run, stage.protocols[0])
    if target_halfwidth is None or halfwidth(terms) <= target_halfwidth:
        return stage
    per_image = stage.evaluations_per_image or run.spec.evaluation.evaluations_per_image
    most = min(MOST_EVALUATIONS, terms.num_steps)
    if per_image >= most:
        raise ValueError(
            f"the half-width is {halfwidth(terms):.4f} bits/dim with {len(terms.image_id)} images, and more "
            f"evaluations per image cannot bring it to {target_halfwidth:g}: the images differ (use more "
            "images)"
        )
    return measure_bound(
        run, replace(stage, evaluations_per_image=min(2 * per_image, most)), target_halfwidth
    )


def bound_text(run: Run, terms: BoundTerms) -> str:
    """Return the split of a bound as a table, with a note on how it was measured."""
    table = split_table(terms).drop(columns="paper_bits_per_dim")
    timesteps = run.spec.diffusion.timesteps
    chain = "" if terms.num_steps == timesteps else f"a chain of {terms.num_steps} of {timesteps} steps; "
    left_out = f", {terms.inexact_left_out} inexact images left out" if terms.inexact_left_out else ""
    return (
        f"{table.to_string(index=False)}\n{chain}{terms.protocol.caption()}; {terms.estimator} estimator, "
        f"{terms.network_evaluations:,} network evaluations{left_out}; 95% intervals over images, "
        f"{run.runtime.precision}"
    )


def compare_precisions(run: Run, stage: BoundStage, terms: BoundTerms, against: Precision) -> pd.DataFrame:
    """Measure a bound in another precision, too, and return the paired difference; see `paired_table`.

    Args:
        run: to be measured.
        stage: whose bound it is.
        terms: the bound in the run's own precision.
        against: the other precision.
    """
    other = replace(run, runtime=runtime.start(str(run.runtime.device), precision=against))
    found = measure_bound(other, stage).read(other, stage.protocols[0])
    return paired_table(terms, found, (run.runtime.precision, against))


def comparison_text(table: pd.DataFrame, precision: Precision, against: Precision) -> str:
    """Return the paired difference of two precisions as a table with a note."""
    return (
        f"{table.to_string(index=False)}\ndifference: {precision} - {against}, paired (same images, same "
        "noise), with its 95% interval over images"
    )


def bound_document(run: Run, stage: BoundStage, terms: BoundTerms) -> Document:
    """Return a bound, and where it is stored, for programs."""
    return {
        "result": stage.outputs(run)[0].name,
        "key": stage.key(run),
        "protocol": terms.protocol.name,
        "estimator": terms.estimator,
        "split": stage.split,
        "num_steps": terms.num_steps,
        "n_images": len(terms.image_id),
        "inexact_left_out": terms.inexact_left_out,
        "network_evaluations": terms.network_evaluations,
        "values": bound_estimates(terms),
    }
