"""Fig. 8: interpolation between test images in the latent space."""

from pathlib import Path

import numpy as np

from ddpm_eval.reporting import analyse, render
from ddpm_eval.reporting.page import Section
from ddpm_eval.results.records import Interpolations
from ddpm_eval.results.store import Store
from experiments.workspace import Workspace

TITLE = "Interpolation (Fig. 8)"


def section(workspace: Workspace) -> Section:
    """Render Fig. 8."""
    record = workspace.result("interpolation", Interpolations)
    if record is None:
        return Section(TITLE)
    return Section(TITLE, "", [], [_figure(record, workspace.figures / "interpolation")])


def draw(store: Store, name: str, stem: Path) -> render.Illustration:
    """Draw an interpolation of one run that is stored under ``name``."""
    return _figure(store.get(name, Interpolations), stem)


def _figure(record: Interpolations, stem: Path) -> render.Illustration:
    columns = {
        "source": record.source,
        **{f"{w:.1f}": x for w, x in zip(record.weight, record.images, strict=True)},
    }
    columns["target"] = record.target
    caption = (
        f"Pairs of test images (outer columns), diffused to t = {record.t} with the same noise, mixed with the weight of the "
        "target above each column, and decoded with the same noise."
    )
    return render.write_figure(
        render.plot_columns(np.stack(list(columns.values())), list(columns), "weight of the target"),
        analyse.pixel_table(columns),
        stem,
        caption,
    )
