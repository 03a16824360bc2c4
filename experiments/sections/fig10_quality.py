"""Fig. 10: sample quality over the reverse process."""

import numpy as np
import pandas as pd

from ddpm_eval.reporting import curves
from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.plots import YARDSTICK, plot_quality
from ddpm_eval.reporting.quality_tables import quality_over_time
from ddpm_eval.reporting.report_parts import Curve, Section
from ddpm_eval.results.records import QUALITY_OVER_TIME, Quality, QualityCurve, Trajectory
from experiments.left_out import left_out
from experiments.study import Study

TITLE = "Quality over the reverse process (Fig. 10)"


def section(study: Study) -> Section:
    """Render the Frechet distance and the score of x0_hat over the reverse process."""
    curve = study.main.result(QUALITY_OVER_TIME, QualityCurve)
    if curve is None:
        return left_out(TITLE, study.main, QUALITY_OVER_TIME)
    frame = quality_over_time(curve, study.main.spec.diffusion.timesteps)
    caption = (
        f"Estimates x0_hat of the first {curve.n_samples} samples, clipped to [-1, 1], over the reverse "
        "process: Frechet distance to the training images and score, 95% intervals; "
        f"{curve.caption}."
    )
    quality = study.main.result("quality", Quality)
    yardstick = quality.distance_of_test_images(curve) if quality is not None else None
    figure = plot_quality(frame, "reverse_steps", "reverse steps taken", curve.features, yardstick)
    drawn = write_figure(figure, frame, study.figures / "quality_time", caption)
    return Section(TITLE, _hump(study, frame), figures=[drawn], interactive=_curves(frame, yardstick))


def _hump(study: Study, frame: pd.DataFrame) -> str:
    """Say what the estimates look like where their distance is largest, if that is on the way."""
    path = study.main.result("progressive", Trajectory)
    worst = frame.loc[frame["frechet_distance"].idxmax()]
    if path is None or worst["reverse_steps"] == frame["reverse_steps"].min():
        return ""
    spreads = [float(images.std(axis=0, dtype=np.float64).mean()) for images in path.x_0_hat]
    known = dict(zip(path.t.tolist(), spreads, strict=True))
    first, last, there = (known.get(int(t)) for t in (path.t.max(), path.t.min(), worst["t"]))
    if first is None or last is None or there is None or there >= last:
        return ""
    return (
        f"The distance is largest after {worst['reverse_steps']:.0f} reverse steps, not at the beginning. "
        f"The first estimates differ as noise does, by {first:.0f} of 255 levels (standard deviation over "
        f"samples); those after {worst['reverse_steps']:.0f} steps are near the mean image and differ by "
        f"{there:.0f}; the samples differ by {last:.0f}."
    )


def _curves(frame: pd.DataFrame, yardstick: float | None) -> list[Curve]:
    """Return distance and score over the reverse process, to be read off."""
    steps = "reverse_steps"
    distance = curves.lines_of(frame, steps, "frechet_distance")
    if yardstick is not None:
        distance += curves.yardstick(YARDSTICK, yardstick, frame, steps)
    score = curves.lines_of(frame, steps, "score")
    label = "reverse steps taken"
    return [
        Curve("distance-over-steps", "quality_time", label, "Frechet distance", distance, "y"),
        Curve("score-over-steps", "quality_time", label, "score", score),
    ]
