"""Table 1: the paper's model and, where it is measured, that trained on L, above the literature's rows."""

import pandas as pd

from ddpm_eval.reporting import quality_tables
from ddpm_eval.reporting.bound_tables import bound_estimates
from ddpm_eval.reporting.estimate_columns import estimate_cells
from ddpm_eval.reporting.latex import LatexLayout, escape
from ddpm_eval.reporting.report_parts import Section
from ddpm_eval.reporting.tables import write_table
from ddpm_eval.results.records import Quality
from experiments.left_out import left_out
from experiments.paper import published
from experiments.study import Study, StudyRun

TITLE = "Sample quality and bits/dim beside the literature (Table 1)"
CAPTION = (
    "Measured models above the paper's Table 1 (CIFAR-10, 50,000 samples, Inception score and FID). Scores "
    "and distances in different features, and numbers of different data, cannot be compared."
)


def section(study: Study) -> Section:
    """Render Table 1."""
    rows = [_row(run) for run in study.runs if run is study.main or _predicts_eps_with_fixed_variance(run)]
    measured = [row for row in rows if row]
    if not measured:
        return left_out(TITLE, study.main, "quality")
    literature = published.table_1()
    frame = quality_tables.table1(measured, literature)
    texts = {column: [""] * len(measured) + rest for column, rest in _as_published(literature).items()}
    layout = _layout(frame, len(measured))
    table = write_table(frame, study.tables / "table1", CAPTION, texts=texts, layout=layout)
    return Section(TITLE, tables=[table])


def _layout(frame: pd.DataFrame, measured: int) -> LatexLayout:
    """Return the layout of the paper's Table 1, with the measured models above its two groups."""
    conditional = frame["conditional"].tolist()
    features = [f" ({name})" for name in frame["features"][:measured]] + [""] * (len(frame) - measured)
    return LatexLayout(
        label="Model",
        rows=[escape(f"{model}{name}") for model, name in zip(frame["model"], features, strict=True)],
        columns={
            **{"score": "IS or score", "frechet_distance": "FID or distance"},
            **{"test_bits_per_dim": "Test", "train_bits_per_dim": "Train"},
        },
        groups={
            0: "Measured",
            conditional.index(True, measured): "Conditional",
            conditional.index(False, measured): "Unconditional",
        },
        spans=(("", 2), ("NLL (bits/dim)", 2)),
    )


def _as_published(literature: pd.DataFrame) -> dict[str, list[str]]:
    """Return what the paper prints in each column of numbers."""
    rows = list(literature.itertuples())
    return {
        "score": [published.score_text(row.inception_score, row.inception_score_std) for row in rows],
        "test_bits_per_dim": [
            published.bits_text(row.nll_test_bits_per_dim, row.nll_is_bound) for row in rows
        ],
        "train_bits_per_dim": [
            published.bits_text(row.nll_train_bits_per_dim, row.nll_is_bound) for row in rows
        ],
    }


def _predicts_eps_with_fixed_variance(run: StudyRun) -> bool:
    diffusion = run.spec.diffusion
    return diffusion.prediction == "eps" and not diffusion.learns_variance


def _row(run: StudyRun) -> dict[str, object]:
    """Return a run's row, empty if its quality was not measured."""
    quality = run.result("quality", Quality)
    if quality is None:
        return {}
    row: dict[str, object] = {
        "model": f"this run: {run.words}",
        "data": run.spec.data.name,
        "conditional": run.spec.is_conditional,
        "features": "Inception" if quality.is_inception else quality.features,
        "is_bound": True,
        **estimate_cells("score", quality.score),
        **estimate_cells("frechet_distance", quality.frechet_distance),
    }
    for split in ("test", "train"):
        terms = run.bound(split)
        if terms is not None:
            row |= estimate_cells(f"{split}_bits_per_dim", bound_estimates(terms)["total"])
    return row
