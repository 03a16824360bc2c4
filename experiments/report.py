"""The report of a study from whatever is stored: its sections, its head and how each number was made."""

import math
from pathlib import Path

from ddpm_eval.reporting import page
from ddpm_eval.reporting.bound_tables import BITS_PER_DIM, bound_estimates
from ddpm_eval.reporting.intervals import mean_estimate
from ddpm_eval.reporting.provenance_rows import provenance_row, total_time, uncommitted
from ddpm_eval.reporting.report_parts import ProvenanceRow, Section
from ddpm_eval.reporting.tables import format_estimate
from ddpm_eval.reporting.training_caveats import training_caveat
from ddpm_eval.results.records import Baseline, Quality, TrainingLog
from experiments.describe import describe_data, describe_run
from experiments.headline import headline
from experiments.paper.presets import against_the_paper
from experiments.sections import (
    bound_split,
    claims_table,
    every_quality,
    fig6_progressive,
    fig7_shared_latents,
    fig8_interpolation,
    fig9_interpolation_times,
    fig10_quality,
    fig15_neighbours,
    objectives,
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
    fig7_shared_latents.section,
    fig10_quality.section,
    quality_by_steps.section,
    fig15_neighbours.section,
    fig8_interpolation.section,
    fig9_interpolation_times.section,
)
"""Sections that depend on the main run alone, or on the one of which likelihood is measured."""


class Report:
    """The report of a study, written again whenever there are new results.

    The sections of the main run, and of the run whose likelihood is reported, are rendered anew only when
    their results have changed.

    Args:
        study: the runs and the report's folder.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._rendered_at: list[int] = []
        self._of_the_main_run: list[Section] = []

    def write(self) -> Path:
        """Write the report from what is stored; return the path of its page.

        Raises:
            ValueError: if a result is damaged, or a file cannot be written.
        """
        study = self.study
        names = " and ".join(run.spec.data.name for run in study.subjects)
        title = f"Denoising diffusion on {names}: sample quality, bound, rate and distortion"
        sections = [
            claims_table.section(study),
            sample_sheet.section(study),
            *([table2.section(study), objectives.section(study)] if study.has_every_cell else []),
            *self._main_sections(),
            every_quality.section(study),
            table1.section(study),
            training_curves.section(study),
        ]
        return page.write_report(
            study.report_folder, title, sections, _provenance(study), _head(study), headline=headline(study)
        )

    def _main_sections(self) -> list[Section]:
        paths = [run.results.path for run in self.study.subjects]
        changed_at = [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]
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
    elif log is None:
        parts += _before_training(run)
    if quality is not None:
        parts.append(f"{quality.distance_name} {format_estimate(*quality.frechet_distance[:3])}")
    caveat = "" if log is None else training_caveat(run.spec.train, log)
    return "; ".join(part for part in (", ".join(parts) or "trained", caveat) if part)


def _before_training(run: StudyRun) -> list[str]:
    """Say what a model must beat, where that is all that is known."""
    baseline = run.result("baseline", Baseline)
    if baseline is None:
        return []
    nll = mean_estimate(baseline.nll / (baseline.dimensions * math.log(2))).estimate(BITS_PER_DIM)
    return [f"a Gaussian that was fitted to its images needs {format_estimate(*nll[:3])} bits/dim"]


def _head(study: Study) -> dict[str, str]:
    """Return what the report is of, as labelled texts."""
    run = study.main
    if study.preset is None:
        return {"Run": str(run.folder), **describe_run(run.results.path), "Paper": PAPER}
    settings = ", ".join(f"{key}={text}" for key, text in study.settings.items())
    specs = [subject.spec for subject in study.subjects]
    entries = [entry for every in study.every_run for entry in every.entries()]
    dirty = uncommitted(entries)
    return {
        "Preset": " and ".join(spec.preset for spec in specs) + _division(study),
        "Data": "; ".join(map(describe_data, specs)),
        "Paper": PAPER,
        "Against the paper": "; ".join(map(against_the_paper, specs)),
        "Settings": settings or "the preset's",
        "Seed": _seeds(study),
        **({"Caution": caution} if (caution := _caution(study)) else {}),
        **({"Computing time": f"{total_time(entries)}, summed over processes"} if entries else {}),
        **({"Uncommitted changes": f"in the program that made {dirty} results"} if dirty else {}),
    }


def _seeds(study: Study) -> str:
    """Return the seed, or say what is measured with which of several."""
    first, last = study.main.spec.seed, study.seeds[-1].main.spec.seed
    if first == last:
        return str(first)
    return f"{first} to {last} (Table 2 and the claims; all else is of seed {first})"


def _caution(study: Study) -> str:
    """Say which runs have averaged weights that are largely those of the start."""
    logs = {run: run.result("training", TrainingLog) for run in study.every_run}
    caveats = {run: training_caveat(run.spec.train, log) for run, log in logs.items() if log is not None}
    return "; ".join(f"{_name_in(study, run)}: {caveat}" for run, caveat in caveats.items() if caveat)


def _division(study: Study) -> str:
    """Say which run is behind what, where there are two."""
    if study.other_bound_run is None:
        return ""
    return f" (likelihood is of {study.bound_run.spec.preset}, all else of {study.main.spec.preset})"


def _provenance(study: Study) -> list[ProvenanceRow]:
    """Say of each stored result how it was made."""
    return [provenance_row(_name_in(study, run), entry) for run in study.every_run for entry in run.entries()]


def _name_in(study: Study, run: StudyRun) -> str:
    """Return a run's name in the table of all results, distinct among the study's."""
    return run.label if run is study.other_bound_run else run.folder.resolve().name
