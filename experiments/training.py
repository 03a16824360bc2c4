"""Loss and gradient norm of every run."""

import pandas as pd

from ddpm_eval import analyse, render
from ddpm_eval.records import TrainingLog
from ddpm_eval.report import Section
from experiments.presets import TABLE_2
from experiments.workspace import Workspace

LOSS_LABELS = {"mse": "squared error per element", "vlb": "one term of the bound (bits/dim)"}


def section(workspace: Workspace) -> Section:
    """Render the training curves, one figure per objective, and what each run cost."""
    figures, rows = [], []
    for objective, label in LOSS_LABELS.items():
        curves = []
        for cell in TABLE_2:
            log = workspace.result("training", TrainingLog, cell)
            if log is None or cell.objective != objective:
                continue
            name = workspace.spec(cell).cell
            curves.append(analyse.training_curve(log).assign(run=name))
            rows.append((name, log.status, log.steps, log.images, log.seconds, log.parameters))
        if curves:
            frame = pd.concat(curves, ignore_index=True)
            caption = f"Training of the runs with objective {objective}: block means of loss and gradient norm before clipping."
            figure = render.plot_training(frame, label)
            figures.append(render.write_figure(figure, frame, workspace.figures / f"training_{objective}", caption))
    if not rows:
        return Section("Training")
    frame = pd.DataFrame(rows, columns=["run", "status", "updates", "images", "seconds", "parameters"])
    table = render.write_table(frame, workspace.tables / "training", "Training of every run.")
    return Section("Training", "", [table], figures)
