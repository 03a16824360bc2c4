"""Table 2: what to predict (mu or eps), what to train on (L or the unweighted squared error), which
variance.
"""

from collections.abc import Sequence

from ddpm_eval.reporting import analyse, render
from ddpm_eval.reporting.page import Section
from ddpm_eval.results.records import FullBoundTerms, Quality, StratifiedBoundTerms, TrainingLog
from ddpm_eval.stages.scheduler import Job
from experiments.paper import published
from experiments.paper.presets import MAIN_CELL, TABLE_2, Cell
from experiments.workspace import Workspace

STAGES = ("train", "bound-test-stratified", "sample", "quality")


LAST = ("score_std", "n_samples", "n_images", "features", "reference_distance")
"""Columns that a narrow page may hide behind the measured values and the paper's."""


_LINES = "Points with 95% intervals; mu grey, eps blue; dashed: the distance of the test images themselves."


def jobs(workspace: Workspace, stages: tuple[str, ...] = STAGES) -> list[Job]:
    """Return the jobs of all six cells, the paper's model first.

    Raises:
        ValueError: if the settings fix what the ablation varies, or a single run is given.
    """
    if workspace.given is not None:
        raise ValueError(
            f"the ablation compares six models of a --preset, and {workspace.folder()} is one model: rate-distortion and "
            "reproduce measure it"
        )
    for key in ("diffusion.prediction", "diffusion.objective"):
        if key in workspace.settings:
            raise ValueError(
                f"--set {key} contradicts the ablation, which varies it (use train for a single run)"
            )
    order = sorted(TABLE_2, key=lambda cell: (cell != MAIN_CELL, cell.prediction != "eps"))
    return [workspace.job(cell, stages) for cell in order]


def cell_results(workspace: Workspace, cell: Cell) -> analyse.Cell:
    """Collect what is stored of a cell."""
    diffusion = workspace.spec(cell).diffusion
    return analyse.Cell(
        prediction=diffusion.prediction,
        objective=diffusion.objective,
        variance=diffusion.variance,
        log=workspace.result("training", TrainingLog, cell),
        quality=workspace.result("quality", Quality, cell),
        atoms=workspace.bound(cell),
    )


def _estimators(cells: Sequence[analyse.Cell]) -> str:
    few = sum(isinstance(cell.atoms, StratifiedBoundTerms) for cell in cells)
    full = sum(isinstance(cell.atoms, FullBoundTerms) for cell in cells)
    return f"all terms of {full} cells, the stratified estimator of {few}"


def section(workspace: Workspace) -> Section:
    """Render Table 2 and its figure from what is stored."""
    cells = [cell_results(workspace, cell) for cell in TABLE_2]
    frame = analyse.ablation_table(cells, published.table_2())
    last = [column for column in LAST if column in frame]
    frame = frame[[column for column in frame if column not in last] + last]
    qualities = [cell.quality for cell in cells if cell.quality is not None]
    if not qualities and not any(cell.log for cell in cells):
        return Section("Ablation (Table 2)")
    how = (
        qualities[0].caption
        if qualities
        else "sample quality not measured (without labels it needs --inception-weights)"
    )
    caption = (
        f"Ablation of prediction, objective and variance on {workspace.spec().data.name}; {how}. Bits/dim: test set, protocol "
        f"paper, 95% intervals over images ({_estimators(cells)}). {workspace.beside_paper()}"
    )
    table = render.write_table(frame, workspace.tables / "table2", caption, analyse.TABLE2_COLUMNS)
    figures = []
    if qualities:
        figures.append(
            render.write_figure(
                render.plot_ablation(frame), frame, workspace.figures / "table2", f"{_LINES} {caption}"
            )
        )
    notes = [
        f"{c.prediction}/{c.objective}: {c.log.reason}."
        for c in cells
        if c.log is not None and c.log.diverged
    ]
    text = "Cells that diverged are results, as in the paper: " + " ".join(notes) if notes else ""
    return Section("Ablation (Table 2)", text, [table], figures)
