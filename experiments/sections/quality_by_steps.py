"""Sample quality against the number of sampling steps, with the time that they take."""

import pandas as pd

from ddpm_eval.reporting import curves as lines
from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.plots import YARDSTICK, plot_quality
from ddpm_eval.reporting.quality_tables import quality_over_steps
from ddpm_eval.reporting.report_parts import Curve, Line, Section
from ddpm_eval.reporting.tables import write_table
from ddpm_eval.results.records import QUALITY_OVER_STEPS, Quality, QualityCurve
from experiments.left_out import left_out
from experiments.study import Study

TITLE = "Quality against the number of sampling steps"
DRAWN = (
    "The table's distances and scores with their 95% intervals; the lines are drawn a little apart, so that "
    "no interval covers another. Dashed: the distance of the test images themselves."
)


def section(study: Study) -> Section:
    """Render quality and time against the number of sampling steps."""
    names = list(QUALITY_OVER_STEPS.values())
    found = (study.main.result(name, QualityCurve) for name in names)
    curves = [curve for curve in found if curve is not None]
    if not curves:
        return left_out(TITLE, study.main, *names)
    frame = quality_over_steps(curves)
    entries = (study.main.entry(name) for name in names)
    device = next(entry.provenance["device"] for entry in entries if entry is not None)
    caption = (
        f"The same {curves[0].n_samples} samples with fewer, evenly spaced steps: ancestral sampling, and "
        "DDIM without noise (Song et al. 2021); 95% intervals; "
        f"{curves[0].caption}. Time per image is measured on {device}."
    )
    quality = study.main.result("quality", Quality)
    yardstick = quality.distance_of_test_images(curves[0]) if quality is not None else None
    figure = plot_quality(frame, "steps", "sampling steps", curves[0].features, yardstick)
    table = write_table(frame, study.tables / "steps", caption)
    drawn = write_figure(figure, frame, study.figures / "quality_steps", DRAWN)
    return Section(TITLE, "", [table], [drawn], _curves(frame, yardstick))


def _curves(frame: pd.DataFrame, yardstick: float | None) -> list[Curve]:
    """Return what the figure shows, to be read off."""
    panels = {
        "distance-by-steps": ("steps", "sampling steps", "frechet_distance", "Frechet distance", "xy"),
        "score-by-steps": ("steps", "sampling steps", "score", "score", "x"),
        "distance-by-time": (
            *("seconds_per_image", "seconds per image", "frechet_distance", "Frechet distance", "xy"),
        ),
    }
    return [
        Curve(name, "quality_steps", xlabel, ylabel, _lines(frame, x, y, yardstick), logarithmic)
        for name, (x, xlabel, y, ylabel, logarithmic) in panels.items()
    ]


def _lines(frame: pd.DataFrame, x: str, y: str, yardstick: float | None) -> list[Line]:
    """Return a line for each sampler, and that of the test images where a distance is drawn."""
    drawn = lines.lines_of(frame, x, y, "method")
    if y == "frechet_distance" and yardstick is not None:
        drawn += lines.yardstick(YARDSTICK, yardstick, frame, x)
    return drawn
