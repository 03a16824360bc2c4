"""Fig. 6: the estimate of x_0 over the reverse process."""

import math
from collections.abc import Sequence

import pandas as pd

from ddpm_eval.reporting.curves import lines_of
from ddpm_eval.reporting.estimate_columns import estimate_columns
from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.image_grids import pixel_table, plot_columns
from ddpm_eval.reporting.quality_tables import quality_over_time
from ddpm_eval.reporting.rate_distortion_tables import rate_distortion_curve
from ddpm_eval.reporting.report_parts import Curve, Measure, ProgressiveSlider, Section
from ddpm_eval.results.records import QUALITY_OVER_TIME, QualityCurve, Trajectory
from experiments.left_out import left_out
from experiments.study import Study

MOVED = 16
MOST_ELEMENTS = 4_000_000
"""Images of the slider, and pixels times channels of all positions, so that the page stays small."""
MEASURES = {
    "rate_bits_per_dim": "rate received (bits/dim)",
    "rmse_255": "error of x0_hat (RMSE on 0-255)",
    "frechet_distance": "Frechet distance",
}
TITLE = "Progressive generation (Figs. 6 and 14)"


def section(study: Study) -> Section:
    """Render Fig. 6."""
    path = study.bound_run.result("progressive", Trajectory)
    if path is None:
        return left_out(TITLE, study.bound_run, "progressive")
    spec = study.bound_run.spec
    steps = [spec.diffusion.timesteps - int(t) + 1 for t in path.t]
    shown = path.x_0_hat[:, : spec.evaluation.n_progressive]
    panels = {f"reverse step {step}": images for step, images in zip(steps, shown, strict=True)}
    caption = (
        f"Estimates x0_hat of the first {shown.shape[1]} samples over the reverse process; "
        "last column: the sample."
    )
    figure = plot_columns(shown, [str(step) for step in steps], "reverse steps taken")
    drawn = write_figure(figure, pixel_table(panels), study.figures / "progressive", caption)
    return Section(TITLE, figures=[drawn], interactive=[_slider(study, path, steps)])


def _slider(study: Study, path: Trajectory, steps: Sequence[int]) -> ProgressiveSlider:
    """Return the estimates with what was received, its error and the distance at each step."""
    positions, samples, *shape = path.x_0_hat.shape
    shown = max(1, min(MOVED, samples, MOST_ELEMENTS // (positions * math.prod(shape))))
    tables = _measured(study)
    measures = [
        _measure(label, tables[column], column, steps)
        for column, label in MEASURES.items()
        if column in tables
    ]
    curve = tables.get("rmse_255")
    return ProgressiveSlider(
        name="progressive",
        title="The reverse process, step by step",
        caption=(
            f"Estimates x0_hat of the first {shown} samples; rate and error are of test images under the "
            "bound, the distance is that of the samples' estimates to the training images; 95% intervals."
        ),
        steps=steps,
        images=path.x_0_hat[:, :shown],
        measures=measures,
        curve=None
        if curve is None
        else Curve(
            "progressive",
            "",
            MEASURES["rate_bits_per_dim"],
            MEASURES["rmse_255"],
            lines_of(curve.reset_index(), "rate_bits_per_dim", "rmse_255"),
        ),
        marks=() if curve is None else curve["rate_bits_per_dim"].reindex(steps).tolist(),
    )


def _measured(study: Study) -> dict[str, pd.DataFrame]:
    """Return the tables over reverse steps that hold the columns of `MEASURES`, as far as they are stored."""
    terms = study.bound_run.full_bound() or study.bound_run.bound()
    quality = study.bound_run.result(QUALITY_OVER_TIME, QualityCurve)
    tables: dict[str, pd.DataFrame] = {}
    if terms is not None:
        curve = rate_distortion_curve(terms).set_index("reverse_steps")
        tables |= {"rate_bits_per_dim": curve, "rmse_255": curve}
    if quality is not None:
        over_time = quality_over_time(quality, study.bound_run.spec.diffusion.timesteps)
        tables["frechet_distance"] = over_time.set_index("reverse_steps")
    return tables


def _measure(label: str, table: pd.DataFrame, column: str, steps: Sequence[int]) -> Measure:
    value, low, high = (table[name].reindex(steps).tolist() for name in estimate_columns(column))
    return Measure(label, value, low, high)
