"""Fig. 15: the training images nearest to the samples, and whether the samples are copies."""

from pathlib import Path

from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.image_grids import pixel_table, plot_groups
from ddpm_eval.reporting.quality_tables import memorisation_table
from ddpm_eval.reporting.report_parts import Illustration, Section
from ddpm_eval.reporting.tables import write_table
from ddpm_eval.results.records import Neighbours
from experiments.left_out import left_out
from experiments.study import Study

PIXELS = "nearest in pixels\n(RMS difference, 8-bit levels)"
FEATURES = "nearest in features\n(Euclidean distance)"
TITLE = "Nearest neighbours of the samples (Fig. 15)"
MEMORISATION = """
Memorisation: the probability that a sample is nearer to its nearest training image than a held-out image is
to its own. 0.5: as new as held-out images; 1: all are copies.
""".strip()


def section(study: Study) -> Section:
    """Render Fig. 15 and the memorisation statistic."""
    found = study.main.result("neighbours", Neighbours)
    if found is None:
        return left_out(TITLE, study.main, "neighbours")
    mirrored = " and their mirror images" if found.mirrored else ""
    caption = (
        f"Are the samples copies? The first {found.n_samples} samples against {found.n_held_out} test images "
        f"and all {found.n_train} training images{mirrored}, in pixels and in features ({found.features}), "
        "95% intervals (DeLong)."
    )
    table = write_table(memorisation_table(found), study.tables / "memorisation", caption)
    return Section(TITLE, MEMORISATION, [table], [neighbours_figure(found, study.figures / "neighbours")])


def neighbours_figure(found: Neighbours, stem: Path) -> Illustration:
    """Draw samples and their nearest training images.

    Args:
        found: of the samples.
        stem: path of the figure without suffix; its folder is created.
    """
    ranks = range(found.shown_pixel.shape[1])
    columns = {"sample": found.shown}
    columns |= {f"pixels {k + 1}": found.shown_pixel[:, k] for k in ranks}
    columns |= {f"features {k + 1}": found.shown_feature[:, k] for k in ranks}
    groups = {"sample": found.shown[:, None], PIXELS: found.shown_pixel, FEATURES: found.shown_feature}
    shown, count = len(found.shown), len(ranks)
    distances = {
        PIXELS: found.pixel_distance[:shown, :count],
        FEATURES: found.feature_distance[:shown, :count],
    }
    caption = (
        f"Samples and their {count} nearest training images in pixels and in features, each with its "
        "distance: the root mean squared difference in 8-bit levels, and the Euclidean distance of features."
    )
    figure = plot_groups(groups, distances)
    return write_figure(figure, pixel_table(columns), stem, caption)
