"""A network with all that a measurement must know of it, and the same network under a protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ddpm_eval.model.diffusion import Network, ReverseProcess, ReverseVariance, Schedule
from ddpm_eval.protocol import Decoder, Protocol
from ddpm_eval.results.fields import Array
from ddpm_eval.spec import Prediction, Variance


@dataclass(frozen=True)
class ModelUnderProtocol:
    """A model as one protocol sees it: a reverse process with its variance, and a decoder."""

    process: ReverseProcess
    decoder: Decoder


@dataclass(frozen=True)
class Model:
    """A network with its noise schedule and the variance it was trained with.

    Attributes:
        network: maps ``x_t [batch, channels, side, side]`` and 0-based int64 times ``[batch]`` to the
            prediction.
        schedule: of the chain, on the network's device.
        prediction: what the network predicts.
        trained_variance: reverse variance that a protocol's ``trained`` stands for.
        dtype: of the network's input; None leaves the float64 of the arithmetic.
        optimal_variance: tables of sigma_t^2 indexed 0..T for a protocol's ``optimal``, by whether x_0
            estimates are clipped; see the function `optimal_variance`.
    """

    network: Network
    schedule: Schedule
    prediction: Prediction = "eps"
    trained_variance: Variance = "fixed-large"
    dtype: torch.dtype | None = torch.float32
    optimal_variance: Mapping[bool, Array] = field(default_factory=dict)

    def variance_name(self, protocol: Protocol) -> str:
        """Return the reverse variance that a protocol stands for with this model."""
        return self.trained_variance if protocol.variance == "trained" else protocol.variance

    def under(self, protocol: Protocol) -> ModelUnderProtocol:
        """Return the model under a protocol.

        Raises:
            ValueError: if the protocol's variance does not exist for this model.
        """
        variance = self._variance(self.variance_name(protocol), protocol.clip)
        process = ReverseProcess(self.evaluate, self.schedule, self.prediction, variance, protocol.clip)
        return ModelUnderProtocol(process, protocol.decoder)

    def evaluate(self, x_t: Tensor, timestep: Tensor) -> Tensor:
        """Evaluate the network on images of any floating type; see `ddpm_eval.model.diffusion.Network`."""
        return self.network(x_t if self.dtype is None else x_t.to(self.dtype), timestep)

    def _variance(self, name: str, clip: bool) -> ReverseVariance:
        if name == "optimal":
            if clip not in self.optimal_variance:
                raise ValueError(
                    "variance 'optimal' needs an estimate of the model's errors on training images first"
                )
            return torch.from_numpy(self.optimal_variance[clip]).to(self.schedule.beta)
        if name.startswith("learned") and name != self.trained_variance:
            raise ValueError(
                f"variance {name!r} asked for, but this model was trained with {self.trained_variance!r}"
            )
        return self.schedule.variance(name)  # type: ignore[arg-type] # one of the names of `Variance`
