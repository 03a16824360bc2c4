"""The first samples of the main run beside real images."""

from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.image_grids import pixel_table, plot_samples
from ddpm_eval.reporting.report_parts import Section
from ddpm_eval.results.records import ReferenceImages, Samples
from experiments.study import Study

TITLE = "Samples"
SHOWN = 64


def section(study: Study) -> Section:
    """Render the grid of samples."""
    run = study.main
    samples = run.result("samples", Samples)
    real = run.result("reference-images", ReferenceImages)
    if samples is None:
        return Section(TITLE)
    panels = {f"samples of {run.label}": samples.images[:SHOWN]}
    if real is not None:
        panels[f"{real.name}, {real.split} images"] = real.images[:SHOWN]
    caption = (
        f"The first {len(samples.images[:SHOWN])} samples (not selected) of {run.label} on "
        f"{run.spec.data.name}, ancestral sampling, {samples.num_steps} steps, beside real images."
    )
    figure = write_figure(plot_samples(panels), pixel_table(panels), study.figures / "samples", caption)
    return Section(TITLE, figures=[figure])
