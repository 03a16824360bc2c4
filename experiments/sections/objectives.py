"""What training on L and on L_simple weights, and which terms of the bound differ by it (section 3.4)."""

import pandas as pd

from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.plots import plot_objectives
from ddpm_eval.reporting.report_parts import Section
from ddpm_eval.reporting.tables import format_estimate, write_table
from ddpm_eval.reporting.term_ranges import objective_table
from ddpm_eval.results.bound_terms import BoundTerms
from ddpm_eval.results.records import ScheduleTables
from experiments.left_out import left_out
from experiments.paper.evidence import EPS_L, EPS_MSE, paired_difference
from experiments.paper.presets import Cell, cell_of
from experiments.study import Study, StudyRun

TITLE = "What L and L_simple weight (section 3.4)"
DRAWN = (
    "Left: the weight of the squared error of eps in each term (Eq. 12), mean over the range of t; middle: "
    "the terms of the model trained on each; right: their paired differences with 95% intervals."
)


def section(study: Study) -> Section:
    """Render the weights of both objectives and the terms of the models that were trained on them."""
    of_l, of_l_simple = (_bound(study, cell) for cell in (EPS_L, EPS_MSE))
    schedule = study.main.result("schedule", ScheduleTables)
    if of_l is None or of_l_simple is None or schedule is None:
        runs = {cell_of(run.spec): run for run in study.runs}
        lacking = runs.get(EPS_L, study.main) if of_l is None else study.main
        return left_out(TITLE, lacking, "bound-test-stratified")
    if of_l.num_steps != of_l_simple.num_steps:
        return Section(TITLE, "The two models' bounds are of chains of different lengths.")
    frame = objective_table(of_l, of_l_simple, schedule)
    caption = (
        "Models that predict eps with a fixed variance, trained on L and on L_simple: weights of the squared "
        "error of eps (the mean over t > 1 is one), and the terms of the bound by ranges of t, L_simple "
        f"minus L paired; {study.main.spec.data.name} test set, {of_l.protocol.caption()}, 95% intervals "
        "over images."
    )
    table = write_table(frame.drop(columns=["t_first", "t_last"]), study.tables / "objectives", caption)
    figure = write_figure(plot_objectives(frame), frame, study.figures / "objectives", DRAWN)
    seed = f"Of the trainings of seed {study.main.spec.seed}: " if study.replicates else ""
    return Section(TITLE, seed + _found(frame, of_l, of_l_simple), [table], [figure])


def _bound(study: Study, cell: Cell) -> BoundTerms | None:
    """Return the bound of the test images of a cell's run, None if it is not measured."""
    runs: list[StudyRun] = [run for run in study.runs if cell_of(run.spec) == cell]
    return runs[0].bound() if runs else None


def _found(frame: pd.DataFrame, of_l: BoundTerms, of_l_simple: BoundTerms) -> str:
    """Say what the two models' bounds differ by, and in which terms most."""
    difference = frame.set_index("t")["difference_bits_per_dim"]
    if difference.isna().any():
        return "The two bounds are of different images, so that their differences are not paired."
    total = format_estimate(*paired_difference(of_l_simple, of_l)[:3])
    heavy = frame.set_index("t")["weight_l"]
    return (
        f"Training on L_simple costs {total} bits/dim over training on L: the largest loss is at t = "
        f"{difference.idxmax()} ({difference.max():+.2g}), the largest gain at t = {difference.idxmin()} "
        f"({difference.min():+.2g}). L weights the error of eps at t = {heavy.idxmax()} by {heavy.max():.2g} "
        "times its mean over t, L_simple weights all t alike."
    )
