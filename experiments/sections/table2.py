"""Table 2: what to predict (mu or eps), what to train on (L or the squared error), which variance."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ddpm_eval.reporting.ablation_figure import plot_ablation
from ddpm_eval.reporting.ablation_table import TABLE2_COLUMNS, AblationCell, ablation_table
from ddpm_eval.reporting.estimate_columns import estimate_cells, estimate_columns
from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.latex import LatexLayout
from ddpm_eval.reporting.replicates import SAME_IMAGES, replicated_ablation
from ddpm_eval.reporting.report_parts import Section, Table
from ddpm_eval.reporting.tables import write_table
from ddpm_eval.results.records import Quality, TrainingLog
from experiments.describe import paper_columns
from experiments.left_out import left_out
from experiments.paper import published
from experiments.paper.evidence import (
    EPS_MSE,
    MOSTLY,
    Evidence,
    bound_difference,
    clipped_share,
    distance_margins,
    over_seeds,
)
from experiments.paper.presets import TABLE_2, Cell, cell_name, cell_of
from experiments.study import Study, StudyRun

TITLE = "Ablation (Table 2)"
LAYOUT = LatexLayout(
    label="Objective",
    rows=(
        *(r"$L$, learned diagonal $\Sigma$", r"$L$, fixed isotropic $\Sigma$"),
        r"$\|\tilde\mu - \tilde\mu_\theta\|^2$",
        *(r"$L$, learned diagonal $\Sigma$", r"$L$, fixed isotropic $\Sigma$"),
        r"$\|\tilde\epsilon - \epsilon_\theta\|^2$ ($L_\mathrm{simple}$)",
    ),
    columns={
        **dict.fromkeys(("score", "frechet_distance", "bits_per_dim"), ""),
        "paper_inception_score": "IS",
        "paper_fid": "FID",
    },
    groups={0: r"$\tilde\mu$ prediction (baseline)", 3: r"$\epsilon$ prediction"},
    spans=(("measured", 3), ("paper (CIFAR-10)", 2)),
)
"""The paper's Table 2, with bits/dim beside the measured values and the paper's values behind them."""
LAST = ("score_std", "trainings", "n_samples", "n_images", "features", "reference_distance")
"""Columns that a narrow page may hide behind the measured values and the paper's."""
OVER_SEEDS = (*(f"{name}_std_over_trainings" for name in SAME_IMAGES), "trainings")
"""Columns of Table 2 that there are of several seeds only."""
DIFFERENCES: dict[str, Callable[[Study, Cell], Evidence]] = {
    "frechet_distance": lambda study, cell: distance_margins(study, (cell,), (EPS_MSE,)),
    "bits_per_dim": lambda study, cell: bound_difference(study, cell, EPS_MSE),
}
LINES = (
    "Table 2 as points with 95% intervals, mu orange and eps blue; dashed: the distance of the test images "
    "themselves; crosses: the paper's values, whose order can be compared, not their size. Protocol and "
    "numbers of images are those of the table."
)


def section(study: Study) -> Section:
    """Render Table 2 and its figure, and of several seeds how their trainings differ."""
    cells = [_cell(run) for run in study.runs]
    measured = any(cell.quality for cell in cells)
    if not measured and not any(cell.log for cell in cells):
        return left_out(TITLE, study.main, "train")
    of_seeds = [ablation_table([_cell(run) for run in one.runs], published.table_2()) for one in study.seeds]
    frame = _ordered(replicated_ablation(of_seeds))
    caption = _caption(study, cells)
    shown = frame.assign(clipped_updates=_clipped_shares(study))
    columns = [*TABLE2_COLUMNS, *(column for column in frame if column in OVER_SEEDS)]
    scores = published.table_2()[["inception_score", "inception_score_std"]]
    texts = {"paper_inception_score": [published.score_text(*row) for row in scores.to_numpy()]}
    tables = [write_table(frame, study.tables / "table2", caption, columns, shown, texts, LAYOUT)]
    if study.replicates:
        tables += [_every_training(study, of_seeds), _differences(study)]
    figures = []
    if measured:
        figure = plot_ablation(frame)
        figures.append(write_figure(figure, frame, study.figures / "table2", LINES))
    text = "\n\n".join(filter(None, [_diverged(study), _mostly_clipped(study)]))
    return Section(TITLE, text, tables, figures)


def _every_training(study: Study, of_seeds: Sequence[pd.DataFrame]) -> Table:
    """Return Table 2 of each seed, one below the other."""
    columns = ["prediction", "objective", "variance", "seed", "status"]
    columns += [column for name in SAME_IMAGES for column in estimate_columns(name)]
    parts = [
        table.assign(seed=one.main.spec.seed)[columns]
        for one, table in zip(study.seeds, of_seeds, strict=True)
    ]
    caption = (
        "Every training behind Table 2; the intervals are over images or samples and leave out training."
    )
    return write_table(pd.concat(parts, ignore_index=True), study.tables / "table2_seeds", caption)


def _differences(study: Study) -> Table:
    """Return by how much each cell differs from the paper's model, paired by seed."""
    rows = []
    for cell in TABLE_2[:-1]:
        distance, bits = (
            over_seeds([measure(one, cell) for one in study.seeds]) for measure in DIFFERENCES.values()
        )
        row: dict[str, object] = {"cell": cell_name(cell)}
        for name, found in zip(DIFFERENCES, (distance, bits), strict=True):
            row |= estimate_cells(name, found.estimates[0] if found.estimates else None)
            row[f"{name}_trainings"] = found.seeds if found.estimates else 0
        rows.append(row)
    caption = (
        "Each cell minus the paper's model (eps, MSE, fixed), paired by seed: the mean of the trainings' "
        "differences, with intervals over trainings, those of bits/dim over images as well. A cell that "
        "diverged is infinitely far from the data."
    )
    return write_table(pd.DataFrame(rows), study.tables / "table2_differences", caption)


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
    """Return the share of clipped updates of each row, of several seeds their mean.

    It is NaN where a training is not recorded.
    """
    of_seeds = [{cell_of(run.spec): clipped_share(run)[0] for run in one.runs} for one in study.seeds]
    return [float(np.mean([shares.get(cell, math.nan) for shares in of_seeds])) for cell in TABLE_2]


def _mostly_clipped(study: Study) -> str:
    """Say in which cells most updates were clipped: their step size was not that of the optimiser."""
    found = [
        (f"{cell_name(cell_of(run.spec))}{_seed(study, one)}", *clipped_share(run))
        for one in study.seeds
        for run in one.runs
    ]
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
    """Say what the table is of; what the table of sample quality says in full is not repeated."""
    quality = next((cell.quality for cell in cells if cell.quality is not None), None)
    how = (
        "sample quality not measured (without labels it needs --inception-weights)"
        if quality is None
        else f"samples against the {quality.n_reference} {quality.reference} images, protocol "
        f"{quality.protocol}, as the table of sample quality says in full"
    )
    over_images = "" if study.replicates else ", 95% intervals over them"
    return (
        f"Ablation of prediction, objective and variance on {study.main.spec.data.name}; {how}. "
        f"Bits/dim: of test images{over_images} ({_estimators(cells)}). {_trainings(study)} "
        f"{paper_columns(study)}"
    )


def _estimators(cells: Sequence[AblationCell]) -> str:
    """Say by which estimators the bounds of the cells were measured."""
    found = Counter(cell.terms.estimator for cell in cells if cell.terms is not None)
    names = {"full": "all terms", "stratified": "the stratified estimator"}
    known = [name for name in names if found[name]]
    if len(known) < 2:
        return names[known[0]] if known else "not measured"
    return ", ".join(f"{names[name]} of {found[name]}" for name in known)


def _trainings(study: Study) -> str:
    """Say of how many trainings the table is, and what its intervals cover."""
    n = len(study.seeds)
    if n == 1:
        return "Each cell was trained once: the intervals leave out what another seed would change."
    first = study.main.spec.seed
    return (
        f"Means of {n} trainings of each cell, seeds {first} to {first + n - 1}, with the standard deviation "
        "between them; 95% intervals are over trainings (Student's t, of the logarithm of a distance), those "
        "of bits/dim over images as well."
    )


def _diverged(study: Study) -> str:
    """Say when and how cells diverged."""
    notes = [
        f"{run.spec.diffusion.prediction}/{run.spec.diffusion.objective}{_seed(study, one)}: {log.reason}."
        for one in study.seeds
        for run in one.runs
        if (log := run.result("training", TrainingLog)) is not None and log.diverged
    ]
    return "Cells that diverged are results, as in the paper: " + " ".join(notes) if notes else ""


def _seed(study: Study, one: Study) -> str:
    """Name the seed behind a cell's name, where there are several."""
    return f", seed {one.main.spec.seed}" if study.replicates else ""
