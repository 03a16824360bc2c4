"""Loss and gradient norm of every run, and how the bound moved while it trained where previews were taken."""

from collections.abc import Sequence

import pandas as pd

from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.plots import plot_against, plot_training
from ddpm_eval.reporting.report_parts import Illustration, Section
from ddpm_eval.reporting.tables import write_table
from ddpm_eval.reporting.training_tables import history_table, training_curve
from ddpm_eval.results.bound_terms import BOUND_HISTORY, BoundHistory
from ddpm_eval.results.records import TrainingLog
from ddpm_eval.spec import Objective
from experiments.left_out import left_out
from experiments.paper.presets import OBJECTIVES
from experiments.study import Study, StudyRun

TITLE = "Training"
LOSS_LABELS: dict[Objective, str] = {
    "mse": "squared error per element",
    "vlb": "one term of the bound (bits/dim)",
}
COLUMNS = ("run", "status", "updates", "images", "seconds", "parameters")


def section(study: Study) -> Section:
    """Render the training curves, one figure for each objective, and what each run cost."""
    figures = []
    rows = []
    for objective in LOSS_LABELS:
        rows += [_row(run, log) for run, log in _logs(study.every_run, objective)]
        logs = _logs(study.runs_of_first_seed, objective)
        if logs:
            figures.append(_curves(study, objective, logs))
    figures += _bound_over_training(study)
    if not rows:
        imported = _imported(study.main)
        return Section(TITLE, imported, [], figures) if imported else left_out(TITLE, study.main, "train")
    frame = pd.DataFrame(rows, columns=COLUMNS)
    shown = frame.assign(run=frame["run"].map({run.label: run.words for run in study.every_run}))
    table = write_table(frame, study.tables / "training", "Training of every run.", shown=shown)
    return Section(TITLE, "", [table], figures)


def _logs(runs: Sequence[StudyRun], objective: Objective) -> list[tuple[StudyRun, TrainingLog]]:
    """Return the runs of an objective that were trained here, with their logs."""
    found = [
        (run, run.result("training", TrainingLog))
        for run in runs
        if run.spec.diffusion.objective == objective
    ]
    return [(run, log) for run, log in found if log is not None and not log.imported]


def _row(run: StudyRun, log: TrainingLog) -> tuple[str | float, ...]:
    return run.label, log.status, log.steps, log.images, log.seconds, log.parameters


def _curves(study: Study, objective: Objective, logs: Sequence[tuple[StudyRun, TrainingLog]]) -> Illustration:
    curves = [training_curve(log).assign(run=run.words) for run, log in logs]
    frame = pd.concat(curves, ignore_index=True)
    caption = (
        f"Training of the runs with objective {OBJECTIVES[objective]}: "
        "block means of loss and gradient norm before clipping."
    )
    predictions = dict.fromkeys(run.spec.diffusion.prediction for run, _ in logs)
    targets: dict[str, Sequence[str]] = {
        name: [run.words for run, _ in logs if run.spec.diffusion.prediction == name] for name in predictions
    }
    clip_norm = logs[0][0].spec.train.clip_norm
    figure = plot_training(frame, LOSS_LABELS[objective], targets=targets, clip_norm=clip_norm)
    return write_figure(figure, frame, study.figures / f"training_{objective}", caption)


def _bound_over_training(study: Study) -> list[Illustration]:
    """Draw bits/dim against updates, if any run kept it; those of earlier weights are as good as the last."""
    found = [(run, run.latest(BOUND_HISTORY, BoundHistory)) for run in study.runs_of_first_seed]
    histories = [(run, history) for run, history in found if history is not None]
    if not histories:
        return []
    curves = [history_table(history).assign(run=run.words) for run, history in histories]
    frame = pd.concat(curves, ignore_index=True)
    how = "; ".join(dict.fromkeys(_how(history) for _, history in histories))
    caption = f"The bound of the averaged weights over training; {how}."
    figure = plot_against(frame, "update", "bits_per_dim", xlabel="update", ylabel="bits/dim")
    return [write_figure(figure, frame, study.figures / "training_bound", caption)]


def _how(history: BoundHistory) -> str:
    """Return how the bounds of a training were estimated, in one phrase."""
    return (
        f"{history.protocol.caption()}; stratified estimator, {history.evaluations_per_image} evaluations of "
        f"each of the same {len(history.image_id)} {history.split} images; 95% intervals over images"
    )


def _imported(run: StudyRun) -> str:
    """Say why there are no curves of an imported run."""
    log = run.result("training", TrainingLog)
    return f"Not here: {log.reason}." if log is not None and log.imported else ""
