"""Fig. 8: interpolation between test images in the latent space."""

from pathlib import Path

import numpy as np

from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.image_grids import pixel_table, plot_columns
from ddpm_eval.reporting.report_parts import Illustration, Section
from ddpm_eval.results.records import Interpolations
from experiments.left_out import left_out
from experiments.study import Study

TITLE = "Interpolation (Fig. 8)"


def section(study: Study) -> Section:
    """Render Fig. 8."""
    found = study.main.result("interpolation", Interpolations)
    if found is None:
        return left_out(TITLE, study.main, "interpolate")
    return Section(TITLE, figures=[interpolation_figure(found, study.figures / "interpolation")])


def interpolation_figure(found: Interpolations, stem: Path) -> Illustration:
    """Draw interpolations.

    Args:
        found: of one run.
        stem: path of the figure without suffix; its folder is created.
    """
    mixtures = {f"{w:.1f}": images for w, images in zip(found.weight, found.images, strict=True)}
    columns = {"source": found.source, **mixtures, "target": found.target}
    caption = (
        f"Pairs of test images (outer columns), diffused to t = {found.t} with the same noise, mixed with "
        "the weight of the target below each column, and decoded with the same noise."
    )
    figure = plot_columns(np.stack(list(columns.values())), list(columns), "weight of the target")
    return write_figure(figure, pixel_table(columns), stem, caption)
