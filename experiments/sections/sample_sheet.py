"""Samples: the first ones of the main run beside real images, of all runs from the same noise, and sheets."""

import math
from collections.abc import Iterable, Mapping

from ddpm_eval.reporting.bound_tables import bound_estimates
from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.image_grids import pixel_table, plot_rows, plot_samples
from ddpm_eval.reporting.report_parts import Choice, Illustration, Option, Section
from ddpm_eval.reporting.tables import format_estimate
from ddpm_eval.results.records import Quality, ReferenceImages, Samples
from experiments.left_out import left_out
from experiments.paper.presets import MAIN_CELL, cell_of
from experiments.study import Study, StudyRun

TITLE = "Samples (Fig. 13)"
SHOWN = 64
COMPARED = 12
"""Samples of each run that stand in a row."""
SHEET = 144
SHEET_COLUMNS = 16
MOST_ELEMENTS = 1_000_000
"""Samples of each run that can be chosen, and pixels times channels of them, so that the page stays small."""


def section(study: Study) -> Section:
    """Render the samples of the main run, and those of the other runs beside them."""
    samples = study.main.result("samples", Samples)
    if samples is None:
        return left_out(TITLE, study.main, "sample")
    found = {run: run.result("samples", Samples) for run in study.runs}
    known = {run: drawn for run, drawn in found.items() if drawn is not None}
    figures = [_beside_real_images(study, samples)]
    if len(known) < 2:
        return Section(TITLE, figures=figures)
    if _share_noise(known):
        figures.append(_from_the_same_noise(study, known))
    return Section(TITLE, figures=figures, interactive=[_choice(known)])


def _beside_real_images(study: Study, samples: Samples) -> Illustration:
    run = study.main
    real = run.result("reference-images", ReferenceImages)
    panels = {f"samples of {run.words}": samples.images[:SHOWN]}
    if real is not None:
        panels[f"{real.name}, {real.split} images"] = real.images[:SHOWN]
    caption = (
        f"The first {len(samples.images[:SHOWN])} samples (not selected) of {run.words} on "
        f"{run.spec.data.name}, ancestral sampling, {samples.num_steps} steps, beside real images."
        f"{_not_finite([samples], SHOWN)}"
    )
    return write_figure(plot_samples(panels), pixel_table(panels), study.figures / "samples", caption)


def _share_noise(found: Mapping[StudyRun, Samples]) -> bool:
    """Tell whether sample k of every run was drawn from the same noise."""
    return len({(drawn.seed, drawn.num_steps, drawn.images.shape[1:]) for drawn in found.values()}) == 1


def _from_the_same_noise(study: Study, found: Mapping[StudyRun, Samples]) -> Illustration:
    count = min(COMPARED, *(len(drawn.images) for drawn in found.values()))
    rows = {run.words: drawn.images[:count] for run, drawn in found.items()}
    caption = (
        f"The first {count} samples (not selected) of every run, a column each: the same noise through the "
        "whole reverse process, so that columns differ by the models alone."
        f"{_not_finite(found.values(), count)}"
    )
    return write_figure(
        plot_rows(rows, "sample"), pixel_table(rows), study.figures / "samples_same_noise", caption
    )


def _choice(found: Mapping[StudyRun, Samples]) -> Choice:
    """Let the reader choose the run whose sheet of samples is shown, with its numbers."""
    shape = next(iter(found.values())).images.shape[1:]
    most = max(min(SHEET, MOST_ELEMENTS // math.prod(shape)), SHEET_COLUMNS)
    best_first = sorted(found, key=lambda run: cell_of(run.spec) != MAIN_CELL)
    options = [
        Option(run.words, found[run].images[:most], _numbers(run) | _share_not_finite(found[run], most))
        for run in best_first
    ]
    caption = f"The first {most} samples at most of the chosen run, not selected, with its 95% intervals."
    return Choice("sheets", "Sheets of samples", caption, options, SHEET_COLUMNS)


def _not_finite(found: Iterable[Samples], n: int) -> str:
    """Return the sentence that says how many of the first n samples have no image, empty if all have one."""
    broken = sum(len(drawn.not_finite(n)) for drawn in found)
    return f" {broken} samples that are shown are not finite, and grey stands for them." if broken else ""


def _share_not_finite(drawn: Samples, n: int) -> dict[str, str]:
    """Return how many of the first n samples have no image, nothing if all have one."""
    broken = len(drawn.not_finite(n))
    return {"not finite (grey)": f"{broken} of {len(drawn.images[:n])}"} if broken else {}


def _numbers(run: StudyRun) -> dict[str, str]:
    """Return what was measured of a run, as far as it was."""
    quality = run.result("quality", Quality)
    terms = run.bound()
    numbers = {}
    if quality is not None:
        numbers[quality.distance_name] = format_estimate(*quality.frechet_distance[:3])
        numbers[quality.score_name] = format_estimate(*quality.score[:3])
    if terms is not None:
        numbers["bits/dim (test)"] = format_estimate(*bound_estimates(terms)["total"][:3])
    return numbers
