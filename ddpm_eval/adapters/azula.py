"""azula's denoisers as chains.

A denoiser estimates x_0 from ``alpha(t) x_0 + sigma(t) eps`` at a continuous time t in [0, 1]. At the times
k / T it is a chain with alpha_bar_k = alpha^2 / (alpha^2 + sigma^2), whose x_k is azula's divided by
sqrt(alpha^2 + sigma^2). The ancestral sampler with variance ``fixed-small`` is azula's ``DDPMSampler``, and
DDIM its ``DDIMSampler``, but for the last step: here it ends at x_0 itself, there at the noise sigma(0).

Source: github.com/francois-rozet/azula, denoise.py, noise.py and sample.py.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from ddpm_eval.api.network_model import Model
from ddpm_eval.model.chains import chain_of_alpha_bar
from ddpm_eval.spec import Variance


class Posterior(Protocol):
    """What a denoiser returns."""

    @property
    def mean(self) -> Tensor:
        """The estimate of x_0."""


class Denoiser(Protocol):
    """What an ``azula.denoise.Denoiser`` is."""

    @property
    def schedule(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """The function from times to alpha and sigma."""

    def __call__(self, x_t: Tensor, t: Tensor, **classes: Tensor) -> Posterior:
        """Return the posterior of x_0."""


class DenoiserAtTimes(nn.Module):
    """A denoiser as a network ``network(x_t, t)`` that predicts x_0.

    Args:
        denoiser: of azula.
        time: azula's time of each step, ``[T]``.
        scale: what turns a chain's x_t into azula's, ``[T]``.
        class_argument: name of the denoiser's argument for classes.
    """

    def __init__(self, denoiser: Denoiser, time: Tensor, scale: Tensor, class_argument: str | None) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.time = time
        self.scale = scale
        self.class_argument = class_argument

    def forward(self, x_t: Tensor, t: Tensor, *classes: Tensor) -> Tensor:
        """Return the estimate of x_0."""
        time = self.time.to(x_t.device)[t].to(x_t.dtype)
        scale = self.scale.to(x_t.device)[t].to(x_t.dtype).reshape(-1, 1, 1, 1)
        given = {} if self.class_argument is None else {self.class_argument: classes[0]}
        return self.denoiser(scale * x_t, time, **given).mean


def from_azula(
    denoiser: Denoiser,
    *,
    timesteps: int = 1000,
    variance: Variance | Tensor = "fixed-small",
    shape: tuple[int, int, int] | None = None,
    class_argument: str | None = None,
) -> Model:
    """Return a denoiser of azula as a model on the chain of evenly spaced times.

    Example:
        >>> model = ddpm_eval.from_azula(denoiser, timesteps=100)
        >>> ddpm_eval.evaluate_bound(model, images, progress=False).terms.num_steps
        100

    Args:
        denoiser: an ``azula.denoise.Denoiser`` for images in [-1, 1].
        timesteps: T.
        variance: of the reverse process; ``fixed-small`` is that of azula's ``DDPMSampler``.
        shape: channels, rows and columns of an image.
        class_argument: of a class-conditional denoiser the name of its argument for classes, such as
            ``label``.

    Raises:
        ValueError: if the signal does not fade from each time to the next.
    """
    time = torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps
    alpha, sigma = denoiser.schedule(time)
    power = alpha.square() + sigma.square()
    return Model(
        DenoiserAtTimes(denoiser, time, power.sqrt(), class_argument),
        predicts="x0",
        variance=variance,
        schedule=chain_of_alpha_bar(alpha.square() / power),
        conditional=class_argument is not None,
        shape=shape,
        clip_samples=False,
        verify_times=False,
    )
