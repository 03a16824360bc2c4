"""Tables as the figures receive them, and one figure of each kind."""

import numpy as np
import pandas as pd
import pytest

from ddpm_eval.reporting.ablation_figure import plot_ablation
from ddpm_eval.reporting.image_grids import plot_columns, plot_samples
from ddpm_eval.reporting.plots import plot_rate_distortion, plot_terms
from experiments.paper import published


@pytest.fixture
def ablation():
    frame = published.table_2()[["prediction", "objective", "variance"]].copy()
    frame["status"] = ["ok", "ok", "diverged", "ok", "missing", "ok"]
    measured = frame["status"].eq("ok")
    for column, low, value, high in (
        ("score", 2, 3, 4),
        ("frechet_distance", 9, 10, 12),
        ("bits_per_dim", 3.5, 3.75, 4.125),
    ):
        for name, number in ((column, value), (f"{column}_low", low), (f"{column}_high", high)):
            frame[name] = np.where(measured, number, np.nan)
    frame["reference_distance"] = np.where(measured, 5.0, np.nan)
    frame["n_samples"] = pd.array([512 if ok else pd.NA for ok in measured], dtype="Int64")
    frame["features"] = np.where(measured, "digits-classifier", "")
    frame["paper_fid"] = published.table_2()["fid"]
    return frame


@pytest.fixture
def curve():
    steps = np.arange(1, 11)
    frame = pd.DataFrame(
        {"reverse_steps": steps, "rate_bits_per_dim": steps / 10, "rmse_255": 100.0 - 9 * steps}
    )
    for column in ("rate_bits_per_dim", "rmse_255"):
        frame[f"{column}_low"], frame[f"{column}_high"] = frame[column] * 0.9, frame[column] * 1.1
    return frame


@pytest.fixture
def figures(curve, ablation):
    return draw_figures(curve, ablation)  # each is drawn when its turn comes


def draw_figures(curve, ablation):
    t = np.arange(1, 6)
    terms = pd.DataFrame(
        {"t": t, "bits_per_dim": 1.0 / t, "low": 0.9 / t, "high": 1.1 / t, "floor_bits_per_dim": 0.01 / t}
    )
    yield plot_rate_distortion(curve, published.table_4())
    yield plot_ablation(ablation)
    yield plot_terms(terms)
    yield plot_samples(
        {"samples": np.zeros((64, 1, 8, 8), np.uint8), "real": np.zeros((64, 1, 8, 8), np.uint8)}
    )
    yield plot_columns(
        np.zeros((5, 2, 1, 8, 8), np.uint8), ["100", "200", "300", "400", "500"], "reverse steps taken"
    )
