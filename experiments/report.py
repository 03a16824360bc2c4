"""The report of a study from whatever is stored: its sections, its head and how each number was made."""

from pathlib import Path

from ddpm_eval.reporting import page
from ddpm_eval.reporting.bound_tables import bound_estimates
from ddpm_eval.reporting.provenance_rows import provenance_row
from ddpm_eval.reporting.report_parts import ProvenanceRow, Section
from ddpm_eval.reporting.tables import format_estimate
from ddpm_eval.results.records import Quality, TrainingLog
from experiments.describe import describe_data, describe_run
from experiments.paper.presets import against_the_paper
from experiments.sections import (
    bound_split,
    every_quality,
    fig6_progressive,
    fig8_interpolation,
    fig10_quality,
    fig15_neighbours,
    protocol_comparison,
    quality_by_steps,
    sample_sheet,
    shorter_chains,
    table1,
    table2,
    training_curves,
)
from experiments.study import Study, StudyRun

PAPER = "Ho, Jain, Abbeel, Denoising Diffusion Probabilistic Models, NeurIPS 2020"
OF_THE_MAIN_RUN = (
    bound_split.section,
    protocol_comparison.section,
    shorter_chains.section,
    fig6_progressive.section,
    fig10_quality.section,
    quality_by_steps.section,
    fig15_neighbours.section,
    fig8_interpolation.section,
)
"""Sections that depend on the main run alone."""


class Report:
    """The report of a study, written again whenever there are new results.

    The sections of the main run are rendered anew only when its results have changed.

    Args:
        study: the runs and the report's folder.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._rendered_at: int | None = None
        self._of_the_main_run: list[Section] = []

    def write(self) -> Path:
        """Write the report from what is stored; return the path of its page.

        Raises:
            ValueError: if a result is damaged, or a file cannot be written.
        """
        study = self.study
        title = (
            f"Denoising diffusion on {study.main.spec.data.name}: sample quality, bound, rate and distortion"
        )
        sections = [
            sample_sheet.section(study),
            *([table2.section(study)] if study.has_every_cell else []),
            *self._main_sections(),
            every_quality.section(study),
            table1.section(study),
            training_curves.section(study),
        ]
        return page.write_report(study.report_folder, title, sections, _provenance(study), _head(study))

    def _main_sections(self) -> list[Section]:
        path = self.study.main.results.path
        changed_at = path.stat().st_mtime_ns if path.exists() else 0
        if changed_at != self._rendered_at:
            self._of_the_main_run = [section(self.study) for section in OF_THE_MAIN_RUN]
            self._rendered_at = changed_at
        return self._of_the_main_run


def write_report(study: Study) -> Path:
    """Write the report of a study from what is stored; return the path of its page.

    Raises:
        ValueError: if a result is damaged, or a file cannot be written.
    """
    return Report(study).write()


def summary(run: StudyRun) -> str:
    """Return in one line what is known of a run."""
    log = run.result("training", TrainingLog)
    if log is not None and log.diverged:
        return f"diverged, {log.reason}"
    terms = run.bound()
    quality = run.result("quality", Quality)
    parts = []
    if terms is not None:
        parts.append(f"{format_estimate(*bound_estimates(terms)['total'][:3])} bits/dim")
    if quality is not None:
        parts.append(f"{quality.distance_name} {format_estimate(*quality.frechet_distance[:3])}")
    return ", ".join(parts) or "trained"


def _head(study: Study) -> dict[str, str]:
    """Return what the report is of, as labelled texts."""
    run = study.main
    if study.preset is None:
        return {"Run": str(run.folder), **describe_run(run.results.path), "Paper": PAPER}
    settings = ", ".join(f"{key}={text}" for key, text in study.settings.items())
    return {
        "Preset": run.spec.preset,
        "Data": describe_data(run.spec),
        "Paper": PAPER,
        "Against the paper": against_the_paper(run.spec),
        "Settings": settings or "the preset's",
        "Seed": str(run.spec.seed),
    }


def _provenance(study: Study) -> list[ProvenanceRow]:
    """Say of each stored result how it was made."""
    return [provenance_row(run.folder.resolve().name, entry) for run in study.runs for entry in run.entries()]
