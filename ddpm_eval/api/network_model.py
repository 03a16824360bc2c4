"""Any network as a diffusion model that can be measured and sampled.

A `Model` says of a network what no measurement can find out: what it predicts, its noise schedule and its
reverse variance. Networks see images in [-1, 1], as ``x_t [batch, channels, side, side]`` of their own dtype
on their own device, with 0-based int64 times ``[batch]`` and, if they are class-conditional, int64 classes
``[batch]``. The arithmetic around the network is float64.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from ddpm_eval.metrics import measured_model
from ddpm_eval.model.chains import chain_of_table
from ddpm_eval.model.diffusion import Network, Predicted, Schedule, make_schedule
from ddpm_eval.model.respacing import evenly_spaced, no_fewer_steps
from ddpm_eval.results.fields import Array
from ddpm_eval.runtime import arithmetic_device
from ddpm_eval.spec import DiffusionSpec, ScheduleName, Spacing, Variance

DEFAULT_TIMESTEPS = 1000
UNTIL_PURE_NOISE = ("x0", "mu", "v")
"""Predictions from which x_0 can be estimated even where nothing of it is left in x_t."""


@dataclass(eq=False)
class Model:
    """A network with what it predicts, its noise schedule and its reverse variance.

    Example:
        >>> import torch, ddpm_eval
        >>> network = lambda x_t, t: torch.zeros_like(x_t)
        >>> ddpm_eval.Model(network, predicts="eps", schedule="cosine", timesteps=100).timesteps
        100

    Attributes:
        network: a module or function ``network(x_t, t)``, or ``network(x_t, t, y)`` if it is conditional. It
            returns the prediction, shaped like ``x_t``; with a learned variance it has twice the channels,
            of which the second half belongs to the variance.
        predicts: ``eps`` (the noise), ``x0``, ``mu`` (the mean of x_{t-1}), ``v`` (Salimans and Ho, 2022) or
            ``score`` (the gradient of log q(x_t)).
        variance: of the reverse process: ``fixed-large`` (beta_t), ``fixed-small`` (beta_tilde_t),
            ``learned`` (its logarithm), ``learned-range`` (Nichol and Dhariwal, 2021, Eq. 15), or a table of
            sigma_t^2, ``[T]`` with index 0 for t = 1.
        schedule: ``linear``, ``quadratic``, ``constant`` or ``cosine``, or a table ``[T]`` of alpha_bar
            (strictly decreasing) or of beta, or a `Schedule`.
        timesteps: T; 1000 for a named schedule, the length of any other.
        conditional: whether the network takes classes.
        shape: channels, rows and columns of an image, which `sample` needs. If it is None, the first
            `evaluate_bound` fills it in.
        clip_samples: whether samples are drawn with estimates of x_0 clipped to [-1, 1].
        device: of the network; None takes that of its parameters, and the CPU if it has none.
        dtype: of the network's input; None takes that of its parameters, and float32 if it has none.
        verify_times: whether `evaluate_bound` checks that the network counts times from 0.

    Raises:
        ValueError: if a choice does not exist, or choices do not suit each other.

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, sections 2 and 3.
    """

    network: Network = field(repr=False)
    predicts: Predicted = "eps"
    variance: Variance | Tensor | Array = "fixed-large"
    schedule: ScheduleName | Schedule | Tensor | Array = field(default="linear", repr=False)
    timesteps: int | None = None
    conditional: bool = False
    shape: tuple[int, int, int] | None = None
    clip_samples: bool = True
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None
    verify_times: bool = True
    chain: Schedule = field(init=False, repr=False)

    def __post_init__(self) -> None:
        own = _floating_tensor(self.network)
        device = torch.device(self.device or ("cpu" if own is None else own.device))
        self.device = device
        self.dtype = self.dtype or (torch.float32 if own is None else own.dtype)
        _check_name("predicts", self.predicts, get_args(Predicted))
        self.chain = _chain(self.schedule, self.timesteps).to(arithmetic_device(device))
        self.timesteps = self.chain.timesteps
        if isinstance(self.variance, str):
            _check_name("variance", self.variance, get_args(Variance))
        else:
            _variance_table(self.variance, self.timesteps)
        if float(self.chain.alpha_bar[-1]) == 0 and self.predicts not in UNTIL_PURE_NOISE:
            raise ValueError(
                f"alpha_bar is 0 at t = T, where {self.predicts} says nothing of x_0 (a schedule with zero "
                f"terminal signal needs one of {', '.join(UNTIL_PURE_NOISE)})"
            )

    def check_shape(self, found: tuple[int, int, int]) -> None:
        """Raise ValueError if images of this shape are of another one than the model's, as far as known."""
        if self.shape is not None and tuple(self.shape) != found:
            expected, other = ("x".join(map(str, shape)) for shape in (self.shape, found))
            raise ValueError(
                f"the model is of images of {expected}, but these have {other} (of another data set?)"
            )

    def respaced(self, steps: int | Sequence[int], spacing: Spacing = "trailing") -> "Model":
        """Return the model on a chain of fewer steps.

        Args:
            steps: their number, or two or more increasing times in 1..T.
            spacing: of a number of steps: ``trailing`` (the last time is T), ``leading`` (the first is 1,
                and the last before T) or ``linspace`` (from 1 to T), as in diffusers.

        Raises:
            ValueError: if they are no such steps, or the network knows its own chain only.
        """
        obstacle = no_fewer_steps(self.predicts, self.variance if isinstance(self.variance, str) else "table")
        if obstacle:
            raise ValueError(obstacle)
        assert self.timesteps is not None
        _check_name("spacing", spacing, get_args(Spacing))
        times = evenly_spaced(self.timesteps, steps, spacing) if isinstance(steps, int) else list(steps)
        return replace(self, schedule=self.chain.respaced(times), timesteps=None)

    @contextmanager
    def evaluating(self) -> Iterator[measured_model.Model]:
        """Give the model in the form of the estimators, its network in evaluation mode in the block."""
        modules = list(self.network.modules()) if isinstance(self.network, nn.Module) else []
        training = [module for module in modules if module.training]
        for module in training:
            module.training = False
        try:
            yield self.measured()
        finally:
            for module in training:
                module.training = True

    def measured(self) -> measured_model.Model:
        """Return the model in the form of the estimators, its network as it is."""
        assert isinstance(self.device, torch.device) and self.dtype is not None
        if isinstance(self.variance, str):
            variance: Variance | Tensor = self.variance
            learned = self.variance.startswith("learned")
        else:
            variance = _variance_table(self.variance, self.chain.timesteps).to(self.chain.beta)
            learned = False
        network = CheckedNetwork(self.network, self.device, self.dtype, learned)
        return measured_model.Model(
            network, self.chain, self.predicts, variance, dtype=None, conditional=self.conditional
        )


@dataclass(frozen=True)
class CheckedNetwork:
    """A network with its inputs brought to it and its output checked.

    Attributes:
        network: see `Model`.
        device: of the network.
        dtype: of its input.
        learned: whether the output has the variance's channels, too.
    """

    network: Network
    device: torch.device
    dtype: torch.dtype
    learned: bool

    def __call__(self, x_t: Tensor, timestep: Tensor, *classes: Tensor) -> Tensor:
        """Evaluate the network at times of shape ``[batch]`` or ``[1]``.

        Raises:
            ValueError: if the output is no tensor, or its shape is not that of a prediction.
        """
        times = timestep.expand(len(x_t)).to(self.device)
        given = [y.to(self.device) for y in classes]
        output = self.network(x_t.to(self.device, self.dtype), times, *given)
        self._check(output, x_t)
        return output.to(x_t.device)

    def _check(self, output: object, x_t: Tensor) -> None:
        if not isinstance(output, Tensor):
            raise ValueError(
                f"the network returned a {type(output).__name__}, not a tensor (wrap it in a function that "
                "returns its tensor, or take one of the adapters)"
            )
        batch, channels, *sides = x_t.shape
        needed = (batch, channels * (2 if self.learned else 1), *sides)
        if output.shape == needed:
            return
        if output.shape == (batch, 2 * channels, *sides):
            hint = "does it learn its variance? say variance='learned-range' or 'learned'"
        elif output.shape == x_t.shape:
            hint = "a learned variance is the second half of the channels; is it fixed?"
        else:
            hint = "a network for other images?"
        raise ValueError(
            f"the network's output has shape {list(output.shape)}, but images of shape {list(x_t.shape)} "
            f"need {list(needed)} ({hint})"
        )


def _floating_tensor(network: Network) -> Tensor | None:
    """Return the first floating parameter or buffer of a module."""
    if not isinstance(network, nn.Module):
        return None
    tensors = [*network.parameters(), *network.buffers()]
    return next((tensor for tensor in tensors if tensor.is_floating_point()), None)


def _check_name(what: str, name: str, allowed: Sequence[str]) -> None:
    if name not in allowed:
        raise ValueError(f"{what} is {name!r}, but must be one of {', '.join(allowed)}")


def _chain(schedule: ScheduleName | Schedule | Tensor | Array, timesteps: int | None) -> Schedule:
    if isinstance(schedule, str):
        _check_name("schedule", schedule, get_args(ScheduleName))
        return make_schedule(DiffusionSpec(schedule=schedule, timesteps=timesteps or DEFAULT_TIMESTEPS))
    chain = schedule if isinstance(schedule, Schedule) else chain_of_table(torch.as_tensor(schedule))
    if timesteps not in (None, chain.timesteps):
        raise ValueError(f"timesteps is {timesteps}, but the schedule has {chain.timesteps}")
    return chain


def _variance_table(variance: Tensor | Array, timesteps: int) -> Tensor:
    """Return a table of sigma_t^2 indexed 0..T from one that begins at t = 1."""
    table = torch.as_tensor(variance).double()
    if table.shape != (timesteps,) or not (torch.isfinite(table) & (table > 0)).all():
        raise ValueError(
            f"a table of variances must be {timesteps} positive numbers, one for each step, but has shape "
            f"{list(table.shape)}{'' if table.shape != (timesteps,) else ' and others in it'}"
        )
    return torch.cat([torch.full_like(table[:1], np.nan), table])
