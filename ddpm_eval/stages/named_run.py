"""A run of a named network: the function that returns it is called again whenever the network is needed.

In place of a checkpoint the folder holds ``network.json``, the run's specification. It names the function and
its arguments, and holds the digest of what it returned when the folder was made. A function that returns
another network since is refused: its results would be taken for those of the first.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ddpm_eval.api.named_network import load_named, model_digest
from ddpm_eval.api.network_model import Model as NetworkModel
from ddpm_eval.files import write_text
from ddpm_eval.metrics.bound import Model
from ddpm_eval.metrics.time_convention import check_ends, doubt_of_times, time_offset
from ddpm_eval.model.diffusion import ReverseProcess, Schedule
from ddpm_eval.protocol import Protocol
from ddpm_eval.results.records import TrainingLog
from ddpm_eval.spec import NamedNetwork, RunSpec, Spacing
from ddpm_eval.spec_text import parse, read_json
from ddpm_eval.stages.run import SAMPLING, Run

FILE_NAME = "network.json"
PRESET = "network"
"""What stands in the place of a preset's name."""
BATCH_SIZE = 64
"""Images per call of a network whose size is not known."""


class NamedRun(Run):
    """A run whose network a function returns."""

    is_trained_here = False

    @property
    def named(self) -> NamedNetwork:
        """The function, and what identifies the network."""
        assert isinstance(self.spec.network, NamedNetwork)
        return self.spec.network

    @cached_property
    def own_model(self) -> NetworkModel:
        """The model that the function returns, in evaluation mode on the device.

        Raises:
            ValueError: if it returns none, or another one than when the folder was made.
        """
        named = self.named
        arguments = dict(named.arguments)
        model = load_named(named.reference, arguments)
        found = model_digest(named.reference, arguments, model)
        if found != named.weights:
            raise ValueError(
                f"{self.folder} holds the results of the network {named.weights}, but {named.reference} "
                f"returns the network {found} now (its weights or its source have changed, or the weights "
                "are random): name it by --network, which measures it in a folder of its own"
            )
        assert isinstance(model.network, nn.Module)
        network = model.network.to(self.runtime.device).eval()
        return replace(model, network=network, device=self.runtime.device)

    @property
    def exists(self) -> bool:
        """Whether there is a network to be measured."""
        return True

    @property
    def steps_done(self) -> int:
        """The number of updates, of which none is known."""
        return 0

    @property
    def weights(self) -> str:
        """The digest of the network, which keys every result."""
        return self.named.weights

    @property
    def batch_size(self) -> int:
        """The number of images in each network evaluation."""
        return self.asked_batch_size or BATCH_SIZE

    @property
    def sampling_choices(self) -> tuple[object, ...]:
        """Return what every sample depends on beside the network: with classes also whose these are."""
        classes = (self.train_images.digest,) if self.named.conditional else ()
        return (self._sampling.model_dump_json(), *classes)

    def check(self) -> None:
        """Do nothing: the specification is all that the folder holds."""

    def training_log(self) -> TrainingLog:
        """Check the network on test images, and return that of its training nothing is known.

        Raises:
            ValueError: if it fails at t = 1 or t = T, or seems to count times otherwise.
        """
        model = self.model()
        if self.own_model.verify_times:
            check_ends(model, self.test_images)
            doubt = doubt_of_times(time_offset(model, self.test_images))
            if doubt:
                raise ValueError(doubt)
        return unknown_training(self.named)

    def schedule(self, num_steps: int | None = None, spacing: Spacing = "trailing") -> Schedule:
        """Return the schedule of all steps, or of a chain of so many evenly spaced ones."""
        return self._respaced(num_steps, spacing).chain

    def model(self, num_steps: int | None = None, spacing: Spacing = "trailing") -> Model:
        """Return the network with its schedule, on all steps or on a chain of so many evenly spaced ones."""
        return self._respaced(num_steps, spacing).measured()

    def process(self, num_steps: int | None = None, spacing: Spacing = "trailing") -> ReverseProcess:
        """Return p_theta for sampling; sample k has the class of training image k, from the first again."""
        process = self.model(num_steps, spacing).under(self._sampling).process
        if not self.named.conditional:
            return process
        labels = self.train_images.labels
        if labels is None:
            raise ValueError("the network is class-conditional, but the images have no labels")
        known = torch.from_numpy(labels)

        def classes(sample: Tensor) -> Tensor:
            return known.to(sample.device)[sample % len(known)]

        return replace(process, classes=classes)

    @property
    def _sampling(self) -> Protocol:
        return SAMPLING.model_copy(update={"clip": self.named.clip_samples})

    def _respaced(self, num_steps: int | None, spacing: Spacing) -> NetworkModel:
        if num_steps is None or num_steps == self.spec.diffusion.timesteps:
            return self.own_model
        return self.own_model.respaced(num_steps, spacing)


def unknown_training(network: NamedNetwork) -> TrainingLog:
    """Return the log of a training of which nothing is known."""
    return TrainingLog(
        loss=np.zeros(0),
        gradient_norm=np.zeros(0),
        status="imported",
        reason=f"returned by {network.reference}",
        steps=0,
        images=0,
        seconds=0.0,
        parameters=network.parameters,
    )


def save_named(folder: Path, spec: RunSpec) -> None:
    """Write the specification of a named network's run into its folder, unless it lies there."""
    path = folder / FILE_NAME
    if not path.exists():
        write_text(path, spec.model_dump_json(indent=2) + "\n")


def named_spec(folder: Path) -> RunSpec | None:
    """Return the specification of a named network's run, None if the folder is of none.

    Raises:
        ValueError: if the file that holds it is damaged.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        spec = parse(read_json(path.read_text(errors="replace")))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(spec.network, NamedNetwork):
        raise ValueError(f"{path} names no network (was it written by hand?)")
    return spec
