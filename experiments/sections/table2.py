"""Table 2: what to predict (mu or eps), what to train on (L or the squared error), which variance."""

import math
from collections.abc import Sequence

import pandas as pd

from ddpm_eval.reporting.ablation_table import TABLE2_COLUMNS, AblationCell, ablation_table
from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.plots import plot_ablation
from ddpm_eval.reporting.report_parts import Section
from ddpm_eval.reporting.tables import write_table
from ddpm_eval.results.records import Quality, TrainingLog
from experiments.describe import paper_columns
from experiments.paper import published
from experiments.paper.evidence import MOSTLY, cell_name, clipped_share
from experiments.paper.presets import TABLE_2, cell_of
from experiments.study import Study, StudyRun

TITLE = "Ablation (Table 2)"
LAST = ("score_std", "n_samples", "n_images", "features", "reference_distance")
"""Columns that a narrow page may hide behind the measured values and the paper's."""
LINES = "Points with 95% intervals; mu orange, eps blue; dashed: the distance of the test images themselves."


def section(study: Study) -> Section:
    """Render Table 2 and its figure."""
    cells = [_cell(run) for run in study.runs]
    measured = any(cell.quality for cell in cells)
    if not measured and not any(cell.log for cell in cells):
        return Section(TITLE)
    frame = _ordered(ablation_table(cells, published.table_2()))
    caption = _caption(study, cells)
    shown = frame.assign(clipped_updates=_clipped_shares(study))
    table = write_table(frame, study.tables / "table2", caption, TABLE2_COLUMNS, shown)
    figures = []
    if measured:
        figure = plot_ablation(frame)
        figures.append(write_figure(figure, frame, study.figures / "table2", f"{LINES} {caption}"))
    text = "\n\n".join(filter(None, [_diverged(cells), _mostly_clipped(study)]))
    return Section(TITLE, text, [table], figures)


def _cell(run: StudyRun) -> AblationCell:
    """Collect what is stored of a cell."""
    diffusion = run.spec.diffusion
    return AblationCell(
        prediction=diffusion.prediction,
        objective=diffusion.objective,
        variance=diffusion.variance,
        log=run.result("training", TrainingLog),
        quality=run.result("quality", Quality),
        terms=run.bound(),
    )


def _clipped_shares(study: Study) -> list[float]:
    """Return the share of clipped updates of each row, NaN where no training is recorded."""
    shares = {cell_of(run.spec): clipped_share(run)[0] for run in study.runs}
    return [shares.get(cell, math.nan) for cell in TABLE_2]


def _mostly_clipped(study: Study) -> str:
    """Say in which cells most updates were clipped: their step size was not that of the optimiser."""
    found = [(cell_name(cell_of(run.spec)), *clipped_share(run)) for run in study.runs]
    notes = [
        f"{name} ({100 * share:.0f}%, median norm {norm:.2g})"
        for name, share, norm in found
        if share > MOSTLY
    ]
    if not notes:
        return ""
    return (
        f"Gradients were clipped at norm {study.main.spec.train.clip_norm:g} in most updates of "
        f"{'; '.join(notes)}."
    )


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """Put the columns of `LAST` behind the others."""
    last = [column for column in LAST if column in frame]
    return frame[[column for column in frame if column not in last] + last]


def _caption(study: Study, cells: Sequence[AblationCell]) -> str:
    captions = [cell.quality.caption for cell in cells if cell.quality is not None]
    how = (
        captions[0]
        if captions
        else "sample quality not measured (without labels it needs --inception-weights)"
    )
    estimators = [cell.terms.estimator for cell in cells if cell.terms is not None]
    return (
        f"Ablation of prediction, objective and variance on {study.main.spec.data.name}; {how}. "
        "Bits/dim: test set, protocol paper, 95% intervals over images "
        f"(all terms of {estimators.count('full')} cells, the stratified estimator of "
        f"{estimators.count('stratified')}). {paper_columns(study)}"
    )


def _diverged(cells: Sequence[AblationCell]) -> str:
    """Say when and how cells diverged."""
    notes = [
        f"{cell.prediction}/{cell.objective}: {cell.log.reason}."
        for cell in cells
        if cell.log is not None and cell.log.diverged
    ]
    return "Cells that diverged are results, as in the paper: " + " ".join(notes) if notes else ""
