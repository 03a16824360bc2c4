"""How bits/dim move with training: every bound that was measured of a run, as a CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.reporting.bound_tables import split_table
from ddpm_eval.results.bound_terms import FullBoundTerms, StratifiedBoundTerms, bound_name
from ddpm_eval.results.records import TrainingLog
from ddpm_eval.results.store import Store

HISTORY = ("updates", "images", "train_seconds", "split", "estimator", "precision", "quantity")
KEY = ("updates", "split", "estimator", "precision", "quantity")
MEASURED = ("bits_per_dim", "low", "high", "n_images")


class Bound(NamedTuple):
    """Which bound of a run, under protocol paper."""

    split: str
    estimator: str
    precision: str


def rows_of(run: Path, bound: Bound) -> list[dict[str, object]]:
    """Return the rows of a stored bound of the run's present weights, one for each quantity."""
    log = training_log(run)
    assert log is not None, "a bound is stored with the log of the training"
    facts = (log.steps, log.images, round(log.seconds, 1), *bound)
    columns = (*HISTORY, *MEASURED)
    return [dict(zip(columns, (*facts, *values), strict=True)) for values in read_bound(run, bound)]


def read_bound(run: Path, bound: Bound) -> list[tuple[object, ...]]:
    """Return quantity, bits/dim, interval and n of a stored bound under protocol paper, row by row.

    Raises:
        ValueError: if it is not of the run's present weights.
    """
    store = Store(run / "results.h5")
    name = bound_name(bound.split, PROTOCOLS["paper"], bound.estimator)
    name = name if bound.precision == "fp32" else f"{bound.precision}/{name}"
    newest = {entry.name: entry for entry in store.entries()}
    if name in newest and newest[name].provenance["weights"] != newest["training"].key:
        raise ValueError(f"{store.path}: {name} is not of the run's present weights")
    terms = store.get(name, StratifiedBoundTerms if bound.estimator == "stratified" else FullBoundTerms)
    table = split_table(terms)
    return list(table[["quantity", *MEASURED]].itertuples(index=False, name=None))


def record(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Put rows into the history, in place of any of the same weights and kind."""
    written = [{key: str(value) for key, value in row.items()} for row in rows]
    replaced = {tuple(row[key] for key in KEY) for row in written}
    kept = [row for row in history(path) if tuple(row[key] for key in KEY) not in replaced]
    temporary = path.with_name(f".{path.name}.writing")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, (*HISTORY, *MEASURED))
        writer.writeheader()
        writer.writerows([*kept, *written])
    temporary.replace(path)


def history(path: Path) -> list[dict[str, str]]:
    """Read the history; empty where there is none."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def remembered(path: Path, updates: int, bound: Bound) -> bool:
    """Tell whether the history has a bound of these weights."""
    kind = (str(updates), *bound)
    return any(
        (row["updates"], row["split"], row["estimator"], row["precision"]) == kind for row in history(path)
    )


def training_log(run: Path) -> TrainingLog | None:
    """Return the newest stored log of a run's training, None if there is none yet."""
    store = Store(run / "results.h5")
    stored = any(entry.name == "training" for entry in store.entries())
    return store.get("training", TrainingLog) if stored else None


def logged_updates(run: Path) -> int:
    """Return the updates that the stored log knows of."""
    log = training_log(run)
    return 0 if log is None else log.steps


def diverged(run: Path) -> bool:
    """Tell whether the training is known to have diverged."""
    log = training_log(run)
    return log is not None and log.diverged
