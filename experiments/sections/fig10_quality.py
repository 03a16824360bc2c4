"""Fig. 10: sample quality over the reverse process."""

import pandas as pd

from ddpm_eval.reporting import curves
from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.plots import plot_quality
from ddpm_eval.reporting.quality_tables import quality_over_time
from ddpm_eval.reporting.report_parts import Curve, Section
from ddpm_eval.results.records import QUALITY_OVER_TIME, Quality, QualityCurve
from experiments.study import Study

TITLE = "Quality over the reverse process (Fig. 10)"


def section(study: Study) -> Section:
    """Render the Frechet distance and the score of x0_hat over the reverse process."""
    curve = study.main.result(QUALITY_OVER_TIME, QualityCurve)
    if curve is None:
        return Section(TITLE)
    frame = quality_over_time(curve, study.main.spec.diffusion.timesteps)
    caption = (
        f"Estimates x0_hat of the first {curve.n_samples} samples, clipped to [-1, 1], over the reverse "
        "process: Frechet distance to the training images and score, 95% intervals; "
        f"{curve.caption}."
    )
    quality = study.main.result("quality", Quality)
    same = quality is not None and quality.weights_digest == curve.weights_digest
    yardstick = quality.reference_distance.value if same and quality is not None else None
    figure = plot_quality(frame, "reverse_steps", "reverse steps taken", curve.features, yardstick)
    drawn = write_figure(figure, frame, study.figures / "quality_time", caption)
    return Section(TITLE, figures=[drawn], interactive=_curves(frame, yardstick))


def _curves(frame: pd.DataFrame, yardstick: float | None) -> list[Curve]:
    """Return distance and score over the reverse process, to be read off."""
    steps = "reverse_steps"
    distance = curves.lines_of(frame, steps, "frechet_distance")
    if yardstick is not None:
        distance += curves.yardstick("test images", yardstick, frame, steps)
    score = curves.lines_of(frame, steps, "score")
    label = "reverse steps taken"
    return [
        Curve("distance-over-steps", "quality_time", label, "Frechet distance", distance, "y"),
        Curve("score-over-steps", "quality_time", label, "score", score),
    ]
