"""Models beside each other: what was measured of each on the same images, and the tables made from it.

Nothing here needs torch or a run's folder. `experiments.compare` measures.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from ddpm_eval.reporting.bound_comparisons import QUANTITIES, differences_from_first
from ddpm_eval.reporting.bound_tables import bound_estimates
from ddpm_eval.reporting.estimate_columns import estimate_cells, estimate_columns
from ddpm_eval.reporting.rate_distortion_tables import rate_distortion_curve
from ddpm_eval.results.bound_terms import BoundTerms
from ddpm_eval.results.fields import Array, Estimate
from ddpm_eval.results.records import Quality, TrainingLog
from ddpm_eval.results.store import Entry
from ddpm_eval.spec import RunSpec

LEADERBOARD = "leaderboard"
DIFFERENCE = "difference_bits_per_dim"
OF_QUALITY = ("frechet_distance", "score")


@dataclass(frozen=True)
class Measured:
    """One of the compared runs, and what was measured of it.

    Attributes:
        label: its name in tables and figures, distinct among the compared runs.
        folder: of the run.
        spec: what the run is, with the evaluation that all compared runs have.
        log: how its training went.
        weights: digest of the weights that were measured.
        terms: its bound, with the noise that all compared runs have.
        alpha_bar: of its noise schedule at t = 1..T, float64 ``[t]``.
        entries: the stored results behind it.
        quality: of its samples; None if it was not measured.
        samples: its first samples, uint8 ``[sample, channel, row, column]``; None likewise.
    """

    label: str
    folder: Path
    spec: RunSpec
    log: TrainingLog
    weights: str
    terms: BoundTerms
    alpha_bar: Array
    entries: Sequence[Entry]
    quality: Quality | None = None
    samples: Array | None = None

    @property
    def updates(self) -> int | None:
        """The number of updates that it was trained for, None if that is not known."""
        return None if self.log.imported else self.log.steps


@dataclass(frozen=True)
class Comparison:
    """Runs that were measured on the same images with the same noise.

    Attributes:
        runs: in the order in which they were named; differences are from the first.
        data_digest: of the images of the bound's split.
        noise_seed: of the bound.
        precision: of the networks' arithmetic.
        report_folder: where the page and the leaderboard are written.
    """

    runs: Sequence[Measured]
    data_digest: str
    noise_seed: int
    precision: str
    report_folder: Path

    @property
    def first(self) -> Measured:
        """The run from which differences are taken."""
        return self.runs[0]

    @property
    def bounds(self) -> Mapping[str, BoundTerms]:
        """The bounds by the runs' names."""
        return {run.label: run.terms for run in self.runs}

    @property
    def qualities(self) -> Mapping[str, Quality]:
        """The sample quality by the runs' names, of those of which it was measured."""
        return {run.label: run.quality for run in self.runs if run.quality is not None}

    @cached_property
    def differences(self) -> pd.DataFrame:
        """The rows of `ddpm_eval.reporting.bound_comparisons.differences_from_first`."""
        return differences_from_first(self.bounds)


def leaderboard(comparison: Comparison) -> pd.DataFrame:
    """List the runs, the lowest bound first.

    Returns:
        One row for each run: run, updates, bits_per_dim, difference_bits_per_dim (from the first run that
        was named, paired), frechet_distance and score, rate, distortion and prior, each with its interval;
        n_images, n_samples, and what else a number depends on.
    """
    total = comparison.differences.set_index(["quantity", "run"]).loc["total"]
    rows = [_row(comparison, run, total) for run in comparison.runs]
    frame = pd.DataFrame(rows).sort_values("bits_per_dim", ignore_index=True)
    whole = ["updates", "n_samples"]
    frame[whole] = frame[whole].astype("Int64")  # which may be missing
    return frame


def rows_of_tables(comparison: Comparison) -> dict[str, object]:
    """Return the rows of the leaderboard and of the differences, as JSON has them."""
    tables = {LEADERBOARD: leaderboard(comparison), "differences": comparison.differences}
    return {
        name: json.loads(frame.to_json(orient="records", double_precision=15))
        for name, frame in tables.items()
    }


def rate_distortion_curves(comparison: Comparison) -> pd.DataFrame:
    """Return the rate-distortion curves of all runs, told apart by the column ``run``."""
    curves = [rate_distortion_curve(run.terms).assign(run=run.label) for run in comparison.runs]
    return pd.concat(curves, ignore_index=True)


def checkpoint_curve(comparison: Comparison) -> pd.DataFrame:
    """List the runs that are checkpoints of one training by their updates; empty if there are none.

    Returns:
        run (the training), updates, and bits_per_dim, difference_bits_per_dim (of the first run 0),
        frechet_distance and score with their intervals, n_images.
    """
    frame = leaderboard(comparison)
    frame.loc[frame["run"] == comparison.first.label, list(estimate_columns(DIFFERENCE))] = 0.0
    trainings = {run.label: run.spec.training_digest() for run in comparison.runs if run.updates}
    frame = frame[frame["run"].isin(trainings)]
    frame = frame.assign(training=frame["run"].map(trainings))
    several = frame.groupby("training")["updates"].transform("nunique") > 1
    frame = frame[several].sort_values("updates", ignore_index=True)
    cells = {run.label: run.spec.cell for run in comparison.runs}
    names = [f"{cells[row.run]} {row.training}" for row in frame.itertuples()]
    numbers = ("bits_per_dim", DIFFERENCE, *OF_QUALITY)
    columns = [column for name in numbers for column in estimate_columns(name)]
    return frame[["updates", *columns, "n_images"]].assign(run=names)


def _row(comparison: Comparison, run: Measured, total: pd.DataFrame) -> dict[str, object]:
    terms = run.terms
    estimates = bound_estimates(terms)
    columns = estimate_columns(DIFFERENCE)
    is_first = run is comparison.first
    paired = dict.fromkeys(columns, math.nan) if is_first else total.loc[run.label, list(columns)].to_dict()
    return {
        "run": run.label,
        "updates": run.updates,
        **estimate_cells("bits_per_dim", estimates["total"]),
        **paired,
        **_quality_cells(run.quality),
        **_quantities(estimates),
        "n_images": len(terms.image_id),
        "n_samples": None if run.quality is None else run.quality.n_samples,
        "data": run.spec.data.name,
        "split": terms.split,
        "data_digest": comparison.data_digest,
        "timesteps": terms.num_steps,
        "protocol": terms.protocol.name,
        "variance": terms.variance,
        "estimator": terms.estimator,
        "noise_seed": comparison.noise_seed,
        "precision": comparison.precision,
        "parameters": run.log.parameters,
        "weights": run.weights,
        "folder": str(run.folder),
    }


def _quantities(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """Return the columns of what the total consists of."""
    parts = [name for name in QUANTITIES if name != "total"]
    cells = [estimate_cells(f"{name}_bits_per_dim", estimates[name]) for name in parts]
    return {column: value for part in cells for column, value in part.items()}


def _quality_cells(quality: Quality | None) -> dict[str, object]:
    estimates = {name: None if quality is None else getattr(quality, name) for name in OF_QUALITY}
    cells: dict[str, object] = {}
    for name, estimate in estimates.items():
        cells |= estimate_cells(name, estimate)
    named = ("", "", "") if quality is None else (quality.features, quality.weights_digest, quality.protocol)
    return cells | dict(zip(("features", "features_digest", "quality_protocol"), named, strict=True))
