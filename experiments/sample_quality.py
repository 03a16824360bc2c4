"""Samples beside real images, and every quality figure of every cell."""

from ddpm_eval import analyse, render
from ddpm_eval.records import Quality, Reals, Samples
from ddpm_eval.report import Section
from experiments.presets import TABLE_2
from experiments.workspace import Workspace

SHOWN = 64


def section(workspace: Workspace) -> Section:
    """Render the sample grid."""
    samples, reals = workspace.result("samples", Samples), workspace.result("reals", Reals)
    if samples is None:
        return Section("Samples")
    spec = workspace.spec()
    panels = {f"samples of {spec.cell}": samples.images[:SHOWN]}
    if reals is not None:
        panels[f"{reals.name}, {reals.split} images"] = reals.images[:SHOWN]
    caption = (
        f"The first {len(samples.images[:SHOWN])} samples (not selected) of {spec.cell} on {spec.data.name}, "
        f"ancestral sampling, {samples.sampling_steps} steps, beside real images."
    )
    figure = render.write_figure(
        render.plot_samples(panels), analyse.pixel_table(panels), workspace.figures / "samples", caption
    )
    return Section("Samples", "", [], [figure])


def every_figure(workspace: Workspace) -> Section:
    """Render the table of all quality figures of all runs."""
    title = "Sample quality of every run"
    found = {workspace.spec(cell).cell: workspace.result("quality", Quality, cell) for cell in TABLE_2}
    results = {name: quality for name, quality in found.items() if quality is not None}
    if not results:
        return Section(title)
    first = next(iter(results.values()))
    table = render.write_table(
        analyse.quality_table(results),
        workspace.tables / "quality",
        f"Sample quality of every run; {first.caption}. The reference distance is that of the test to the training images.",
    )
    caveats = sorted({quality.caveat for quality in results.values() if quality.caveat})
    return Section(title, "\n\n".join(caveats), [table])
