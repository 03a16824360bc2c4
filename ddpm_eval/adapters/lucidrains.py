"""Models of lucidrains' denoising-diffusion-pytorch: any ``GaussianDiffusion``, learned or with classes.

Its tables are float32; the chain is computed from its betas in double precision. Its reverse variance is
``fixed-small``, and ``learned-range`` in ``LearnedGaussianDiffusion``, whose lower end at t = 1 is the
logarithm of 1e-20 instead of that of beta_tilde_2: the network's head is converted there. Networks see images
in [-1, 1], as they do in that package with ``auto_normalize``.

Source: github.com/lucidrains/denoising-diffusion-pytorch, denoising_diffusion_pytorch.py,
learned_gaussian_diffusion.py and classifier_free_guidance.py.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from ddpm_eval.api.network_model import Model
from ddpm_eval.model.chains import chain_of_beta
from ddpm_eval.model.diffusion import Predicted, Schedule

PREDICTIONS: dict[str, Predicted] = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}
LOWEST_LOG_VARIANCE = math.log(1e-20)
"""The lower end of its learned range at t = 1."""


class Diffusion(Protocol):
    """What a ``GaussianDiffusion`` is."""

    model: nn.Module
    objective: str
    betas: Tensor
    channels: int
    image_size: int | tuple[int, int]


class LearnedRangeNetwork(nn.Module):
    """A network whose variance's head at t = 1 belongs to a range that begins elsewhere.

    Args:
        network: of two heads, the second in [-1, 1] for the range of the logarithms of the variance.
        schedule: of the chain.
    """

    def __init__(self, network: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.network = network
        self.low = float(schedule.beta_tilde[2].log())
        self.high = float(schedule.beta[1].log())

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the network's output with its head at t = 1 on the range from beta_tilde_2 to beta_1."""
        output = self.network(x_t, t)
        prediction, head = output.chunk(2, dim=1)
        log_variance = LOWEST_LOG_VARIANCE + (head + 1) / 2 * (self.high - LOWEST_LOG_VARIANCE)
        converted = 2 * (log_variance - self.low) / (self.high - self.low) - 1
        first = (t == 0).reshape(-1, 1, 1, 1)
        return torch.cat([prediction, torch.where(first, converted, head)], dim=1)


class ClassConditionalNetwork(nn.Module):
    """A network of classifier-free guidance without guidance, that is with its condition always kept."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Return the prediction given the classes."""
        return self.network(x_t, t, y, cond_drop_prob=0.0)


def from_lucidrains(diffusion: Diffusion) -> Model:
    """Return a ``GaussianDiffusion`` of denoising-diffusion-pytorch as a model.

    Example:
        >>> model = ddpm_eval.from_lucidrains(diffusion)
        >>> model.predicts, model.variance, model.shape
        ('v', 'fixed-small', (3, 8, 8))

    Args:
        diffusion: a ``GaussianDiffusion``, a ``LearnedGaussianDiffusion``, or the ``GaussianDiffusion`` of
            ``classifier_free_guidance``, which is measured without guidance (a cond_scale of 1).

    Raises:
        ValueError: if the network conditions on its own estimates (self_condition), so that its reverse
            process is no Markov chain, or a learned variance comes with another prediction than the noise.
    """
    if getattr(diffusion.model, "self_condition", False):
        raise ValueError(
            "the network conditions on its own estimate of x_0 (self_condition): its reverse process is no "
            "Markov chain, so that it has no such bound"
        )
    learned = hasattr(diffusion, "vb_loss_weight")
    if learned and diffusion.objective != "pred_noise":
        raise ValueError(
            f"a learned variance with objective {diffusion.objective!r}: the package's own sampler takes the "
            "prediction for the noise"
        )
    conditional = hasattr(diffusion.model, "classes_emb")
    chain = chain_of_beta(diffusion.betas.double())
    network: nn.Module = diffusion.model
    if learned:
        network = LearnedRangeNetwork(network, chain)
    elif conditional:
        network = ClassConditionalNetwork(network)
    size = diffusion.image_size
    rows, columns = (size, size) if isinstance(size, int) else size
    return Model(
        network,
        predicts=PREDICTIONS[diffusion.objective],
        variance="learned-range" if learned else "fixed-small",
        schedule=chain,
        conditional=conditional,
        shape=(diffusion.channels, rows, columns),
        verify_times=False,
    )
