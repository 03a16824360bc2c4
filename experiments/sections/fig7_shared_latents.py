"""Fig. 7: samples that share x_t, the image of one chain at time t."""

from pathlib import Path

import numpy as np

from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.image_grids import pixel_table, plot_groups
from ddpm_eval.reporting.report_parts import Illustration, Section
from ddpm_eval.results.records import SharedLatents
from experiments.left_out import left_out
from experiments.study import Study

TITLE = "Samples that share a latent (Fig. 7)"


def section(study: Study) -> Section:
    """Render Fig. 7."""
    found = study.main.result("shared-latents", SharedLatents)
    if found is None:
        return left_out(TITLE, study.main, "shared-latents")
    return Section(TITLE, figures=[shared_latents_figure(found, study.figures / "shared_latents")])


def shared_latents_figure(found: SharedLatents, stem: Path) -> Illustration:
    """Draw the shared x_t of each time and the samples that were drawn from it.

    Args:
        found: of one run.
        stem: path of the figure without suffix; its folder is created.
    """
    panels = {}
    groups = {}
    for t, x_t, images in zip(found.t, found.x_t, found.images, strict=True):
        panels[f"x_{t}"] = x_t
        panels |= {f"x_{t}, sample {j + 1}": images[:, j] for j in range(images.shape[1])}
        groups[f"share $x_{{{t}}}$"] = np.concatenate([x_t[:, None], images], axis=1)
    chains, samples = found.images.shape[1:3]
    caption = (
        f"How much of a sample is settled at time t? A row belongs to the chain of one of the first {chains} "
        f"samples, not selected. Each group has the chain's x_t, clipped to [-1, 1], and {samples} samples "
        "that were drawn from it; the samples of a row have the same noise in every group, which thus differ "
        "by x_t alone."
    )
    return write_figure(plot_groups(groups), pixel_table(panels), stem, caption)
