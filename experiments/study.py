"""A study: the runs behind one report, where they lie, what they are, and what is stored of them.

A study is of a preset, which has a run for each cell of Table 2, or of one run that was named by its folder.
The default study joins two presets: Table 2 and sample quality are of the digits, and likelihood is of one
model of the photographs.
Nothing here needs torch: what a run is comes from its preset or from its results. What a checkpoint says of a
run is read by `experiments.trained_run`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from ddpm_eval.files import digest
from ddpm_eval.protocol import PROTOCOLS, Protocol
from ddpm_eval.results.bound_terms import BoundTerms, FullBoundTerms, StratifiedBoundTerms, bound_name
from ddpm_eval.results.fields import Record
from ddpm_eval.results.store import Entry, Store
from ddpm_eval.spec import RunSpec
from ddpm_eval.spec_text import override, parse
from experiments.paper.presets import MAIN_CELL, TABLE_2, Cell, cell_name, cell_of, preset, run_name

R = TypeVar("R", bound=Record)
RESULTS_FILE = "results.h5"
DEFAULT = "default"
"""Name of the study that joins `ABLATION_PRESET` and `BOUND_PRESET`."""
ABLATION_PRESET = "digits"
BOUND_PRESET = "photos"
VARIED = ("diffusion.prediction", "diffusion.objective")
"""Fields that the ablation varies: a study in which the user fixes one of them is of a single run."""
MOST_KEPT_ELEMENTS = 2**18
"""Elements of a result that is kept in memory, 2 MiB in double precision."""
OF_THE_DATA = ("ReferenceImages", "Baseline", "SimpleCodes")
"""Types of the results that the weights have no part in: they stay valid when training goes on."""


@dataclass(frozen=True)
class StudyRun:
    """One run of a study and its stored results.

    Attributes:
        folder: of the run.
        spec: what the run is, and how much is measured of it.
        label: its name in files.
    """

    folder: Path
    spec: RunSpec
    label: str

    @property
    def words(self) -> str:
        """The name for people, with the cell in words: ``eps, L, learned variance``."""
        return self.label.replace(self.spec.cell, f"{cell_name(cell_of(self.spec))} variance")

    @property
    def results(self) -> Store:
        """The run's results file, which need not exist."""
        return Store(self.folder / RESULTS_FILE)

    def entries(self) -> Sequence[Entry]:
        """Describe all stored results, in the order of their names and their times.

        Raises:
            ValueError: if they are of another run.
        """
        path = self.results.path
        if not path.exists():
            return ()
        found = _entries(path, path.stat().st_mtime_ns)
        run = self.spec.training_digest()
        if any(entry.provenance.get("run", run) != run for entry in found):
            raise ValueError(
                f"{path} holds results of another run than {self.spec.preset} {self.spec.cell} of seed "
                f"{self.spec.seed} (files of two runs exchanged?): put each run's files into its own folder"
            )
        return found

    def entry(self, name: str) -> Entry | None:
        """Describe the stored result of the present weights, None if there is none.

        Of several it is the newest that was measured with this study's evaluation, else the newest.
        """
        found = [entry for entry in self.entries() if entry.name == name and self._is_present(entry)]
        evaluation = self.spec.evaluation.model_dump(mode="json")
        same = [entry for entry in found if entry.provenance.get("spec", {}).get("evaluation") == evaluation]
        return max(same or found, key=_created, default=None)

    def result(self, name: str, record_type: type[R]) -> R | None:
        """Return the stored result of the present weights, None if there is none; see `entry`.

        Sections ask for the same results again and again, so that small ones are kept in memory.
        """
        entry = self.entry(name)
        if entry is None:
            return None
        if sum(math.prod(length for _, length in array) for array in entry.sizes) > MOST_KEPT_ELEMENTS:
            return self.results.get(name, record_type, entry.key)
        path = self.results.path
        return _result(path, path.stat().st_mtime_ns, name, record_type, entry.key)  # type: ignore[arg-type]

    def latest(self, name: str, record_type: type[R]) -> R | None:
        """Return the newest result of this name, of whatever weights, None if there is none."""
        found = [entry for entry in self.entries() if entry.name == name]
        newest = max(found, key=_created, default=None)
        return None if newest is None else self.results.get(name, record_type, newest.key)

    def bound(self, split: str = "test", protocol: Protocol = PROTOCOLS["paper"]) -> BoundTerms | None:
        """Return a split's bound on all steps that is of the most images; of equally many the full one."""
        full = self.full_bound(split, protocol)
        sampled = self.result(bound_name(split, protocol, "stratified"), StratifiedBoundTerms)
        found: list[BoundTerms] = [terms for terms in (full, sampled) if terms is not None]
        return max(found, key=lambda terms: len(terms.image_id), default=None)

    def full_bound(
        self, split: str = "test", protocol: Protocol = PROTOCOLS["paper"]
    ) -> FullBoundTerms | None:
        """Return the bound of a split with all T terms of each of its images, which may be fewer."""
        return self.result(bound_name(split, protocol), FullBoundTerms)

    def bounds(self, split: str) -> list[BoundTerms]:
        """Return the bounds under every protocol that are of the images of `bound`, by the same estimator."""
        chosen = self.bound(split)
        kind = FullBoundTerms if chosen is None else type(chosen)
        prefix = f"bound/{kind.estimator}/{split}/"
        names = dict.fromkeys(entry.name for entry in self.entries() if entry.name.startswith(prefix))
        found = [self.result(name, kind) for name in names]
        return [terms for terms in found if terms is not None]

    @property
    def weights(self) -> str | None:
        """The digest of the present weights, None if no training is recorded."""
        trainings = [entry for entry in self.entries() if entry.name == "training"]
        return max(trainings, key=_created).key if trainings else None

    def _is_present(self, entry: Entry) -> bool:
        return entry.record in OF_THE_DATA or entry.provenance.get("weights") == self.weights


@dataclass(frozen=True)
class StudyOptions:
    """Options that apply to all runs of a study.

    Attributes:
        reports: the folder of the reports.
        data_root: where data sets lie that are not embedded.
        device: auto, cpu, cuda or cuda:N.
        inception_weights: file of Inception's weights; None measures quality with the data set's classifier.
        batch_size: images in each network evaluation; None takes a number that suits the device.
    """

    reports: Path = Path("reports")
    data_root: Path | None = None
    device: str = "auto"
    inception_weights: Path | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Study:
    """The runs behind one report.

    Attributes:
        runs: in the order of Table 2.
        main: the one of them that most experiments are about: the paper's model, or the only run.
        report_folder: where the report is written.
        preset: the preset's name, or `DEFAULT`; None for a run that was named by its folder.
        settings: fields of the specification that the user replaced.
        options: that apply to all runs.
        other_bound_run: the run of other images that likelihood is measured of; None if it is ``main``.
        replicates: the same study with further seeds, of which Table 2 and the claims are measured.
    """

    runs: tuple[StudyRun, ...]
    main: StudyRun
    report_folder: Path
    preset: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    options: StudyOptions = field(default_factory=StudyOptions)
    other_bound_run: StudyRun | None = None
    replicates: tuple["Study", ...] = ()

    @property
    def seeds(self) -> tuple["Study", ...]:
        """The study of each seed, this one first."""
        return (self, *self.replicates)

    @property
    def bound_run(self) -> StudyRun:
        """The run whose bound, rate, distortion and progressive decompression are reported."""
        return self.other_bound_run or self.main

    @property
    def subjects(self) -> tuple[StudyRun, ...]:
        """The runs that experiments are about: `main` and, where it is another one, `bound_run`."""
        return tuple(dict.fromkeys((self.main, self.bound_run)))

    @property
    def runs_of_first_seed(self) -> tuple[StudyRun, ...]:
        """All runs but the replicates', those of Table 2 first."""
        return tuple(dict.fromkeys((*self.runs, self.bound_run)))

    @property
    def every_run(self) -> tuple[StudyRun, ...]:
        """All runs of all seeds, one seed after the other."""
        return tuple(run for study in self.seeds for run in study.runs_of_first_seed)

    @property
    def has_every_cell(self) -> bool:
        """Whether there is a run for each cell of Table 2."""
        return len(self.runs) == len(TABLE_2)

    @property
    def tables(self) -> Path:
        """The folder of the report's tables."""
        return self.report_folder / "tables"

    @property
    def figures(self) -> Path:
        """The folder of the report's figures."""
        return self.report_folder / "figures"


def resolve_preset(
    name: str,
    settings: Mapping[str, str] | None = None,
    seed: int = 0,
    *,
    runs: Path = Path("runs"),
    options: StudyOptions | None = None,
) -> Study:
    """Return the study of a preset: a run for each cell of Table 2, or one where the settings fix the cell.

    Its report has the preset's name, with a digest where settings or seed make other runs than the preset's,
    or the name of the data set if it is another one.

    Args:
        name: of the preset.
        settings: fields to replace, see `ddpm_eval.spec_text.override`.
        seed: of everything.
        runs: the folder of the runs.
        options: that apply to all runs.

    Raises:
        ValueError: if there is no such preset, field or value.
    """
    chosen = dict(settings or {})
    options = options or StudyOptions()
    cells = (MAIN_CELL,) if chosen.keys() & set(VARIED) else TABLE_2
    specs = {cell: _cell_spec(name, cell, chosen, seed) for cell in cells}
    found = {cell: StudyRun(run_folder(runs, spec), spec, _label(spec)) for cell, spec in specs.items()}
    digest = specs[MAIN_CELL].training_digest()
    plain = digest == preset(name).training_digest()
    report = name if plain else f"{collection(specs[MAIN_CELL])}-{digest}"
    return Study(tuple(found.values()), found[MAIN_CELL], options.reports / report, name, chosen, options)


def resolve_default(
    settings: Mapping[str, str] | None = None,
    seed: int = 0,
    *,
    runs: Path = Path("runs"),
    options: StudyOptions | None = None,
) -> Study:
    """Return the default study: the digits' cells of Table 2, and a model of the photographs for likelihood.

    Its report is named ``default``, with a digest where settings or seed make other runs than the presets'.

    Args:
        settings: fields to replace in all runs, see `ddpm_eval.spec_text.override`.
        seed: of everything.
        runs: the folder of the runs.
        options: that apply to all runs.

    Raises:
        ValueError: if there is no such field or value.
    """
    study = resolve_preset(ABLATION_PRESET, settings, seed, runs=runs, options=options)
    spec = preset(BOUND_PRESET, settings=settings, seed=seed)
    found = [study.main.spec.training_digest(), spec.training_digest()]
    plain = [preset(name).training_digest() for name in (ABLATION_PRESET, BOUND_PRESET)]
    return replace(
        study,
        preset=DEFAULT,
        report_folder=study.options.reports / (DEFAULT if found == plain else f"{DEFAULT}-{digest(*found)}"),
        other_bound_run=StudyRun(run_folder(runs, spec), spec, f"{BOUND_PRESET} {_label(spec)}"),
    )


def replicated(resolve: Callable[[int], Study], seed: int, seeds: int) -> Study:
    """Return the study of a seed with those of the seeds that follow it as its replicates.

    Args:
        resolve: returns the study of a seed.
        seed: the first one.
        seeds: their number.
    """
    first, *others = map(resolve, range(seed, seed + seeds))
    return replace(first, replicates=tuple(others))


def resolve_run(
    folder: Path,
    spec: RunSpec,
    settings: Mapping[str, str] | None = None,
    options: StudyOptions | None = None,
) -> Study:
    """Return the study of one run; the report of ``runs/imported/published`` is named ``imported-published``.

    Args:
        folder: of the run.
        spec: what the run is: of `measured_spec`, or of `experiments.trained_run.trained_spec`.
        settings: fields of the evaluation to replace.
        options: that apply to the run.

    Raises:
        ValueError: if a setting is unknown or would make another run.
    """
    chosen = dict(settings or {})
    options = options or StudyOptions()
    path = folder.resolve()
    run = StudyRun(folder, with_evaluation(folder, spec, chosen), path.name)
    return Study((run,), run, options.reports / f"{path.parent.name}-{path.name}", None, chosen, options)


def run_folder(runs: Path, spec: RunSpec) -> Path:
    """Return the folder of a preset's run below the folder of all runs."""
    return runs / collection(spec) / run_name(spec)


def collection(spec: RunSpec) -> str:
    """Return the preset's name or, of a run on other data, the name of its data set."""
    same = preset(spec.preset).data.name == spec.data.name
    return spec.preset if same else spec.data.folder_name


def with_evaluation(folder: Path, spec: RunSpec, settings: Mapping[str, str]) -> RunSpec:
    """Return the specification of the run in ``folder`` with fields of its evaluation replaced.

    Raises:
        ValueError: if a setting is unknown, or of anything but the evaluation.
    """
    changed = override(spec, settings)
    for key in settings:
        if not key.startswith("evaluation."):
            raise ValueError(
                f"--set {key} would make another run than {folder} (of a RUN only evaluation.* can be set)"
            )
    return changed


def measured_spec(folder: Path) -> RunSpec:
    """Return what the run in ``folder`` is according to its newest training in the results, without torch.

    Raises:
        ValueError: if nothing of it was measured yet.
    """
    found = [entry for entry in Store(folder / RESULTS_FILE).entries() if entry.name == "training"]
    if not found:
        raise ValueError(
            f"{folder} holds no results to report (measure first: python cli.py reproduce {folder})"
        )
    return parse(max(found, key=_created).provenance["spec"])


def _label(spec: RunSpec) -> str:
    """Name a run among those of all seeds."""
    return spec.cell if spec.seed == 0 else f"{spec.cell}, seed {spec.seed}"


def _cell_spec(name: str, cell: Cell, settings: Mapping[str, str], seed: int) -> RunSpec:
    """Return the run of a cell with the user's settings; a learned variance stays learned."""
    kept = {key: text for key, text in settings.items() if not (cell.learned and key == "diffusion.variance")}
    return preset(name, cell, kept, seed)


@lru_cache(maxsize=128)
def _result(path: Path, modified: int, name: str, record_type: type[R], key: str) -> R:
    return Store(path).get(name, record_type, key)


@lru_cache(maxsize=32)
def _entries(path: Path, modified: int) -> tuple[Entry, ...]:
    return tuple(Store(path).entries())


def _created(entry: Entry) -> str:
    return str(entry.provenance["created"])
