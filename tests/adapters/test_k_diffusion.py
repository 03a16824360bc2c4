"""k-diffusion's own samples and losses against the adapted model's, from one noise."""

import numpy as np
import pytest
import torch
from same_noise import StepNoise, start_noise, without_init
from torch import nn

from ddpm_eval.adapters.edm import edm_levels
from ddpm_eval.adapters.k_diffusion import from_k_diffusion
from ddpm_eval.api.bounds import evaluate_bound
from ddpm_eval.api.network_model import Model
from ddpm_eval.api.samples import sample
from ddpm_eval.data.image_set import from_array
from ddpm_eval.data.pixels import to_model_range, to_pixels
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.randomness import Stream, normal
from ddpm_eval.spec import DiffusionSpec

INSTALL = "--no-deps k-diffusion torchdiffeq torchsde trampoline"
external = without_init("k_diffusion", "external", INSTALL)
sampling = without_init("k_diffusion", "sampling", INSTALL)

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8)).astype(np.uint8)
LABELS = np.array([2, 0, 1])
SHAPE = (3, 8, 8)
T = 20
SCHEDULE = make_schedule(DiffusionSpec(schedule="cosine", timesteps=T))


class Network(nn.Module):
    """A network of k-diffusion's interface: ``model(x, t)`` or ``model(x, t, class_cond=...)``."""

    def __init__(self, heads=1):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3 * heads, 3, padding=1)

    def forward(self, x, t, class_cond=None):
        shift = 0 if class_cond is None else class_cond.reshape(-1, 1, 1, 1)
        return torch.tanh(self.convolution(x) + 0.1 * t.reshape(-1, 1, 1, 1) + shift)


def make_denoiser(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        alpha_bar = SCHEDULE.alpha_bar[1:].float()
        match name:
            case "eps":
                return external.DiscreteEpsDDPMDenoiser(Network(), alpha_bar, quantize=False)
            case "v":
                return external.DiscreteVDDPMDenoiser(Network(), alpha_bar, quantize=True)
            case "openai":

                class Diffusion:
                    alphas_cumprod = SCHEDULE.alpha_bar[1:].numpy()

                return external.OpenAIDenoiser(Network(2), Diffusion())
            case "continuous v":
                return external.VDenoiser(Network())


NAMES = ["eps", "v", "openai", "continuous v"]


def adapted(name, **options):
    denoiser = make_denoiser(name)
    sigma = edm_levels(T) if name == "continuous v" else None
    return denoiser, from_k_diffusion(denoiser, sigma=sigma, shape=SHAPE, **options)


def levels_of(model):
    """Return the levels of a model's chain as k-diffusion's samplers take them: down to 0."""
    alpha_bar = model.chain.alpha_bar.flip(0)
    return ((1 - alpha_bar) / alpha_bar).sqrt().float()


def assert_same_samples(found, theirs):
    difference = found.images.astype(int) - to_pixels(theirs).numpy().astype(int)
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 5e-3


@pytest.mark.parametrize("name", NAMES)
def test_ancestral_samples_are_those_of_sample_euler_ancestral(name):
    denoiser, model = adapted(name)
    found = sample(model, 3, seed=4, progress=False)
    levels = levels_of(model)
    draw = StepNoise(4, range(T - 1, 0, -1))
    x = start_noise(4, 3, SHAPE) * (1 + levels[0] ** 2).sqrt()
    with torch.no_grad():
        theirs = sampling.sample_euler_ancestral(
            denoiser, x, levels, disable=True, noise_sampler=lambda *_: draw(x)
        )
    assert_same_samples(found, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_deterministic_samples_are_those_of_sample_euler(name):
    denoiser, model = adapted(name)
    found = sample(model, 3, method="ddim", seed=4, progress=False)
    levels = levels_of(model)
    x = start_noise(4, 3, SHAPE) * (1 + levels[0] ** 2).sqrt()
    with torch.no_grad():
        theirs = sampling.sample_euler(denoiser, x, levels, disable=True)
    assert_same_samples(found, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_squared_errors_are_those_of_its_loss(name):
    """Its loss is that of eps or v at ``x_0 + sigma eps``: in x_0, times sigma^2 or its c_out^2."""
    denoiser, model = adapted(name)
    found = evaluate_bound(model, PIXELS, protocol="exact", estimator="full", progress=False)
    x_0 = to_model_range(torch.from_numpy(PIXELS))
    for t, sigma in enumerate(levels_of(model).flip(0)[1:], start=1):
        eps = normal(0, Stream.BOUND, torch.arange(3), torch.tensor([t]), SHAPE, torch.float32)
        with torch.no_grad():
            loss = denoiser.loss(x_0, eps, sigma.expand(3))
        c_out = denoiser.get_scalings(sigma)[-2]
        np.testing.assert_allclose(
            found.terms.x_0_squared_error[:, t - 1], (loss * c_out**2).numpy(), rtol=2e-3
        )


@pytest.mark.parametrize(("name", "predicts"), [("eps", "eps"), ("v", "v")])
def test_a_discrete_denoiser_has_the_terms_of_its_network(name, predicts):
    """Through D(x, sigma) and by its network on the chain itself."""
    denoiser, model = adapted(name)
    bare = Model(denoiser.inner_model, predicts, "fixed-small", SCHEDULE, verify_times=False)
    through, directly = (
        evaluate_bound(m, PIXELS, protocol="exact", estimator="full", progress=False) for m in (model, bare)
    )
    # its table of levels is in single precision; 1 - alpha_bar_1 = 0.004 has five digits there
    np.testing.assert_allclose(through.terms.terms, directly.terms.terms, rtol=2e-3)


def test_a_denoiser_without_levels_gets_edms():
    model = from_k_diffusion(make_denoiser("continuous v"))
    assert model.timesteps == 1000
    assert float(model.chain.alpha_bar[-1]) == pytest.approx(1 / (1 + 80**2), rel=1e-9)


def test_classes_are_given_by_the_arguments_name():
    denoiser, model = adapted("eps", class_argument="class_cond")
    found = evaluate_bound(model, from_array(PIXELS, labels=LABELS), estimator="full", progress=False)
    x_0 = to_model_range(torch.from_numpy(PIXELS))
    t = 10
    sigma = levels_of(model).flip(0)[t]
    eps = normal(0, Stream.BOUND, torch.arange(3), torch.tensor([t]), SHAPE, torch.float32)
    with torch.no_grad():
        estimate = denoiser(x_0 + sigma * eps, sigma.expand(3), class_cond=torch.from_numpy(LABELS))
    error = (estimate.clamp(-1, 1) - x_0).square().flatten(1).mean(1)
    np.testing.assert_allclose(found.terms.x_0_squared_error[:, t - 1], error, rtol=1e-4)
