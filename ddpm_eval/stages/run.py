"""A run: one trained model in a folder, with the resources that its stages use.

The folder holds the checkpoint, ``results.h5`` and the work in progress (``partial/``). A `Run` knows no
stage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeVar

from torch import nn

from ddpm_eval.data import datasets
from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.metrics.bound import Model
from ddpm_eval.model.diffusion import ReverseProcess, Schedule, make_schedule
from ddpm_eval.model.respacing import evenly_spaced, no_fewer_steps
from ddpm_eval.protocol import Protocol
from ddpm_eval.results.fields import Record
from ddpm_eval.results.records import TrainingLog
from ddpm_eval.results.store import Entry, Result, Store
from ddpm_eval.runtime import Progress, Runtime, silent
from ddpm_eval.spec import RunSpec, Spacing
from ddpm_eval.stages.shared_work import SharedWork
from ddpm_eval.training import checkpoint as checkpoints
from ddpm_eval.training.checkpoint import Checkpoint
from ddpm_eval.training.loop import check_same_run, training_log

R = TypeVar("R", bound=Record)
PARTIAL = "partial"
"""Subfolder of the run's folder that holds the work in progress."""
SAMPLING = Protocol(name="sampling", clip=True, decoder="exact")
"""Samples are drawn with x_0 estimates clipped, as by the authors' code."""


@dataclass
class Run:
    """One run's folder and resources.

    Attributes:
        folder: of the run.
        spec: what the run is; its evaluation part may differ from what the folder was made with.
        runtime: where to compute.
        data_root: where data sets lie that are not embedded.
        progress: called with a stage's name, the work done and the work in all.
        asked_batch_size: images in each network evaluation; None takes a number that suits the device.
        is_trained_here: whether training can go on.
    """

    folder: Path
    spec: RunSpec
    runtime: Runtime
    data_root: Path | None = None
    progress: Progress = silent
    asked_batch_size: int | None = None
    is_trained_here: ClassVar[bool] = True

    @property
    def checkpoint(self) -> Path:
        """The path of the checkpoint."""
        return self.folder / checkpoints.FILE_NAME

    @property
    def exists(self) -> bool:
        """Whether there is a network to be measured."""
        return self.checkpoint.exists()

    @property
    def steps_done(self) -> int:
        """The number of updates that the network has had."""
        return self.header.step

    @cached_property
    def header(self) -> Checkpoint:
        """The checkpoint without its tensors."""
        return checkpoints.load(self.checkpoint, prefixes=())

    @cached_property
    def train_images(self) -> ImageSet:
        """The training split."""
        return datasets.load(self.spec.data, "train", self.data_root)

    @cached_property
    def test_images(self) -> ImageSet:
        """The test split."""
        return datasets.load(self.spec.data, "test", self.data_root)

    @cached_property
    def weights(self) -> str:
        """The digest of the averaged weights, which keys every result; empty before training."""
        return checkpoints.weights_digest(self.checkpoint) if self.checkpoint.exists() else ""

    @cached_property
    def network(self) -> nn.Module:
        """The network with its averaged weights, in evaluation mode on the device."""
        self.check()
        _, network = checkpoints.load_network(self.checkpoint)
        return self.runtime.compile(self.runtime.place(network, self.spec.unet.base_channels))

    def check(self) -> None:
        """Raise ValueError unless the checkpoint is of this run."""
        check_same_run(self.header, self.spec, self.checkpoint)

    def training_log(self) -> TrainingLog:
        """Return what the checkpoint says of its training."""
        return training_log(checkpoints.load(self.checkpoint, prefixes=("ema/", "log/")))

    def forget_weights(self) -> None:
        """Read the checkpoint again when it is next needed, because it has changed."""
        for name in ("header", "weights", "network"):
            self.__dict__.pop(name, None)

    def schedule(self, num_steps: int | None = None, spacing: Spacing = "trailing") -> Schedule:
        """Return the schedule of all steps, or of a chain of so many evenly spaced ones.

        Raises:
            ValueError: if the chain is too short or too long, or the network knows its own chain only.
        """
        schedule = make_schedule(self.spec.diffusion).to(self.runtime.arithmetic_device)
        if num_steps is None or num_steps == schedule.timesteps:
            return schedule
        if self.no_fewer_steps:
            raise ValueError(self.no_fewer_steps)
        return schedule.respaced(evenly_spaced(schedule.timesteps, num_steps, spacing))

    @property
    def no_fewer_steps(self) -> str:
        """Why the network does not serve chains of fewer steps, see `respacing.no_fewer_steps`."""
        return no_fewer_steps(self.spec.diffusion.prediction, self.spec.diffusion.variance)

    def model(self, num_steps: int | None = None, spacing: Spacing = "trailing") -> Model:
        """Return the network with its schedule, on all steps or on a chain of so many evenly spaced ones."""
        diffusion = self.spec.diffusion
        schedule = self.schedule(num_steps, spacing)
        return Model(self.network, schedule, diffusion.prediction, diffusion.variance_name)

    @property
    def sampling_choices(self) -> tuple[object, ...]:
        """Return what every sample depends on beside the network."""
        return (SAMPLING.model_dump_json(),)

    def process(self, num_steps: int | None = None, spacing: Spacing = "trailing") -> ReverseProcess:
        """Return p_theta for sampling, on all steps or on a chain of so many evenly spaced ones."""
        return self.model(num_steps, spacing).under(SAMPLING).process

    @property
    def batch_size(self) -> int:
        """The number of images in each network evaluation."""
        if self.asked_batch_size is not None:
            return self.asked_batch_size
        return self.runtime.batch_size(self.spec.data.side, self.spec.unet.base_channels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of an image."""
        return self.spec.data.channels, self.spec.data.side, self.spec.data.side

    @property
    def results(self) -> "RunResults":
        """What is stored of the run."""
        return RunResults(self)

    def work(self, stage: str, key: str) -> SharedWork:
        """Return how the work of a stage is carried out; ``key`` identifies its results."""
        folder = self.folder / PARTIAL / stage.replace("/", "-")
        return SharedWork(folder, key, self.runtime, self.progress)


@dataclass(frozen=True)
class RunResults:
    """The stored results of a run, written by the main process with their provenance."""

    run: Run

    @property
    def store(self) -> Store:
        """The results file."""
        return Store(self.run.folder / checkpoints.RESULTS_NAME)

    def qualified(self, name: str) -> str:
        """Return the name of a result of the runtime's precision, such as ``bf16/samples``."""
        precision = self.run.runtime.precision
        return name if precision == "fp32" else f"{precision}/{name}"

    def has(self, name: str, key: str) -> bool:
        """Tell whether a result of this name and key is stored."""
        return self.store.has(name, key)

    def get(self, name: str, record_type: type[R], key: str | None = None) -> R:
        """Read a result; see `ddpm_eval.results.store.Store.get`."""
        return self.store.get(name, record_type, key)

    def entry(self, name: str, key: str | None = None) -> Entry | None:
        """Return the description of the newest result of this name (and key), None if there is none."""
        found = [e for e in self.store.entries() if e.name == name and key in (None, e.key)]
        return found[-1] if found else None

    def put_all(
        self, results: Sequence[Result], *, seconds: float, choices: Mapping[str, object] | None = None
    ) -> None:
        """Store results in one step, on the main process.

        Args:
            results: of one stage.
            seconds: that they took.
            choices: of the stage, for their provenance.
        """
        if results and self.run.runtime.main:
            self.store.put_all(results, self._provenance(seconds, dict(choices or {})))

    def _provenance(self, seconds: float, choices: dict[str, object]) -> dict[str, object]:
        run = self.run
        return {
            "spec": run.spec.model_dump(mode="json"),
            "run": run.spec.training_digest(),
            "weights": run.weights,
            "device": run.runtime.describe(),
            "precision": run.runtime.precision,
            "wall_seconds": round(seconds, 3),
            "choices": choices,
        }
