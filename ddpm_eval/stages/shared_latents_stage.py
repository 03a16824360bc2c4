"""Samples that share x_t at several times of one chain (Fig. 7), as a stage."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ddpm_eval.data.pixels import to_pixels
from ddpm_eval.metrics.work import Work
from ddpm_eval.model.respacing import evenly_spaced
from ddpm_eval.model.samplers import AncestralSampler, share_latent
from ddpm_eval.results.fields import Record
from ddpm_eval.results.records import SharedLatents
from ddpm_eval.stages.base import Stage, result_key
from ddpm_eval.stages.run import Run

CHAINS = 3
SAMPLES_PER_LATENT = 3
QUARTERS = 4
"""How many times there are: T, 3T/4, T/2 and T/4, as in the paper."""


@dataclass(frozen=True)
class SharedLatentsStage(Stage):
    """Several samples of p(x_0 | x_t) for the x_t of the first samples' chains at several times (Fig. 7)."""

    name = "shared-latents"
    record = SharedLatents

    def key(self, run: Run) -> str:
        """Return the digest of everything that the images depend on."""
        return result_key(run, *run.sampling_choices, "shared", self.times(run), CHAINS, SAMPLES_PER_LATENT)

    def obstacle(self, run: Run) -> str:
        """Return why samples cannot share a latent: with classes each would have another one."""
        if run.spec.is_conditional:
            return "the network is class-conditional, and samples of one latent would differ by class"
        return ""

    def network_evaluations(self, run: Run, planned: Sequence[Stage] = ()) -> int:
        """Return the evaluations of the chains down to the last x_t, and of all samples."""
        times = self.times(run)
        return CHAINS * (run.spec.diffusion.timesteps - times[-1] + SAMPLES_PER_LATENT * sum(times))

    def compute(self, run: Run, work: Work) -> Record | None:
        """Follow the chains, and draw the samples from each x_t, on the main process."""
        if not run.runtime.main:
            return None
        times = self.times(run)
        sampler = AncestralSampler(run.process(), run.spec.seed)
        ids = torch.arange(CHAINS, device=run.runtime.arithmetic_device)
        with run.runtime.evaluation_precision():
            latents, drawn = share_latent(sampler, ids, run.shape, times, SAMPLES_PER_LATENT, run.batch_size)
        return SharedLatents(
            t=np.array(times),
            x_t=to_pixels(torch.stack([latents[t] for t in times])).cpu().numpy(),
            images=to_pixels(torch.stack([drawn[t] for t in times])).cpu().numpy(),
        )

    def times(self, run: Run) -> list[int]:
        """Return the times at which x_t is shared, decreasing."""
        timesteps = run.spec.diffusion.timesteps
        return evenly_spaced(timesteps, min(QUARTERS, timesteps))[::-1]
