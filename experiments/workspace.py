"""Where a preset's runs and its report lie, and which results exist."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from ddpm_eval import analyse
from ddpm_eval.jobs import Job
from ddpm_eval.records import Array, BoundAtoms, Record, ScheduleTables, StratifiedAtoms
from ddpm_eval.spec import RunSpec
from ddpm_eval.store import Entry, Store
from experiments.presets import MAIN_CELL, Cell, preset, run_name

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Workspace:
    """One preset's runs under ``runs``, its report under ``reports``, and the options that apply to all of them."""

    preset: str
    runs: Path = Path("runs")
    reports: Path = Path("reports")
    seed: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    data_root: Path | None = None
    device: str = "auto"
    inception_weights: Path | None = None

    def spec(self, cell: Cell = MAIN_CELL) -> RunSpec:
        """Return the run of a cell of Table 2, with the user's settings."""
        settings = dict(self.settings)
        if cell.learned:
            settings.pop("diffusion.variance", None)
        return preset(self.preset, cell, settings, self.seed)

    def folder(self, cell: Cell = MAIN_CELL) -> Path:
        """Return the folder of a cell's run."""
        return self.runs / self.preset / run_name(self.spec(cell))

    def job(self, cell: Cell, stages: tuple[str, ...]) -> Job:
        """Return the job that brings a cell's run through ``stages``."""
        return Job(self.folder(cell), self.spec(cell), stages, self.data_root, self.inception_weights, self.device)

    @property
    def report(self) -> Path:
        """The report's folder: the preset's, or one of its own where settings or seed make other runs than the preset's."""
        spec = self.spec()
        plain = preset(self.preset).identity() == spec.identity()
        return self.reports / (self.preset if plain else f"{self.preset}-{spec.identity()}")

    @property
    def figures(self) -> Path:
        """The folder of figures."""
        return self.report / "figures"

    @property
    def tables(self) -> Path:
        """The folder of tables."""
        return self.report / "tables"

    def entries(self, cell: Cell = MAIN_CELL) -> dict[str, Entry]:
        """Return the stored results of a cell by name."""
        path = self.folder(cell) / "results.h5"
        return _entries(path, path.stat().st_mtime_ns) if path.exists() else {}

    def result(self, name: str, record_type: type[R], cell: Cell = MAIN_CELL) -> R | None:
        """Return a stored result, or None if there is none of the run's present weights."""
        entries = self.entries(cell)
        current = entries["training"].key if "training" in entries else None
        if name not in entries or entries[name].provenance["weights"] != current:
            return None
        return Store(self.folder(cell) / "results.h5").get(name, record_type)

    def bound(
        self, cell: Cell = MAIN_CELL, split: str = "test", protocol: str = "paper"
    ) -> BoundAtoms | StratifiedAtoms | None:
        """Return the bound of a split: of all steps if it was measured, else the stratified estimate."""
        full = self.result(f"bound/{split}/{protocol}", BoundAtoms, cell)
        return full or self.result(f"bound-stratified/{split}/{protocol}", StratifiedAtoms, cell)

    def at_scale(self) -> bool:
        """Tell whether the preset's data are the paper's CIFAR-10."""
        return self.spec().data.name.startswith("cifar10")

    def beside_paper(self) -> str:
        """Say what the paper's columns mean for this preset."""
        if self.at_scale():
            return "The paper's columns are its CIFAR-10 results after 800,000 updates of batch 128."
        return "The paper's columns are of CIFAR-10: another data set, shown for orientation only."


@lru_cache(maxsize=32)
def _entries(path: Path, modified: int) -> dict[str, Entry]:
    return {entry.name: entry for entry in Store(path).entries()}


def variance_floors(workspace: Workspace, variance: str) -> Array | None:
    """Return each term's irreducible bits/dim under a fixed variance (index 0 is t = 1), None for another variance."""
    trained = workspace.spec().diffusion.variance
    name = (trained if variance == "trained" else variance).replace("-", "_")
    tables = workspace.result("schedule", ScheduleTables)
    if tables is None or name not in ("fixed_large", "fixed_small"):
        return None
    sigma2, beta_tilde = (np.concatenate([[np.nan], table]) for table in (getattr(tables, name), tables.beta_tilde))
    return analyse.variance_floor(sigma2, beta_tilde)


def floor_sum(floors: Array | None) -> float:
    """Return the sum of floors, NaN if there are none."""
    return math.nan if floors is None else float(floors.sum())
