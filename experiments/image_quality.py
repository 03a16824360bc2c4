"""Sample quality of a run's samples or of anybody's images, and their nearest neighbours in the training
set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ddpm_eval import runtime
from ddpm_eval.data import datasets
from ddpm_eval.data.image_set import Images, ImageSet
from ddpm_eval.metrics import features, neighbours, quality
from ddpm_eval.metrics.features import Extractor
from ddpm_eval.reporting import analyse
from ddpm_eval.results import sample_files
from ddpm_eval.results.records import Quality
from ddpm_eval.results.store import Store
from ddpm_eval.runtime import Progress
from ddpm_eval.spec import DataSpec
from ddpm_eval.stages.pipeline import Run
from ddpm_eval.stages.sample_quality import SampleQuality
from experiments import sample_quality


@dataclass
class Subject:
    """Images to be judged, and what they are judged by.

    Attributes:
        path: a folder, an npz file or a results file.
        data: name of the data set to compare with.
        runs: folder below which classifiers and reference statistics are kept.
        data_root: where data sets lie.
        device: on which features are computed.
        inception_weights: file of Inception weights.
        inception: whether to use Inception rather than the data set's classifier.
        run: whose samples the images are, if they are any run's.
        progress: called while features are computed.
        name: of the samples in a results file.
    """

    path: Path
    data: str
    runs: Path
    data_root: Path | None
    device: str
    inception_weights: Path | None
    inception: bool
    run: Run | None = None
    progress: Progress = runtime.silent
    name: str = "samples"

    @cached_property
    def images(self) -> Images:
        """The images."""
        return sample_files.load_images(self.path, self.name)

    @cached_property
    def train(self) -> ImageSet:
        """The training split."""
        return self._split("train")

    @cached_property
    def test(self) -> ImageSet:
        """The test split."""
        return self._split("test")

    @cached_property
    def extractor(self) -> Extractor:
        """The network whose features are compared."""
        here = runtime.start(self.device)
        if self.inception:
            return features.inception(self.inception_weights, runtime=here)
        return features.classifier(self.train, self.test, self.runs / "classifiers", runtime=here)

    def _split(self, split: str) -> ImageSet:
        channels, side = datasets.inspect(self.data)
        spec = DataSpec(name=self.data, channels=1 if channels == 1 else 3, side=side)
        return datasets.load(spec, split, self.data_root)


def samples_of(run: Run, *, inception_weights: Path | None, inception: bool) -> Subject:
    """Return a run's stored samples as the subject; raise ValueError if there are none of its present
    weights.
    """
    run.stored_samples(run.spec.diffusion.timesteps)
    return Subject(
        run.store.path,
        run.spec.data.name,
        run.runs,
        run.data_root,
        str(run.runtime.device),
        inception_weights,
        inception,
        run,
        run.progress,
        run.measured("samples"),
    )


def measure(
    subject: Subject, protocols: Sequence[str], references: Sequence[str], allow_singular: bool
) -> str:
    """Measure images under protocols and against splits; return a table with the captions that the numbers
    need.
    """
    statistics_cache = Store(
        subject.runs / "classifiers" / "statistics.h5"
    )  # the one that the pipeline fills
    results = {}
    for protocol in protocols:
        for split in references:
            stored = None if protocol != "paper" or split != "train" or allow_singular else _stored(subject)
            results[f"{protocol}, against {split}"] = stored or quality.measure(
                subject.images,
                subject.train if split == "train" else subject.test,
                subject.extractor,
                test=subject.test if split == "train" else None,
                protocol=quality.PROTOCOLS[protocol],
                allow_singular=allow_singular,
                statistics_cache=statistics_cache,
                progress=subject.progress,
            )
    table = analyse.quality_table(results).drop(columns=["reference"])
    notes = [
        f"{name}: {result.caption}" + (f" ({result.caveat})" if result.caveat else "")
        for name, result in results.items()
    ]
    first = next(iter(results.values()))
    names = f"frechet_distance is the {first.distance_name}; score is the {first.score_name}"
    comparable = (
        ""
        if first.is_inception
        else " (of this data set's own classifier: not comparable with any published FID or IS)"
    )
    return "\n".join(
        [table.to_string(index=False, float_format=lambda x: f"{x:.5g}"), *notes, names + comparable]
    )


def _stored(subject: Subject) -> Quality | None:
    """Return the quality of a run's samples as its results hold it, measured if need be; None if these are
    not all of them.
    """
    run = subject.run
    if run is None or run.runtime.precision != "fp32" or len(subject.images) != run.spec.evaluation.n_samples:
        return None  # reports are of fp32 samples
    if subject.inception and subject.inception_weights is None:  # a result is keyed by its file of weights
        return None
    SampleQuality(run, subject.inception_weights).measure()
    return run.store.get("quality", Quality)


def nearest(subject: Subject, stem: Path, mirrored: bool) -> str:
    """Find the nearest training images, draw them (Fig. 15), and say whether the samples are copies."""
    found = neighbours.neighbours(
        subject.images,
        subject.train,
        subject.test,
        subject.extractor,
        mirrored=mirrored or (subject.run is not None and subject.run.spec.data.flips),
        progress=subject.progress,
    )
    if subject.extractor.runtime.main:
        sample_quality.neighbours_figure(found, stem)
    table = analyse.memorisation_table(found).to_string(index=False, float_format=lambda x: f"{x:.4g}")
    return "\n".join([table, sample_quality.MEMORISATION, f"{stem}.png"])
