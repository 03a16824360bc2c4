"""diffusers' own pipelines against the adapted model's samples, from one noise, and imported ones."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from other_projects import DIFFUSION, SHORT, diffusers, loaded_pipeline, run_spec, saved_pipeline
from same_noise import StepNoise, start_noise
from tiny import HERE

from ddpm_eval.adapters.diffusers import from_diffusers
from ddpm_eval.api.bounds import evaluate_bound
from ddpm_eval.api.samples import sample
from ddpm_eval.data.image_set import from_array
from ddpm_eval.data.pixels import to_pixels
from ddpm_eval.interchange.import_export import import_checkpoint
from ddpm_eval.metrics import bound as estimator
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.spec import DiffusionSpec
from ddpm_eval.stages.run import Run

T = 20
SHAPE = (3, 8, 8)
LABELS = np.array([2, 0, 1])
PIXELS = np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype(np.uint8)
CHAIN = {"num_train_timesteps": T, "beta_start": 1e-3, "beta_end": 0.5}


def make_network(**config):
    """Return a network that is not this project's: scale-shift blocks, other embeddings, several heads."""
    default = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 8,
        "resnet_time_scale_shift": "scale_shift",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return diffusers.UNet2DModel(**{**default, **config}).eval()


CONFIGURATIONS = {
    "default": ({}, {}),
    "v-prediction": ({}, {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"}),
    "sample": ({}, {"prediction_type": "sample", "variance_type": "fixed_large"}),
    "sigmoid": ({}, {"beta_schedule": "sigmoid", "clip_sample": False}),
    "trained betas": ({}, {"trained_betas": np.linspace(0.01, 0.3, T)}),
    "zero terminal signal": ({}, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    "learned range": ({"out_channels": 6}, {"variance_type": "learned_range"}),
    "other embeddings": ({"flip_sin_to_cos": False, "freq_shift": 1, "act_fn": "gelu"}, {}),
    "several heads": ({"attention_head_dim": 4, "mid_block_scale_factor": 2}, {}),
}


def made(name, **network):
    config, chain = CONFIGURATIONS[name]
    scheduler = diffusers.DDPMScheduler(**{**CHAIN, **chain})
    return make_network(**config, **network), scheduler


def in_model_range(images):
    """Return a pipeline's images, [0, 1] with the channels last, as those of a model."""
    return 2 * torch.from_numpy(images).permute(0, 3, 1, 2) - 1


def assert_same_samples(found, theirs):
    difference = found.images.astype(int) - to_pixels(theirs).numpy().astype(int)
    # pixels near the border of two levels are rounded to either
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 5e-3


def give_noise(monkeypatch, seed, module):
    """Give diffusers this project's noise of steps."""
    draw = StepNoise(seed, range(T - 1, 0, -1))
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: draw(torch.empty(shape)))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_samples_are_those_of_its_pipeline(name, monkeypatch):
    network, scheduler = made(name)
    theirs = diffusers.DDPMPipeline(network, scheduler)
    theirs.set_progress_bar_config(disable=True)
    model = from_diffusers(theirs)
    assert (model.shape, model.timesteps, model.conditional) == (SHAPE, T, False)
    found = sample(model, 3, seed=4, progress=False)
    pipelines = diffusers.pipelines.ddpm.pipeline_ddpm
    monkeypatch.setattr(pipelines, "randn_tensor", lambda shape, **_: start_noise(4, 3, tuple(shape[1:])))
    give_noise(monkeypatch, 4, diffusers.schedulers.scheduling_ddpm)
    images = theirs(batch_size=3, num_inference_steps=T, output_type="np").images
    assert_same_samples(found, in_model_range(images))


@pytest.mark.parametrize("kind", ["num_class_embeds", "timestep"])
def test_conditional_samples_are_those_of_its_scheduler(kind, monkeypatch):
    config = {"num_class_embeds": 3} if kind == "num_class_embeds" else {"class_embed_type": "timestep"}
    network, scheduler = made("learned range", **config)
    model = from_diffusers(network, scheduler)
    assert model.conditional
    found = sample(model, 3, labels=LABELS, seed=4, progress=False)
    give_noise(monkeypatch, 4, diffusers.schedulers.scheduling_ddpm)
    scheduler.set_timesteps(T)
    x = start_noise(4, 3, SHAPE)
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = network(x, t, class_labels=torch.from_numpy(LABELS)).sample
            x = scheduler.step(output, t, x).prev_sample
    assert_same_samples(found, x)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_deterministic_samples_are_those_of_its_ddim_pipeline(prediction, monkeypatch):
    """With evenly spaced times that end at T, which diffusers calls trailing."""
    scheduler = diffusers.DDIMScheduler(**CHAIN, prediction_type=prediction, timestep_spacing="trailing")
    theirs = diffusers.DDIMPipeline(make_network(), scheduler)
    theirs.set_progress_bar_config(disable=True)
    found = sample(from_diffusers(theirs), 3, method="ddim", num_steps=5, seed=4, progress=False)
    pipelines = diffusers.pipelines.ddim.pipeline_ddim
    monkeypatch.setattr(pipelines, "randn_tensor", lambda shape, **_: start_noise(4, 3, tuple(shape[1:])))
    images = theirs(
        batch_size=3, num_inference_steps=5, use_clipped_model_output=True, output_type="np"
    ).images
    assert_same_samples(found, in_model_range(images))


@pytest.mark.parametrize(
    ("name", "dtype"), [("paper", torch.float32), *((name, torch.float64) for name in DIFFUSION)]
)
def test_the_terms_are_those_of_the_imported_checkpoint(name, dtype, tmp_path):
    """To 1e-6 bits/dim for every image; where untrained networks have totals of 1e4, in double precision."""
    spec = run_spec("digits", **{**SHORT, **DIFFUSION[name]})
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8)).astype(np.uint8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        folder = saved_pipeline(tmp_path / "theirs", spec)
    theirs = loaded_pipeline(folder)
    theirs.unet.to(dtype)
    through = evaluate_bound(
        from_diffusers(theirs), pixels, protocol="exact", estimator="full", progress=False
    )
    read = import_checkpoint(folder, tmp_path / "run", data="digits")
    run = Run(tmp_path / "run", read, HERE)
    run.network.to(dtype)
    imported = replace(run.model(), dtype=dtype)
    (expected,) = estimator.evaluate_bound(imported, pixels, [through.terms.protocol])
    difference = through.terms.values()["total"] - expected.values()["total"]
    assert np.abs(difference).max() < 1e-6
    assert through.terms.variance == expected.variance


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("linear", "linear"), ("scaled_linear", "quadratic"), ("squaredcos_cap_v2", "cosine")],
)
def test_named_schedules_are_computed_in_double_precision(theirs, ours):
    scheduler = diffusers.DDPMScheduler(beta_schedule=theirs)
    chain = from_diffusers(make_network(), scheduler).chain
    expected = make_schedule(DiffusionSpec(schedule=ours))
    assert torch.equal(chain.alpha_bar, expected.alpha_bar)
    torch.testing.assert_close(chain.alpha_bar[1:].float(), scheduler.alphas_cumprod, rtol=2e-4, atol=0)


def test_a_scheduler_without_a_variance_leaves_it_to_the_network():
    scheduler = diffusers.DDIMScheduler(**CHAIN)
    assert from_diffusers(make_network(), scheduler).variance == "fixed-small"
    assert from_diffusers(make_network(out_channels=6), scheduler).variance == "learned-range"
    assert from_diffusers(make_network(), scheduler, variance="fixed-large").variance == "fixed-large"


def test_the_labels_of_images_reach_the_network():
    network, scheduler = made("default", num_class_embeds=3)
    model = from_diffusers(network, scheduler)
    own, other = (
        evaluate_bound(model, from_array(PIXELS, labels=labels), estimator="full", progress=False)
        for labels in (LABELS, np.array([2, 1, 1]))
    )
    same = [np.array_equal(own.terms.terms[i], other.terms.terms[i]) for i in range(3)]
    assert same == [True, False, True]


def latent_pipeline():
    return SimpleNamespace(vae=object(), unet=make_network(), scheduler=diffusers.DDPMScheduler())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: (latent_pipeline(),), "diffuses the latents of its vae"),
        (lambda: (object(),), "a object is neither a pipeline nor a network"),
        (
            lambda: (make_network(), diffusers.FlowMatchEulerDiscreteScheduler()),
            "a FlowMatchEulerDiscreteScheduler has no betas",
        ),
        (
            lambda: (make_network(), diffusers.DDPMScheduler(variance_type="fixed_large_log")),
            "variance_type is fixed_large_log, which has no counterpart here",
        ),
        (
            lambda: (make_network(), diffusers.DDPMScheduler(clip_sample_range=2.0)),
            "clip_sample_range is 2, but estimates are clipped to 1",
        ),
        (
            lambda: (make_network(class_embed_type="identity"), diffusers.DDPMScheduler()),
            "takes a condition other than a class",
        ),
        (
            lambda: (
                diffusers.UNet2DConditionModel(
                    block_out_channels=(16, 32),
                    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                    norm_num_groups=8,
                ),
                diffusers.DDPMScheduler(),
            ),
            "takes a condition other than a class .*cross_attention_dim 1280",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_diffusers(*make())
