"""Fig. 6: the estimate of x_0 over the reverse process."""

from ddpm_eval import analyse, render
from ddpm_eval.jobs import Job
from ddpm_eval.records import Trajectory
from ddpm_eval.report import Section
from experiments.presets import MAIN_CELL
from experiments.workspace import Workspace

STAGES = ("train", "progressive")


def jobs(workspace: Workspace) -> list[Job]:
    """Return the job of the paper's model."""
    return [workspace.job(MAIN_CELL, STAGES)]


def section(workspace: Workspace) -> Section:
    """Render Fig. 6."""
    path = workspace.result("progressive", Trajectory)
    if path is None:
        return Section("Progressive generation (Fig. 6)")
    steps = [workspace.spec().diffusion.timesteps - int(t) + 1 for t in path.t]
    panels = {f"reverse step {step}": images for step, images in zip(steps, path.x_0_hat, strict=True)}
    figure = render.write_figure(
        render.plot_columns(path.x_0_hat, [str(step) for step in steps], "reverse steps taken"),
        analyse.pixel_table(panels),
        workspace.figures / "progressive",
        f"Estimates x0_hat of the first {path.x_0_hat.shape[1]} samples over the reverse process; last column: the sample.",
    )
    return Section("Progressive generation (Fig. 6)", "", [], [figure])
