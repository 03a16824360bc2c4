"""How fast this machine evaluates a run's network, from which the time of its stages is estimated."""

from time import monotonic

import torch

from ddpm_eval.model.diffusion import ReverseProcess
from ddpm_eval.spec import NamedNetwork
from ddpm_eval.stages.run import Run
from ddpm_eval.training.build import build_network, trained_process

LEAST_SECONDS = 0.5
"""Evaluate at least this long, after one batch that does not count."""


def evaluations_per_second(run: Run) -> float:
    """Measure how many images a run's network evaluates in a second, in the batches of its stages.

    Under torchrun it is the rate of all processes, each as fast as this one. A network of the project's own
    is measured with initial weights and without compilation.
    """
    process = _process(run)
    batch = run.batch_size
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(batch, *run.shape, generator=generator).to(run.runtime.arithmetic_device)
    t = torch.full((1,), process.schedule.timesteps, device=run.runtime.arithmetic_device)
    ids = torch.arange(batch, device=run.runtime.arithmetic_device)
    with torch.inference_mode(), run.runtime.evaluation_precision():
        process.evaluate(x_t, t, ids)
        _wait(run.runtime.device)
        began = monotonic()
        batches = 0
        while (elapsed := monotonic() - began) < LEAST_SECONDS or batches == 0:
            process.evaluate(x_t, t, ids)
            _wait(run.runtime.device)
            batches += 1
    return batches * batch * run.runtime.world_size / elapsed


def _process(run: Run) -> ReverseProcess:
    if isinstance(run.spec.network, NamedNetwork):
        return run.process()
    network = run.runtime.place(build_network(run.spec).eval(), run.spec.unet.base_channels)
    return trained_process(run.spec, network, clip=True)


def _wait(device: torch.device) -> None:
    """Wait for what a GPU has been asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
