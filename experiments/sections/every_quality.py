"""Every quality figure of every run, and the classes of the main run's samples."""

from collections.abc import Mapping

import pandas as pd

from ddpm_eval.reporting.coverage_tables import (
    class_difference,
    class_matrix,
    class_table,
    coverage_table,
    reference_name,
)
from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.plots import plot_classes
from ddpm_eval.reporting.quality_tables import quality_matrix, quality_table
from ddpm_eval.reporting.report_parts import Illustration, Section, Table
from ddpm_eval.reporting.tables import write_table
from ddpm_eval.results.records import Coverage, Quality
from experiments.left_out import left_out
from experiments.study import Study

TITLE = "Sample quality of every run"


def section(study: Study) -> Section:
    """Render the table of all quality figures of all runs, and the classes of the main run's samples."""
    found = {run.label: run.result("quality", Quality) for run in study.runs}
    results = {name: quality for name, quality in found.items() if quality is not None}
    if not results:
        return left_out(TITLE, study.main, "quality")
    quality = _quality(study, results)
    caveats = sorted({quality.caveat for quality in results.values() if quality.caveat})
    coverage = study.main.result("coverage", Coverage)
    if coverage is None or len(coverage.class_label) == 0:
        return Section(TITLE, "\n\n".join(caveats), [quality])
    classes, figure = _classes(study, coverage)
    return Section(TITLE, "\n\n".join(caveats), [quality, classes], [figure])


def _quality(study: Study, results: Mapping[str, Quality]) -> Table:
    covered = {run.label: run.result("coverage", Coverage) for run in study.runs}
    known = {name: coverage for name, coverage in covered.items() if coverage is not None}
    first = next(iter(results.values()))
    seed = f" of seed {study.main.spec.seed}" if study.replicates else ""
    caption = (
        f"Sample quality of every run{seed}; {first.caption}. "
        "The reference distance is that of the test to the training images."
    )
    if known:
        neighbours = next(iter(known.values())).neighbours
        caption += f" Density and coverage (Naeem et al. 2020) are of {neighbours} neighbours."
    frame = pd.concat([quality_table(results), coverage_table(known)], ignore_index=True)
    shown = frame.assign(run=frame["run"].map({run.label: run.words for run in study.runs}))
    return write_table(frame, study.tables / "quality", caption, shown=quality_matrix(shown))


def _classes(study: Study, coverage: Coverage) -> tuple[Table, Illustration]:
    """Write the classes of the main run's samples and of the data as a table and as a figure."""
    frame = class_table(coverage)
    images = reference_name(coverage)
    caption = (
        f"Classes that {coverage.features} assigns to the {coverage.n_samples} samples of "
        f"{study.main.words} and to the {coverage.n_reference} {images}, 95% intervals. "
        f"{class_difference(coverage)}"
    )
    table = write_table(frame, study.tables / "classes", caption, shown=class_matrix(frame))
    return table, write_figure(plot_classes(frame), frame, study.figures / "classes", caption)
