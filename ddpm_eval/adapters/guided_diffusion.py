"""Models of openai/improved-diffusion and openai/guided-diffusion, evaluated by their own package.

Both keep what a network predicts, its variance and its chain in a ``GaussianDiffusion``; a
``SpacedDiffusion`` is a shorter chain of another one, whose network is given the times of the longer one. All
of it is taken as it is, in double precision; the bound under protocol ``paper`` is their ``calc_bpd_loop``.

Source: Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021;
github.com/openai/guided-diffusion, gaussian_diffusion.py and respace.py.
"""

from enum import Enum
from typing import Protocol

import torch
from torch import Tensor, nn

from ddpm_eval.api.network_model import Model
from ddpm_eval.model.chains import chain_of_beta
from ddpm_eval.model.diffusion import Predicted, Schedule
from ddpm_eval.results.fields import Array
from ddpm_eval.spec import Variance

PREDICTIONS: dict[str, Predicted] = {"PREVIOUS_X": "mu", "START_X": "x0", "EPSILON": "eps"}
VARIANCES: dict[str, Variance] = {
    "LEARNED": "learned",
    "FIXED_SMALL": "fixed-small",
    "FIXED_LARGE": "fixed-large",
    "LEARNED_RANGE": "learned-range",
}
LONGEST_CHAIN = 1000.0
"""The length of the chain to which rescaled times belong."""


class Diffusion(Protocol):
    """What a ``GaussianDiffusion`` or ``SpacedDiffusion`` is."""

    betas: Array
    model_mean_type: Enum
    model_var_type: Enum
    rescale_timesteps: bool


class RescaledNetwork(nn.Module):
    """A network as ``network(x_t, t)`` whose times are scaled and whose classes are the argument ``y``.

    Args:
        network: a ``UNetModel``.
        scale: factor of the times; None leaves them integers.
    """

    def __init__(self, network: nn.Module, scale: float | None) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, x_t: Tensor, t: Tensor, *classes: Tensor) -> Tensor:
        """Return the network's prediction."""
        time = t if self.scale is None else t.float() * self.scale
        return self.network(x_t, time, **({"y": classes[0]} if classes else {}))


def from_guided_diffusion(
    network: nn.Module, diffusion: Diffusion, *, shape: tuple[int, int, int] | None = None
) -> Model:
    """Return a model of improved-diffusion or guided-diffusion.

    Example:
        >>> model = ddpm_eval.from_guided_diffusion(network, diffusion)
        >>> model.timesteps == len(diffusion.betas)
        True

    Args:
        network: the ``UNetModel``, the first of what ``create_model_and_diffusion`` returns.
        diffusion: its ``GaussianDiffusion`` or ``SpacedDiffusion``, the second.
        shape: channels, rows and columns of an image; None takes the network's ``in_channels`` and
            ``image_size``, if it has them.

    Raises:
        ValueError: if the betas are not those of a chain.
    """
    chain = chain_of_beta(torch.as_tensor(diffusion.betas, dtype=torch.float64))
    kept = getattr(diffusion, "timestep_map", None)
    if kept is not None:
        chain = Schedule(chain.beta, chain.alpha_bar, torch.tensor([-1, *kept]))
    length = getattr(diffusion, "original_num_steps", chain.timesteps)
    scale = LONGEST_CHAIN / length if diffusion.rescale_timesteps else None
    side = getattr(network, "image_size", None)
    if shape is None and isinstance(side, int):
        shape = (int(getattr(network, "in_channels", 3)), side, side)
    return Model(
        RescaledNetwork(network, scale),
        predicts=PREDICTIONS[diffusion.model_mean_type.name],
        variance=VARIANCES[diffusion.model_var_type.name],
        schedule=chain,
        conditional=getattr(network, "num_classes", None) is not None,
        shape=shape,
        verify_times=False,
    )
