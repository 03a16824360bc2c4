"""Loss and gradient norm of every run, and how the bound moved while it trained where previews were taken."""

import pandas as pd

from ddpm_eval.protocol import Protocol
from ddpm_eval.reporting import analyse, render
from ddpm_eval.reporting.page import Section
from ddpm_eval.results.records import BOUND_HISTORY, BoundHistory, TrainingLog
from ddpm_eval.results.store import Store
from experiments.workspace import Workspace

LOSS_LABELS = {"mse": "squared error per element", "vlb": "one term of the bound (bits/dim)"}


def section(workspace: Workspace) -> Section:
    """Render the training curves, one figure per objective, and what each run cost."""
    figures, rows = [], []
    for objective, label in LOSS_LABELS.items():
        curves = []
        for cell in workspace.cells:
            log = workspace.result("training", TrainingLog, cell)
            if log is None or log.imported or workspace.spec(cell).diffusion.objective != objective:
                continue
            name = workspace.label(cell)
            curves.append(analyse.training_curve(log).assign(run=name))
            rows.append((name, log.status, log.steps, log.images, log.seconds, log.parameters))
        if curves:
            frame = pd.concat(curves, ignore_index=True)
            caption = f"Training of the runs with objective {objective}: block means of loss and gradient norm before clipping."
            figure = render.plot_training(frame, label)
            figures.append(
                render.write_figure(figure, frame, workspace.figures / f"training_{objective}", caption)
            )
    figures += bound_figure(workspace)
    if not rows:
        log = workspace.result("training", TrainingLog)
        imported = f"Not here: {log.reason}." if log is not None and log.imported else ""
        return Section("Training", imported, [], figures)
    frame = pd.DataFrame(rows, columns=["run", "status", "updates", "images", "seconds", "parameters"])
    table = render.write_table(frame, workspace.tables / "training", "Training of every run.")
    return Section("Training", "", [table], figures)


def bound_figure(workspace: Workspace) -> list[render.Illustration]:
    """Render bits/dim against updates, if any run kept it; values of weights that were trained on are as good
    as the last.
    """
    curves, captions = [], []
    for cell in workspace.cells:
        if BOUND_HISTORY not in workspace.entries(cell):
            continue
        history = Store(workspace.folder(cell) / "results.h5").get(BOUND_HISTORY, BoundHistory)
        curves.append(analyse.history_table(history).assign(run=workspace.label(cell)))
        protocol = Protocol.model_validate_json(history.protocol).caption()
        captions.append(
            f"{protocol}; stratified estimator, {history.evaluations_per_image} evaluations of each of the same "
            f"{len(history.image_id)} {history.split} images; 95% intervals over images"
        )
    if not curves:
        return []
    frame = pd.concat(curves, ignore_index=True)
    figure = render.plot_against(frame, "update", "bits_per_dim", xlabel="update", ylabel="bits/dim")
    caption = f"The bound of the averaged weights over training; {'; '.join(dict.fromkeys(captions))}."
    return [render.write_figure(figure, frame, workspace.figures / "training_bound", caption)]
