"""Sample quality over the reverse process (Fig. 10) and against the number of sampling steps, with the time
they take.
"""

from ddpm_eval.reporting import analyse, render
from ddpm_eval.reporting.page import Section
from ddpm_eval.results.records import QUALITY_OVER_STEPS, QUALITY_OVER_TIME, QualityCurve
from experiments.workspace import Workspace


def over_time(workspace: Workspace) -> Section:
    """Render Fig. 10: Frechet distance and score of x0_hat over the reverse process."""
    title, curve = (
        "Quality over the reverse process (Fig. 10)",
        workspace.result(QUALITY_OVER_TIME, QualityCurve),
    )
    if curve is None:
        return Section(title)
    frame = analyse.quality_over_time(curve, workspace.spec().diffusion.timesteps)
    caption = (
        f"Estimates x0_hat of the first {curve.n_samples} samples, clipped to [-1, 1], over the reverse process: Frechet "
        f"distance to the training images and score, 95% intervals; {curve.caption}."
    )
    figure = render.plot_quality(frame, "reverse_steps", "reverse steps taken", curve.features)
    return Section(
        title, "", [], [render.write_figure(figure, frame, workspace.figures / "quality_time", caption)]
    )


def over_steps(workspace: Workspace) -> Section:
    """Render quality and wall time against the number of sampling steps."""
    title = "Quality against the number of sampling steps"
    found = (workspace.result(name, QualityCurve) for name in QUALITY_OVER_STEPS.values())
    curves = [curve for curve in found if curve is not None]
    if not curves:
        return Section(title)
    frame = analyse.quality_over_steps(curves)
    device = workspace.entries()["samples"].provenance["device"]
    caption = (
        f"The same {curves[0].n_samples} samples with fewer, evenly spaced steps: ancestral sampling, and DDIM without noise "
        f"(Song et al. 2021); 95% intervals; {curves[0].caption}. Time per image is measured on {device}."
    )
    figure = render.plot_quality(frame, "steps", "sampling steps", curves[0].features, by="method")
    return Section(
        title,
        "",
        [render.write_table(frame, workspace.tables / "steps", caption)],
        [render.write_figure(figure, frame, workspace.figures / "quality_steps", caption)],
    )
