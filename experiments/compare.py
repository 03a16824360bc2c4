"""Measuring several runs alike: which may be compared, and what is missing of each.

All runs get the evaluation of the first one, the same images, and the same noise, so that differences are
paired by image. Under the stratified estimator they also get the times that the first run's pilot chose.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ddpm_eval.files import digest, locked_folder
from ddpm_eval.metrics.bound import EstimatorName, NotFinite
from ddpm_eval.protocol import Protocol
from ddpm_eval.results.bound_terms import BoundTerms, StratifiedBoundTerms
from ddpm_eval.results.fields import Array
from ddpm_eval.results.records import TrainingLog
from ddpm_eval.results.store import Entry
from ddpm_eval.runtime import Progress, Runtime
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.bound_stage import BoundStage, Pairing
from ddpm_eval.stages.quality_stages import FeatureSource, QualityStage, check_sample_counts
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.run_folders import open_run
from ddpm_eval.stages.sampling_stages import SamplesStage
from ddpm_eval.stages.training_stage import TRAINING, record_training, stored_log
from ddpm_eval.training.checkpoint import FILE_NAME
from experiments.comparison import Comparison, Measured
from experiments.study import with_evaluation

SHOWN = 32
"""Samples of each run that are shown."""


@dataclass(frozen=True)
class ComparisonOptions:
    """How all compared runs are measured.

    Attributes:
        split: of the bound's images.
        protocol: of the bound.
        estimator: of the bound.
        noise_seed: of the bound; None takes the first run's seed.
        quality: whether samples are drawn and measured where that is possible.
        inception_weights: file of Inception's weights; None takes the classifier of the data set.
        reports: the folder of the reports.
    """

    split: str
    protocol: Protocol
    estimator: EstimatorName
    noise_seed: int | None = None
    quality: bool = True
    inception_weights: Path | None = None
    reports: Path = Path("reports")

    @property
    def source(self) -> FeatureSource:
        """Where features come from."""
        return FeatureSource(self.inception_weights)

    def bound(self, pairing: Pairing | None = None) -> BoundStage:
        """Return the stage that measures a run's bound with the noise and times that are shared."""
        return BoundStage(self.split, (self.protocol,), self.estimator, pairing=pairing)


class Aspect(NamedTuple):
    """Something that compared runs must have in common: what it is called, its value, and how it is shown."""

    what: str
    value: str
    shown: str


def open_runs(
    paths: Sequence[Path],
    runtime: Runtime,
    data_root: Path | None,
    settings: Mapping[str, str],
    progress: Progress,
    batch_size: int | None = None,
) -> dict[str, Run]:
    """Return the runs in folders by their names, all with the evaluation of the first.

    Args:
        paths: of the runs: their folders or checkpoints.
        runtime: where to compute.
        data_root: where data sets lie that are not embedded.
        settings: fields of the evaluation to replace.
        progress: called with a run's name and stage, the work done and the work in all.
        batch_size: images in each network evaluation; None takes a number that suits the device.

    Raises:
        ValueError: if there are fewer than two, one is named twice or is not there, or a setting is unknown.
    """
    folders = folders_of(paths)
    found: dict[str, Run] = {}
    for label, folder in zip(names_of(folders), folders, strict=True):
        run = open_run(folder, runtime, data_root, _named(label, progress))
        evaluation = next(iter(found.values()), run).spec.evaluation
        spec = run.spec.model_copy(update={"evaluation": evaluation})
        spec = with_evaluation(folder, spec, settings)
        found[label] = replace(run, spec=spec, asked_batch_size=batch_size)
    return found


def folders_of(paths: Sequence[Path]) -> list[Path]:
    """Return the folders of runs, of which a checkpoint may have been named.

    Raises:
        ValueError: if another file was named.
    """
    for path in paths:
        if path.is_file() and path.name != FILE_NAME:
            raise ValueError(
                f"{path} is a file: a RUN is a folder with a {FILE_NAME} (put each checkpoint of a training "
                "into a folder of its own)"
            )
    return [path.parent if path.is_file() else path for path in paths]


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell them apart.

    Raises:
        ValueError: if there are fewer than two, or two are the same.
    """
    if len(folders) < 2:
        raise ValueError(f"compare takes two RUNs or more, not {len(folders)}")
    parts = [folder.resolve().parts for folder in folders]
    for position, part in enumerate(parts):
        if part in parts[:position]:
            raise ValueError(f"{folders[position]} is named twice: a run does not differ from itself")
    length = 1
    while len({part[-length:] for part in parts}) < len(parts):
        length += 1
    return ["/".join(part[-length:]) for part in parts]


def check_comparable(runs_by_name: Mapping[str, Run], options: ComparisonOptions) -> None:
    """Check that a difference between the runs would be one of their models.

    Raises:
        ValueError: if their images or numbers of steps differ.
    """
    first_name, first = next(iter(runs_by_name.items()))
    for name, run in runs_by_name.items():
        for found, expected in zip(_aspects(run, options), _aspects(first, options), strict=True):
            if found.value != expected.value:
                raise ValueError(
                    f"{name} and {first_name} cannot be compared: they differ in {found.what} "
                    f"({found.shown} and {expected.shown})"
                )


def measure(runs_by_name: Mapping[str, Run], options: ComparisonOptions) -> Comparison:
    """Measure what is missing of each run, and return all of it.

    Raises:
        ValueError: if a run is in use or diverged, its network's output is not finite, or there are too few
            samples.
    """
    first = next(iter(runs_by_name.values()))
    seed = first.spec.seed if options.noise_seed is None else options.noise_seed
    found: list[Measured] = []
    for name, run in runs_by_name.items():
        inclusion = _inclusion(found[0].terms) if found else None
        own = run.spec.seed == seed and inclusion is None
        stage = options.bound(None if own else Pairing(seed, inclusion))
        with locked_folder(run.folder) if run.runtime.main else nullcontext():
            found.append(_measured(name, run, stage, options))
    _check_features(found)
    return Comparison(
        runs=found,
        data_digest=options.bound().images(first).digest,
        noise_seed=seed,
        precision=first.runtime.precision,
        report_folder=options.reports / _report_name(first, found, seed, options),
    )


def _measured(name: str, run: Run, stage: BoundStage, options: ComparisonOptions) -> Measured:
    """Measure one run, whose folder is locked."""
    record_training(run)
    _log(name, run)
    quality = QualityStage(options.source)
    with_quality = options.quality and quality.applies(run)
    if with_quality and run.runtime.any_process(not quality.is_stored(run)):
        check_sample_counts(run, options.source)
    try:
        ensure(stage, run)
    except NotFinite as error:
        raise ValueError(f"{name}: {error}") from None
    if with_quality:
        ensure(SamplesStage(), run)
        _log(name, run)
        ensure(quality, run)
    return Measured(
        label=name,
        folder=run.folder,
        spec=run.spec,
        log=_log(name, run),
        weights=run.weights,
        terms=stage.read(run, options.protocol),
        alpha_bar=run.schedule().alpha_bar[1:].cpu().numpy(),
        entries=_entries(run, stage, quality if with_quality else None),
        quality=quality.read(run) if with_quality else None,
        samples=_first_samples(run) if with_quality else None,
    )


def _log(name: str, run: Run) -> TrainingLog:
    """Return how the training of a run went.

    Raises:
        ValueError: if it diverged.
    """
    log = stored_log(run)
    assert log is not None, "it was recorded"
    if log.diverged:
        raise ValueError(f"{name} diverged ({log.reason}), so that there is nothing to compare: leave it out")
    return log


def _first_samples(run: Run) -> Array:
    return SamplesStage().read(run).images[:SHOWN].copy()


def _entries(run: Run, bound: BoundStage, quality: QualityStage | None) -> list[Entry]:
    """Describe the stored results that the comparison is made from."""
    outputs = [(TRAINING, run.weights), *bound.outputs(run)]
    if quality is not None:
        outputs += [*SamplesStage().outputs(run), *quality.outputs(run)]
    found = [run.results.entry(*output) for output in outputs]
    return [entry for entry in found if entry is not None]


def _aspects(run: Run, options: ComparisonOptions) -> Iterator[Aspect]:
    """Yield what must be the same of all runs; images are loaded last."""
    shape = "x".join(map(str, run.shape))
    yield Aspect("the shape of their images", shape, f"{run.spec.data.name} has {shape}")
    timesteps = str(run.spec.diffusion.timesteps)
    yield Aspect("T", timesteps, timesteps)
    for split in ("test", "train") if options.quality else (options.split,):
        digest_of_images = (run.test_images if split == "test" else run.train_images).digest
        shown = f"{run.spec.data.name}, digest {digest_of_images}"
        yield Aspect(f"their {split} images", digest_of_images, shown)


def _check_features(found: Sequence[Measured]) -> None:
    """Refuse distances in the features of different networks."""
    measured = {run.quality.weights_digest: run for run in found if run.quality is not None}
    if len(measured) > 1:
        (one, a), (other, b), *_ = measured.items()
        raise ValueError(
            f"the samples of {a.label} and {b.label} were measured by different classifiers ({one} and "
            f"{other}): put the runs below one folder, or leave quality out with --no-quality"
        )


def _inclusion(terms: BoundTerms) -> tuple[float, ...] | None:
    """Return the probabilities with which a bound's times were chosen, None if all were evaluated."""
    return tuple(terms.inclusion.tolist()) if isinstance(terms, StratifiedBoundTerms) else None


def _report_name(first: Run, found: Sequence[Measured], seed: int, options: ComparisonOptions) -> str:
    """Return the name of the report's folder, after all that the report depends on but the weights."""
    folders = [str(run.folder.resolve()) for run in found]
    choices = (options.split, options.estimator, options.protocol.model_dump_json(), seed, options.quality)
    run = (first.spec.evaluation.model_dump_json(), first.runtime.precision)
    return f"compare-{digest(folders, *choices, *run, options.inception_weights)}"


def _named(label: str, progress: Progress) -> Progress:
    def report(stage: str, done: int, total: int) -> None:
        progress(f"{label}: {stage}", done, total)

    return report
