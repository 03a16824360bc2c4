"""A network with all that a measurement must know of it, and the same network under a protocol."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ddpm_eval.model.diffusion import Network, Predicted, ReverseProcess, ReverseVariance, Schedule
from ddpm_eval.protocol import Protocol
from ddpm_eval.results.fields import Array
from ddpm_eval.spec import Decoder, Variance

TABLE = "table"
"""What a reverse variance is called that the model has as a table of its own."""


@dataclass(frozen=True)
class ModelUnderProtocol:
    """A model as one protocol sees it: a reverse process with its variance, and a decoder."""

    process: ReverseProcess
    decoder: Decoder


@dataclass(frozen=True)
class Model:
    """A network with its noise schedule and the variance it was trained with.

    Attributes:
        network: maps ``x_t [batch, channels, side, side]``, 0-based int64 times ``[batch]`` and, if it is
            conditional, int64 classes ``[batch]`` to the prediction.
        schedule: of the chain, on the network's device.
        prediction: what the network predicts.
        trained_variance: reverse variance that a protocol's ``trained`` stands for, by its name or as a
            table of sigma_t^2 indexed 0..T.
        dtype: of the network's input; None leaves the float64 of the arithmetic.
        optimal_variance: tables of sigma_t^2 indexed 0..T for a protocol's ``optimal``, by whether x_0
            estimates are clipped; see the function `optimal_variance`.
        conditional: whether the network is class-conditional.
        classes: of a conditional network, the function from image ids to classes, both int64 ``[batch]``;
            `evaluate_bound` takes the images' labels.
    """

    network: Network
    schedule: Schedule
    prediction: Predicted = "eps"
    trained_variance: Variance | Tensor = "fixed-large"
    dtype: torch.dtype | None = torch.float32
    optimal_variance: Mapping[bool, Array] = field(default_factory=dict)
    conditional: bool = False
    classes: Callable[[Tensor], Tensor] | None = None

    def variance_name(self, protocol: Protocol) -> str:
        """Return the name of the reverse variance that a protocol stands for with this model."""
        return self._own_variance if protocol.variance == "trained" else protocol.variance

    def given_labels(self, ids: Array, labels: Array | None) -> "Model":
        """Return the model with the classes of images; a model that is not conditional stays as it is.

        Args:
            ids: of the images, int64 ``[n]``.
            labels: their classes, int64 ``[n]``; None if they have none.

        Raises:
            ValueError: if the model is conditional and the images have no labels.
        """
        if not self.conditional:
            return self
        if labels is None:
            raise ValueError("the network is class-conditional, but the images have no labels")
        order = torch.from_numpy(ids.argsort())
        known, values = torch.from_numpy(ids)[order], torch.from_numpy(labels)[order]

        def classes(image: Tensor) -> Tensor:
            return values.to(image.device)[torch.searchsorted(known.to(image.device), image)]

        return replace(self, classes=classes)

    def under(self, protocol: Protocol) -> ModelUnderProtocol:
        """Return the model under a protocol.

        Raises:
            ValueError: if the protocol's variance does not exist for this model.
        """
        variance = self._variance(self.variance_name(protocol), protocol.clip)
        process = ReverseProcess(
            self.evaluate, self.schedule, self.prediction, variance, protocol.clip, self.classes
        )
        return ModelUnderProtocol(process, protocol.decoder)

    def evaluate(self, x_t: Tensor, timestep: Tensor, *classes: Tensor) -> Tensor:
        """Evaluate the network on images of any floating type; see `ddpm_eval.model.diffusion.Network`."""
        return self.network(x_t if self.dtype is None else x_t.to(self.dtype), timestep, *classes)

    @property
    def _own_variance(self) -> str:
        return TABLE if isinstance(self.trained_variance, Tensor) else self.trained_variance

    def _variance(self, name: str, clip: bool) -> ReverseVariance:
        if name == TABLE and isinstance(self.trained_variance, Tensor):
            return self.trained_variance.to(self.schedule.beta)
        if name == "optimal":
            if clip not in self.optimal_variance:
                raise ValueError(
                    "variance 'optimal' needs an estimate of the model's errors on training images first"
                )
            return torch.from_numpy(self.optimal_variance[clip]).to(self.schedule.beta)
        if name.startswith("learned") and name != self._own_variance:
            raise ValueError(
                f"variance {name!r} asked for, but this model was trained with {self._own_variance!r}"
            )
        return self.schedule.variance(name)  # type: ignore[arg-type] # one of the names of `Variance`
