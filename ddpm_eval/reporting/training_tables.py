"""How training went, as tables: loss and gradient norm over updates, and the bound over updates."""

import numpy as np
import pandas as pd

from ddpm_eval.reporting.estimate_columns import add_interval
from ddpm_eval.reporting.intervals import mean_estimate
from ddpm_eval.results.bound_terms import BoundHistory
from ddpm_eval.results.records import TrainingLog


def training_curve(log: TrainingLog, points: int = 300) -> pd.DataFrame:
    """Average the training log over at most ``points`` equal blocks of updates (the last may be shorter).

    Returns:
        update (the block's last), loss and gradient_norm (block means; not finite where the run diverged),
        updates (in the block).
    """
    count = len(log.loss)
    starts = np.arange(0, count, max(1, -(-count // points)))
    sizes = np.diff(np.append(starts, count))
    frame = pd.DataFrame({"update": starts + sizes})
    for name, values in {"loss": log.loss, "gradient_norm": log.gradient_norm}.items():
        sums = np.add.reduceat(values.astype(np.float64), starts) if count else np.empty(0)
        frame[name] = sums / sizes
    frame["updates"] = sizes
    return frame


def history_table(history: BoundHistory) -> pd.DataFrame:
    """List the bound over a training: update, n_images, bits_per_dim (the total), rate and distortion.

    The last three are in bits/dim and have intervals.
    """
    frame = pd.DataFrame({"update": history.update, "n_images": len(history.image_id)})
    columns = {"bits_per_dim": history.total, "rate": history.rate, "distortion": history.distortion}
    for name, values in columns.items():
        add_interval(frame, name, *mean_estimate(values.T, history.offset).with_interval())
    return frame
