"""Fig. 6: the estimate of x_0 over the reverse process."""

from dataclasses import replace

from ddpm_eval.reporting import analyse, render
from ddpm_eval.reporting.page import Section
from ddpm_eval.results.records import Trajectory
from ddpm_eval.spec_text import override
from ddpm_eval.stages.scheduler import Job
from experiments.paper.presets import MAIN_CELL
from experiments.workspace import Workspace

STAGES = ("train", "progressive")


def jobs(workspace: Workspace) -> list[Job]:
    """Return the job of the paper's model, with no more samples than Fig. 6 shows."""
    job = workspace.job(MAIN_CELL, STAGES)
    return [replace(job, spec=override(job.spec, {"evaluation.n_curve": "0"}))]


def section(workspace: Workspace) -> Section:
    """Render Fig. 6."""
    path = workspace.result("progressive", Trajectory)
    if path is None:
        return Section("Progressive generation (Fig. 6)")
    spec = workspace.spec()
    steps = [spec.diffusion.timesteps - int(t) + 1 for t in path.t]
    shown = path.x_0_hat[:, : spec.evaluation.n_progressive]
    panels = {f"reverse step {step}": images for step, images in zip(steps, shown, strict=True)}
    figure = render.write_figure(
        render.plot_columns(shown, [str(step) for step in steps], "reverse steps taken"),
        analyse.pixel_table(panels),
        workspace.figures / "progressive",
        f"Estimates x0_hat of the first {shown.shape[1]} samples over the reverse process; last column: the sample.",
    )
    return Section("Progressive generation (Fig. 6)", "", [], [figure])
