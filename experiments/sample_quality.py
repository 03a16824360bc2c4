"""Samples beside real images, their nearest neighbours, every quality figure of every cell, Table 1."""

import itertools
from pathlib import Path

import numpy as np

from ddpm_eval.reporting import analyse, render
from ddpm_eval.reporting.page import Section
from ddpm_eval.results.records import Neighbours, Quality, ReferenceImages, Samples
from experiments.paper import published
from experiments.paper.presets import MAIN_CELL, Cell
from experiments.workspace import Workspace

SHOWN = 64


def section(workspace: Workspace) -> Section:
    """Render the sample grid."""
    samples, reals = workspace.result("samples", Samples), workspace.result("reals", ReferenceImages)
    if samples is None:
        return Section("Samples")
    spec = workspace.spec()
    panels = {f"samples of {workspace.label()}": samples.images[:SHOWN]}
    if reals is not None:
        panels[f"{reals.name}, {reals.split} images"] = reals.images[:SHOWN]
    caption = (
        f"The first {len(samples.images[:SHOWN])} samples (not selected) of {workspace.label()} on {spec.data.name}, "
        f"ancestral sampling, {samples.sampling_steps} steps, beside real images."
    )
    figure = render.write_figure(
        render.plot_samples(panels), analyse.pixel_table(panels), workspace.figures / "samples", caption
    )
    return Section("Samples", "", [], [figure])


MEMORISATION = """
memorisation: the probability that a sample is nearer to its nearest training image than a held-out image is to its own. 0.5: as
new as held-out images; 1: all are copies.
""".strip()


def neighbours_section(workspace: Workspace) -> Section:
    """Render Fig. 15 and the memorisation statistic."""
    title, found = "Nearest neighbours of the samples (Fig. 15)", workspace.result("neighbours", Neighbours)
    if found is None:
        return Section(title)
    searched = f"all {found.n_train} training images" + (" and their mirror images" if found.mirrored else "")
    caption = (
        f"Are the samples copies? The first {found.n_samples} samples against {found.n_held_out} test images and {searched}, "
        f"in pixels and in features ({found.features}), 95% intervals (DeLong)."
    )
    table = render.write_table(analyse.memorisation_table(found), workspace.tables / "memorisation", caption)
    return Section(title, MEMORISATION, [table], [neighbours_figure(found, workspace.figures / "neighbours")])


def neighbours_figure(found: Neighbours, stem: Path) -> render.Illustration:
    """Draw samples and their nearest training images."""
    count = found.shown_pixel.shape[1]
    columns = {"sample": found.shown}
    columns |= {f"pixels {k + 1}": found.shown_pixel[:, k] for k in range(count)}
    columns |= {f"features {k + 1}": found.shown_feature[:, k] for k in range(count)}
    labels = ["sample", *[str(k + 1) for k in range(count)] * 2]
    caption = f"Samples and their {count} nearest training images in pixels (left) and in features (right)."
    figure = render.plot_columns(
        np.stack(list(columns.values())), labels, "nearest in pixels, then in features"
    )
    return render.write_figure(figure, analyse.pixel_table(columns), stem, caption)


def table1(workspace: Workspace) -> Section:
    """Render Table 1: the paper's model and, where it is measured, L, above the literature's rows."""
    cells = [cell for cell in (Cell("eps", "vlb", learned=False), MAIN_CELL) if cell in workspace.cells]
    measured = [row for cell in cells if (row := _table1_row(workspace, cell))]
    if not measured:
        return Section("Sample quality and bits/dim beside the literature (Table 1)")
    frame = analyse.table1(measured, published.table_1())
    caption = (
        "Measured models above the paper's Table 1 (CIFAR-10, 50,000 samples, Inception score and FID). Scores and distances "
        "in different features, and numbers of different data, cannot be compared."
    )
    table = render.write_table(frame, workspace.tables / "table1", caption)
    return Section("Sample quality and bits/dim beside the literature (Table 1)", "", [table])


def _table1_row(workspace: Workspace, cell: Cell) -> dict[str, object]:
    quality, spec = workspace.result("quality", Quality, cell), workspace.spec(cell)
    if quality is None:
        return {}
    row: dict[str, object] = {
        "model": f"this run: {workspace.label(cell)}",
        "data": spec.data.name,
        "conditional": False,
    }
    row |= {"features": "Inception" if quality.is_inception else quality.features, "is_bound": True}
    for name, end in itertools.product(("score", "frechet_distance"), ("", "_low", "_high")):
        row[f"{name}{end}"] = getattr(quality, f"{name}{end}")
    for split in ("test", "train"):
        atoms = workspace.bound(cell, split)
        if atoms is not None:
            total = analyse.split_table(atoms, spec.diffusion.variance).set_index("quantity").loc["total"]
            row |= {
                f"{split}_bits_per_dim{end}": total[f"{end.strip('_') or 'bits_per_dim'}"]
                for end in ("", "_low", "_high")
            }
    return row


def every_figure(workspace: Workspace) -> Section:
    """Render the table of all quality figures of all runs."""
    title = "Sample quality of every run"
    found = {workspace.label(cell): workspace.result("quality", Quality, cell) for cell in workspace.cells}
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
