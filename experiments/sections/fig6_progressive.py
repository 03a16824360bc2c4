"""Fig. 6: the estimate of x_0 over the reverse process."""

from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.image_grids import pixel_table, plot_columns
from ddpm_eval.reporting.report_parts import Section
from ddpm_eval.results.records import Trajectory
from experiments.study import Study

TITLE = "Progressive generation (Fig. 6)"


def section(study: Study) -> Section:
    """Render Fig. 6."""
    path = study.main.result("progressive", Trajectory)
    if path is None:
        return Section(TITLE)
    spec = study.main.spec
    steps = [spec.diffusion.timesteps - int(t) + 1 for t in path.t]
    shown = path.x_0_hat[:, : spec.evaluation.n_progressive]
    panels = {f"reverse step {step}": images for step, images in zip(steps, shown, strict=True)}
    caption = (
        f"Estimates x0_hat of the first {shown.shape[1]} samples over the reverse process; "
        "last column: the sample."
    )
    figure = plot_columns(shown, [str(step) for step in steps], "reverse steps taken")
    drawn = write_figure(figure, pixel_table(panels), study.figures / "progressive", caption)
    return Section(TITLE, figures=[drawn])
