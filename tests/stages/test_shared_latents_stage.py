"""Samples that share x_t: of the chains of the first samples, drawn by the main process."""

import numpy as np
import torch
from counted_run import bring_about, names
from tiny import TINY
from two_processes import side_by_side, together

from ddpm_eval.data.pixels import to_pixels
from ddpm_eval.model.samplers import AncestralSampler, share_latent
from ddpm_eval.results.records import SharedLatents
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.shared_latents_stage import CHAINS, SAMPLES_PER_LATENT, SharedLatentsStage

T = TINY.diffusion.timesteps


def test_the_quarters_of_the_chain_are_shared(run):
    stage = bring_about(run, SharedLatentsStage())
    found = run.results.get("shared-latents", SharedLatents)
    assert found.t.tolist() == [20, 15, 10, 5]
    assert found.x_t.shape == (4, CHAINS, 1, 8, 8)
    assert found.images.shape == (4, CHAINS, SAMPLES_PER_LATENT, 1, 8, 8)
    assert run.evaluations == stage.network_evaluations(run) == CHAINS * (15 + SAMPLES_PER_LATENT * 50)


def test_the_images_are_those_of_the_sampler(run):
    bring_about(run, SharedLatentsStage())
    found = run.results.get("shared-latents", SharedLatents)
    sampler = AncestralSampler(run.process(), run.spec.seed)
    times, ids = found.t.tolist(), torch.arange(CHAINS)
    latents, drawn = share_latent(sampler, ids, run.shape, times, SAMPLES_PER_LATENT, run.batch_size)
    for position, t in enumerate(times):
        np.testing.assert_array_equal(found.x_t[position], to_pixels(latents[t]).numpy())
        np.testing.assert_array_equal(found.images[position], to_pixels(drawn[t]).numpy())


def test_only_the_main_process_draws_them(run):
    both = together(run)
    side_by_side(lambda process: ensure(SharedLatentsStage(), process), both)
    assert both[0].evaluations > 0 and both[1].evaluations == 0
    assert "shared-latents" in names(run)
