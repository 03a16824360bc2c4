"""Fig. 9: interpolation between two test images in the latent spaces of several times."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.image_grids import pixel_table, plot_rows
from ddpm_eval.reporting.report_parts import Illustration, Section
from ddpm_eval.results.fields import Array
from ddpm_eval.results.records import Interpolations
from experiments.left_out import left_out
from experiments.study import Study, StudyRun

TITLE = "Interpolation at several times (Fig. 9)"


def section(study: Study) -> Section:
    """Render Fig. 9, if there are interpolations at more than one time."""
    found = _interpolations(study.main)
    if len(found) < 2:
        return left_out(TITLE, study.main, "interpolate-times")
    return Section(TITLE, figures=[times_figure(found, study.figures / "interpolation_times")])


def times_figure(found: Sequence[Interpolations], stem: Path) -> Illustration:
    """Draw the interpolations of the first pair, a row for each time, and the mixture of the pixels.

    Args:
        found: of one pair of images and the same weights, by decreasing time.
        stem: path of the figure without suffix; its folder is created.
    """
    ends, weights = found[0], found[0].weight
    rows = {f"t = {each.t}": _row(ends, each.images[:, 0]) for each in found}
    rows["t = 0"] = _row(ends, _pixel_mixtures(ends))
    caption = (
        "Coarse to fine: the two test images of the outer columns, diffused to the time t of the row with "
        "the same noise, mixed with the weight of the target below each column, and decoded; a step has the "
        "same noise in every row. The last row mixes the pixels, without a model."
    )
    labels = ["source", *(f"{w:.1f}" for w in weights), "target"]
    return write_figure(plot_rows(rows, "weight of the target", labels), pixel_table(rows), stem, caption)


def _interpolations(run: StudyRun) -> list[Interpolations]:
    """Return the stored interpolations by decreasing time."""
    names = {entry.name for entry in run.entries() if entry.name.split("-")[0] == "interpolation"}
    found = [run.result(name, Interpolations) for name in names]
    known = {each.t: each for each in found if each is not None}
    return [known[t] for t in sorted(known, reverse=True)]


def _row(ends: Interpolations, mixtures: Array) -> Array:
    return np.concatenate([ends.source[:1], mixtures, ends.target[:1]])


def _pixel_mixtures(ends: Interpolations) -> Array:
    """Mix the first pair's pixels, which is interpolation at t = 0."""
    source, target = ends.source[0].astype(float), ends.target[0].astype(float)
    return np.stack([np.rint((1 - w) * source + w * target) for w in ends.weight]).astype(np.uint8)
