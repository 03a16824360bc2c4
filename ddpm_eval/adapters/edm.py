"""EDM-style networks D(x; sigma) as a chain.

D estimates x_0 from x_0 + sigma eps. A chain's x_t is that image times sqrt(alpha_bar_t), with the noise
level sigma_t = sqrt((1 - alpha_bar_t) / alpha_bar_t):

    x_0_hat = D(x_t / sqrt(alpha_bar_t); sigma_t).

The levels may be any that increase; by default they are EDM's own, Eq. 5, of which there are as many as the
chain has steps. The ancestral sampler with variance ``fixed-small`` is then the ancestral Euler sampler, and
DDIM the deterministic one.

Source: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models",
NeurIPS 2022.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ddpm_eval.api.network_model import Model
from ddpm_eval.model.chains import chain_of_sigma
from ddpm_eval.spec import Variance

Denoiser = Callable[..., Tensor]
"""D(x, sigma) or D(x, sigma, classes): images ``[batch, channels, side, side]`` and levels ``[batch]``."""

TIMESTEPS = 1000


class DenoiserAtLevels(nn.Module):
    """A denoiser as a network ``network(x_t, t)`` that predicts x_0.

    Args:
        denoiser: D(x, sigma), or D(x, sigma, classes).
        sigma: level of each time, increasing, ``[T]``.
        encode: how classes ``[batch]`` are given to the denoiser; None gives them as they are.
    """

    def __init__(
        self, denoiser: Denoiser, sigma: Tensor, encode: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.sigma = sigma
        self.encode = encode

    def forward(self, x_t: Tensor, t: Tensor, *classes: Tensor) -> Tensor:
        """Return the estimate of x_0."""
        sigma = self.sigma.to(x_t.device)[t]
        scale = (1 + sigma.double().square()).sqrt().to(x_t.dtype).reshape(-1, 1, 1, 1)
        given = [y if self.encode is None else self.encode(y) for y in classes]
        return self.denoiser(scale * x_t, sigma.to(x_t.dtype), *given)


def edm_levels(
    timesteps: int = TIMESTEPS, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Tensor:
    """Return EDM's noise levels in increasing order, float64 ``[timesteps]`` (Eq. 5).

    Args:
        timesteps: their number.
        sigma_min: the smallest level, that of t = 1.
        sigma_max: the largest level, that of t = T.
        rho: how much denser small levels are.
    """
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.linspace(low, high, timesteps, dtype=torch.float64) ** rho


def from_edm(
    denoiser: Denoiser,
    *,
    sigma: Tensor | None = None,
    variance: Variance | Tensor = "fixed-small",
    shape: tuple[int, int, int] | None = None,
) -> Model:
    """Return an EDM-style network as a model on the chain of its noise levels.

    Example:
        >>> denoiser = lambda x, sigma: x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)  # of standard normal x_0
        >>> model = ddpm_eval.from_edm(denoiser, shape=(1, 8, 8))
        >>> ddpm_eval.sample(model, 2, progress=False).num_steps
        1000

    Args:
        denoiser: D(x, sigma), for images in [-1, 1]: in EDM's code a network with preconditioning, such as
            ``EDMPrecond``. With a ``label_dim`` above 0 it is class-conditional: it is given one-hot
            classes as its third argument, as in EDM's code.
        sigma: levels of the chain, increasing, ``[T]``; None takes `edm_levels`.
        variance: of the reverse process; ``fixed-small`` is that of the ancestral sampler.
        shape: channels, rows and columns of an image; None takes the denoiser's ``img_channels`` and
            ``img_resolution``, if it has them.

    Raises:
        ValueError: if the levels do not increase.
    """
    levels = edm_levels() if sigma is None else sigma
    classes = int(getattr(denoiser, "label_dim", 0) or 0)

    def one_hot(y: Tensor) -> Tensor:
        return nn.functional.one_hot(y, classes).float()

    side = getattr(denoiser, "img_resolution", None)
    if shape is None and side is not None:
        shape = (int(getattr(denoiser, "img_channels", 3)), int(side), int(side))
    return Model(
        DenoiserAtLevels(denoiser, levels, one_hot if classes else None),
        predicts="x0",
        variance=variance,
        schedule=chain_of_sigma(levels),
        conditional=classes > 0,
        shape=shape,
        clip_samples=False,
        verify_times=False,
    )
