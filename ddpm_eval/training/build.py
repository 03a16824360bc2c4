"""The network and the reverse process that a specification describes."""

from torch import nn

from ddpm_eval.model.diffusion import ReverseProcess, make_schedule
from ddpm_eval.model.unet import UNet
from ddpm_eval.runtime import arithmetic_device
from ddpm_eval.spec import RunSpec


def build_network(spec: RunSpec, seed: int = 0) -> UNet:
    """Return the run's network, its weights initialised from ``seed``."""
    return UNet(spec.unet, spec.data.channels, spec.data.side, spec.out_channels, seed=seed)


def trained_process(spec: RunSpec, network: nn.Module, *, clip: bool) -> ReverseProcess:
    """Return p_theta with the reverse variance that the run trains with, for a network on its device.

    Args:
        spec: the run.
        network: the run's network, compiled or distributed as may be.
        clip: whether estimates of x_0 are clipped to [-1, 1], see `ReverseProcess`.
    """
    diffusion = spec.diffusion
    schedule = make_schedule(diffusion).to(arithmetic_device(next(network.parameters()).device))
    variance = schedule.variance(diffusion.variance_name)
    return ReverseProcess(network, schedule, diffusion.prediction, variance, clip)
