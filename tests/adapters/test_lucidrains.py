"""denoising-diffusion-pytorch's own samples and losses against the adapted model's, from one noise."""

import math

import numpy as np
import pytest
import torch
from same_noise import StepNoise, other_package, start_noise
from torch import nn

from ddpm_eval.adapters.lucidrains import from_lucidrains
from ddpm_eval.api.bounds import evaluate_bound
from ddpm_eval.api.samples import sample
from ddpm_eval.data.image_set import from_array
from ddpm_eval.data.pixels import to_model_range, to_pixels
from ddpm_eval.protocol import Protocol
from ddpm_eval.randomness import Stream, normal

lucidrains = other_package("denoising_diffusion_pytorch", "denoising-diffusion-pytorch")
guidance = other_package(
    "denoising_diffusion_pytorch.classifier_free_guidance", "denoising-diffusion-pytorch"
)

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8)).astype(np.uint8)
LABELS = np.array([2, 0, 1])
SHAPE = (3, 8, 8)
T = 20


def randomised(network):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


@pytest.fixture(scope="module")
def network():
    return randomised(lucidrains.Unet(dim=8, dim_mults=(1, 2), channels=3))


@pytest.fixture(scope="module")
def learned_network():
    network = randomised(lucidrains.Unet(dim=8, dim_mults=(1, 2), channels=3, learned_variance=True))
    with torch.no_grad():  # near the upper end of the range: at t = 1 the lower one is 1e-20
        network.final_conv.weight[3:] *= 0.1
        network.final_conv.bias[3:] = 1.1
    return network


@pytest.fixture(scope="module")
def conditional_network():
    return randomised(guidance.Unet(dim=8, dim_mults=(1, 2), channels=3, num_classes=3))


def make_diffusion(network, objective="pred_noise", beta_schedule="cosine", kind=None, **options):
    kind = kind or lucidrains.GaussianDiffusion
    return kind(
        network, image_size=8, timesteps=T, objective=objective, beta_schedule=beta_schedule, **options
    ).eval()


OBJECTIVES = ["pred_noise", "pred_x0", "pred_v"]
SCHEDULES = ["cosine", "sigmoid"]  # its linear schedule needs more than 20 steps


def assert_same_samples(found, theirs):
    difference = found.images.astype(int) - to_pixels(2 * theirs - 1).numpy().astype(int)
    # pixels near the border of two levels are rounded to either
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 5e-3


@pytest.fixture
def same_noise(monkeypatch):
    """Give the package this project's noise: at the start and at each step."""

    def give(seed, times, n=3):
        monkeypatch.setattr(torch, "randn", lambda shape, **_: start_noise(seed, n, tuple(shape[1:])))
        monkeypatch.setattr(torch, "randn_like", StepNoise(seed, times))

    return give


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_samples_are_those_of_the_package(network, objective, schedule, same_noise):
    diffusion = make_diffusion(network, objective, schedule)
    model = from_lucidrains(diffusion)
    assert (model.shape, model.variance, model.conditional) == (SHAPE, "fixed-small", False)
    found = sample(model, 3, seed=4, progress=False)
    same_noise(4, range(T - 1, 0, -1))
    assert_same_samples(found, diffusion.p_sample_loop((3, *SHAPE)))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_deterministic_samples_are_those_of_the_package(network, objective, same_noise):
    """Its respaced times are 3, 7, 11, 15, 19 of 0..19: the evenly spaced ones here."""
    diffusion = make_diffusion(network, objective, sampling_timesteps=5)
    found = sample(from_lucidrains(diffusion), 3, method="ddim", num_steps=5, seed=4, progress=False)
    same_noise(4, range(T))
    assert_same_samples(found, diffusion.ddim_sample((3, *SHAPE)))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_squared_errors_are_those_of_its_loss(network, objective, schedule):
    """Its loss at (image, t) is the prediction's squared error times its weight: in x_0, over its slope."""
    diffusion = make_diffusion(network, objective, schedule)
    model = from_lucidrains(diffusion)
    found = evaluate_bound(model, PIXELS, protocol="exact", estimator="full", progress=False)
    x_0 = to_model_range(torch.from_numpy(PIXELS))
    for t in range(1, T + 1):
        eps = normal(0, Stream.BOUND, torch.arange(3), torch.tensor([t]), SHAPE, torch.float32)
        time = torch.full((3,), t - 1)
        with torch.no_grad():
            loss = diffusion.p_losses(x_0, time, noise=eps, loss_reduction="none")
        a = float(model.chain.alpha_bar[t])
        slope = {"pred_noise": (1 - a) / a, "pred_x0": 1.0, "pred_v": 1 - a}[objective]
        error = (loss / diffusion.loss_weight[t - 1] * slope).numpy()
        # x_t is diffused there in single precision: near t = 1, where 1 - alpha_bar is small, its digits are
        # those of 1 - alpha_bar in that precision
        np.testing.assert_allclose(found.terms.x_0_squared_error[:, t - 1], error, rtol=2e-4)


def test_a_learned_variance_has_the_terms_of_its_own_bound(learned_network):
    """The terms of its bound are what remains of its loss without the squared error, in bits/dim."""
    diffusion = make_diffusion(
        learned_network,
        kind=lambda model, **options: lucidrains.LearnedGaussianDiffusion(model, 1.0, **options),
    )
    model = from_lucidrains(diffusion)
    assert model.variance == "learned-range"
    protocol = Protocol(name="theirs", clip=False, decoder="tanh")
    found = evaluate_bound(model, PIXELS, protocol=protocol, estimator="full", progress=False)
    x_0 = to_model_range(torch.from_numpy(PIXELS))
    for t in range(1, T + 1):
        eps = normal(0, Stream.BOUND, torch.arange(3), torch.tensor([t]), SHAPE, torch.float32)
        time = torch.full((3,), t - 1)
        with torch.no_grad():
            total = diffusion.p_losses(x_0, time, noise=eps, loss_reduction="none")
            x_t = diffusion.q_sample(x_0, time, eps)
            simple = (learned_network(x_t, time)[:, :3] - eps).square().flatten(1).mean(1)
        terms = found.terms.terms[:, t - 1] * found.terms.bits_per_nat
        np.testing.assert_allclose(terms, (total - simple).numpy(), rtol=1e-3, atol=1e-5)


def test_samples_of_a_learned_variance_are_those_of_the_package(learned_network, same_noise):
    diffusion = make_diffusion(
        learned_network, kind=lambda model, **options: lucidrains.LearnedGaussianDiffusion(model, **options)
    )
    found = sample(from_lucidrains(diffusion), 3, seed=4, progress=False)
    same_noise(4, range(T - 1, 0, -1))
    assert_same_samples(found, diffusion.p_sample_loop((3, *SHAPE)))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_conditional_samples_are_those_without_guidance(
    conditional_network, objective, same_noise, monkeypatch
):
    diffusion = make_diffusion(conditional_network, objective, kind=guidance.GaussianDiffusion)
    model = from_lucidrains(diffusion)
    assert model.conditional
    found = sample(model, 3, labels=LABELS, seed=4, progress=False)
    forward = conditional_network.forward_with_cond_scale

    def pair(*arguments, **options):  # without guidance it returns one output where its sampler takes two
        logits = forward(*arguments, **options)
        return logits, logits

    monkeypatch.setattr(conditional_network, "forward_with_cond_scale", pair)
    same_noise(4, range(T - 1, 0, -1))
    theirs = diffusion.p_sample_loop(torch.from_numpy(LABELS), (3, *SHAPE), cond_scale=1.0, rescaled_phi=0.0)
    assert_same_samples(found, theirs)


def test_the_bound_of_a_conditional_network_is_that_of_its_classes(conditional_network):
    diffusion = make_diffusion(conditional_network, kind=guidance.GaussianDiffusion)
    model = from_lucidrains(diffusion)
    own, other = (
        evaluate_bound(model, from_array(PIXELS, labels=labels), estimator="full", progress=False)
        for labels in (LABELS, np.array([2, 1, 1]))
    )
    same = [np.array_equal(own.terms.terms[i], other.terms.terms[i]) for i in range(3)]
    assert same == [True, False, True]
    assert math.isfinite(own.total.value)


def test_what_has_no_such_bound_is_refused(learned_network):
    conditioned = lucidrains.Unet(dim=8, dim_mults=(1, 2), channels=3, self_condition=True)
    with pytest.raises(ValueError, match="its reverse process is no Markov chain"):
        from_lucidrains(make_diffusion(conditioned))
    other = make_diffusion(
        learned_network,
        "pred_x0",
        kind=lambda model, **options: lucidrains.LearnedGaussianDiffusion(model, **options),
    )
    with pytest.raises(ValueError, match="a learned variance with objective 'pred_x0'"):
        from_lucidrains(other)


def test_the_network_stays_in_its_mode(network):
    nn.Module.train(network)
    model = from_lucidrains(make_diffusion(network))
    network.train()
    sample(model, 1, progress=False)
    assert all(module.training for module in network.modules())
    network.eval()
