"""Where a preset's runs, or one given run, and the report of it lie, and which results exist."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from ddpm_eval.reporting import analyse
from ddpm_eval.results.records import Array, FullBoundTerms, Record, ScheduleTables, StratifiedBoundTerms
from ddpm_eval.results.store import Entry, Store
from ddpm_eval.spec import RunSpec
from ddpm_eval.spec_text import override, parse
from ddpm_eval.stages.scheduler import Job
from experiments.paper.presets import MAIN_CELL, TABLE_2, Cell, preset, run_name

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class GivenRun:
    """A run that was named by its folder; in a workspace it takes the place of the paper's model, and is all
    there is.
    """

    folder: Path
    spec: RunSpec


@dataclass(frozen=True)
class Workspace:
    """One preset's runs under ``runs``, or the ``given`` one; its report under ``reports``; options that
    apply to them all.
    """

    preset: str
    runs: Path = Path("runs")
    reports: Path = Path("reports")
    seed: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    data_root: Path | None = None
    device: str = "auto"
    inception_weights: Path | None = None
    given: GivenRun | None = None

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of Table 2 that have a run here."""
        return TABLE_2 if self.given is None else (MAIN_CELL,)

    def spec(self, cell: Cell = MAIN_CELL) -> RunSpec:
        """Return the run of a cell of Table 2, with the user's settings."""
        if self.given is not None:
            return self.given.spec
        settings = dict(self.settings)
        if cell.learned:
            settings.pop("diffusion.variance", None)
        return preset(self.preset, cell, settings, self.seed)

    def folder(self, cell: Cell = MAIN_CELL) -> Path:
        """Return the folder of a cell's run."""
        return (
            self.runs / self.preset / run_name(self.spec(cell)) if self.given is None else self.given.folder
        )

    def label(self, cell: Cell = MAIN_CELL) -> str:
        """Name a cell's run in tables and figures."""
        return self.spec(cell).cell if self.given is None else self.given.folder.resolve().name

    def job(self, cell: Cell, stages: tuple[str, ...]) -> Job:
        """Return the job that brings a cell's run through ``stages``."""
        return Job(
            self.folder(cell), self.spec(cell), stages, self.data_root, self.inception_weights, self.device
        )

    @property
    def report(self) -> Path:
        """The report's folder: the preset's, or one of its own where settings or seed make other runs than
        the preset's.

        That of a given run ``runs/imported/published`` is named ``imported-published``.
        """
        if self.given is not None:
            folder = self.given.folder.resolve()
            return self.reports / f"{folder.parent.name}-{folder.name}"
        spec = self.spec()
        plain = preset(self.preset).training_digest() == spec.training_digest()
        return self.reports / (self.preset if plain else f"{self.preset}-{spec.training_digest()}")

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
    ) -> FullBoundTerms | StratifiedBoundTerms | None:
        """Return the bound of a split: of all steps if it was measured, else the stratified estimate."""
        full = self.result(f"bound/{split}/{protocol}", FullBoundTerms, cell)
        return full or self.result(f"bound-stratified/{split}/{protocol}", StratifiedBoundTerms, cell)

    def beside_paper(self) -> str:
        """Say what the paper's columns mean for these data, as far as their name tells."""
        name = self.spec().data.name
        if name == "cifar10":
            whose = (
                "its CIFAR-10 results"
                if self.given is None
                else "those of its eps / L_simple model of CIFAR-10"
            )
            return f"The paper's columns are {whose} after 800,000 updates of batch 128."
        if ":" in name and not name.startswith("lsun:"):
            return (
                f"The paper's columns are of CIFAR-10, and more than an orientation only if {name} is that."
            )
        return "The paper's columns are of CIFAR-10: another data set, shown for orientation only."


@lru_cache(maxsize=32)
def _entries(path: Path, modified: int) -> dict[str, Entry]:
    return {entry.name: entry for entry in Store(path).entries()}


def given_run(folder: Path, settings: Mapping[str, str], *, measured: bool = False) -> GivenRun:
    """Read what the run in ``folder`` is.

    Args:
        folder: of the run.
        settings: fields of the evaluation to replace.
        measured: read it from the results, which needs no torch, instead of from the checkpoint.

    Raises:
        ValueError: if there is no run, nothing of it was measured yet, or a setting would make it another
            run.
    """
    return GivenRun(
        folder, evaluated(folder, _measured_spec(folder) if measured else _trained_spec(folder), settings)
    )


def evaluated(folder: Path, spec: RunSpec, settings: Mapping[str, str]) -> RunSpec:
    """Return the specification of the run in ``folder`` with another evaluation; raise ValueError for any
    other change.
    """
    changed = override(spec, settings)
    for key in settings:
        if not key.startswith("evaluation."):
            raise ValueError(
                f"--set {key} would make another run than {folder} (of a RUN only evaluation.* can be set)"
            )
    return changed


def _trained_spec(folder: Path) -> RunSpec:
    """Return the run as far as it is trained: measuring it trains it no further."""
    from ddpm_eval.training import checkpoint  # torch, only where something is computed

    saved = checkpoint.load(folder / checkpoint.FILE_NAME, prefixes=())
    train = saved.spec.train.model_copy(update={"steps": saved.step or saved.spec.train.steps})
    return saved.spec.model_copy(update={"train": train})


def _measured_spec(folder: Path) -> RunSpec:
    entries = {entry.name: entry for entry in Store(folder / "results.h5").entries()}
    if "training" not in entries:
        raise ValueError(
            f"{folder} holds no results to report (measure first: python cli.py reproduce {folder})"
        )
    return parse(entries["training"].provenance["spec"])


def variance_floors(workspace: Workspace, variance: str) -> Array | None:
    """Return each term's irreducible bits/dim under a fixed variance (index 0 is t = 1), None for another
    variance.
    """
    trained = workspace.spec().diffusion.variance
    name = (trained if variance == "trained" else variance).replace("-", "_")
    tables = workspace.result("schedule", ScheduleTables)
    if tables is None or name not in ("fixed_large", "fixed_small"):
        return None
    sigma2, beta_tilde = (
        np.concatenate([[np.nan], table]) for table in (getattr(tables, name), tables.beta_tilde)
    )
    return analyse.variance_floor(sigma2, beta_tilde)


def floor_sum(floors: Array | None) -> float:
    """Return the sum of floors, NaN if there are none."""
    return math.nan if floors is None else float(floors.sum())
