"""EDM-style networks: a stand-in for EDM's own interface, and lucidrains' ElucidatedDiffusion.

EDM itself is in no package index. `EDMPrecond` here has its interface and its preconditioning (Karras et al.,
2022, Table 1).
"""

import numpy as np
import pytest
import torch
from same_noise import StepNoise, other_package, start_noise
from torch import nn

from ddpm_eval.adapters.edm import edm_levels, from_edm
from ddpm_eval.api.bounds import evaluate_bound
from ddpm_eval.api.samples import sample
from ddpm_eval.data.image_set import from_array
from ddpm_eval.data.pixels import to_model_range, to_pixels
from ddpm_eval.model.gaussian import Gaussian
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.randomness import Stream, normal

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8)).astype(np.uint8)
SHAPE = (3, 8, 8)


class EDMPrecond(nn.Module):
    """EDM's network with its preconditioning, as its samplers and losses call it."""

    def __init__(self, label_dim=0, sigma_data=0.5):
        super().__init__()
        self.img_resolution, self.img_channels, self.label_dim, self.sigma_data = 8, 3, label_dim, sigma_data
        self.model = nn.Conv2d(3, 3, 3, padding=1)
        self.map_label = nn.Linear(label_dim, 3) if label_dim else None

    def forward(self, x, sigma, class_labels=None, force_fp32=False):
        x, sigma = x.to(torch.float32), sigma.to(torch.float32).reshape(-1, 1, 1, 1)
        c_skip = self.sigma_data**2 / (sigma**2 + self.sigma_data**2)
        c_out = sigma * self.sigma_data / (sigma**2 + self.sigma_data**2).sqrt()
        c_in = 1 / (self.sigma_data**2 + sigma**2).sqrt()
        output = torch.tanh(self.model(c_in * x) + sigma.log() / 4)
        if self.map_label is not None:
            output = output + self.map_label(class_labels.reshape(-1, self.label_dim))[..., None, None]
        return c_skip * x + c_out * output


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return EDMPrecond()


def test_levels_are_edms():
    levels = edm_levels(18)
    steps = np.arange(18)
    expected = (80 ** (1 / 7) + steps / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7  # Eq. 5
    np.testing.assert_allclose(levels.flip(0), expected, rtol=1e-12)


def test_the_gaussian_denoiser_has_the_bound_of_the_gaussian_network():
    """D of a Gaussian in closed form, (v x + sigma^2 m) / (v + sigma^2), against the exact expectation."""
    mean, variance = 0.2, 0.3
    gaussian = Gaussian.from_moments(
        torch.full((1, 2, 2), mean, dtype=torch.float64), variance * torch.eye(4, dtype=torch.float64)
    )

    def denoiser(x, sigma):
        square = sigma.reshape(-1, 1, 1, 1) ** 2
        return (variance * x + square * mean) / (variance + square)

    model = from_edm(denoiser, sigma=edm_levels(50))
    exact = gaussian.network(model.chain, "x0")
    x_t, t = torch.randn(50, 1, 2, 2, dtype=torch.float64), torch.arange(50)
    found = model.network(x_t, t)
    torch.testing.assert_close(found, exact(x_t, t), rtol=1e-9, atol=1e-9)


def test_the_estimate_is_that_of_the_scaled_image(network):
    """x_0_hat = D(x_t / sqrt(alpha_bar_t); sqrt((1 - alpha_bar_t) / alpha_bar_t))."""
    model = from_edm(network)
    assert (model.shape, model.timesteps, model.conditional) == (SHAPE, 1000, False)
    t = torch.tensor([1, 2, 500, 1000])
    x_t = torch.randn(4, *SHAPE)
    alpha_bar = model.chain.alpha_bar[t].reshape(-1, 1, 1, 1)
    with model.evaluating() as measured:
        step = measured.under(PROTOCOLS["exact"]).process(x_t.double(), t)
    expected = network(x_t / alpha_bar.sqrt(), ((1 - alpha_bar) / alpha_bar).sqrt().flatten())
    torch.testing.assert_close(step.x_0_hat.float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ancestral", [True, False])
def test_samples_are_those_of_eulers_method_on_the_levels(network, ancestral):
    """The deterministic sampler (Algorithm 1 without correction) and the ancestral one, written out."""
    model = from_edm(network, sigma=edm_levels(12))
    found = sample(model, 3, method="ancestral" if ancestral else "ddim", seed=4, progress=False)
    levels = [0.0, *edm_levels(12).tolist()]
    x = start_noise(4, 3, SHAPE) * (1 + levels[-1] ** 2) ** 0.5
    draw = StepNoise(4, reversed(range(1, 12)))
    for k in range(12, 0, -1):
        sigma, following = levels[k], levels[k - 1]
        up = (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5 if ancestral else 0.0
        down = (following**2 - up**2) ** 0.5
        slope = (x - network(x, torch.full((3,), sigma))) / sigma
        x = x + (down - sigma) * slope
        if up:
            x = x + up * draw(x)
    difference = found.images.astype(int) - to_pixels(x.detach()).numpy().astype(int)
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 5e-3


def test_classes_are_given_as_one_hot_vectors():
    network = EDMPrecond(label_dim=4)
    labels = np.array([3, 0, 1])
    model = from_edm(network, sigma=edm_levels(10))
    assert model.conditional
    found = evaluate_bound(model, from_array(PIXELS, labels=labels), estimator="full", progress=False)
    one_hot = torch.eye(4)[labels]
    x_0 = to_model_range(torch.from_numpy(PIXELS)).double()
    for t in (1, 5, 10):
        sigma = edm_levels(10)[t - 1]
        eps = normal(0, Stream.BOUND, torch.arange(3), torch.tensor([t]), SHAPE, torch.float64)
        with torch.no_grad():
            estimate = network(x_0 + sigma * eps, sigma.expand(3), one_hot).double().clamp(-1, 1)
        error = (estimate - x_0).square().flatten(1).mean(1)
        np.testing.assert_allclose(found.terms.x_0_squared_error[:, t - 1], error, rtol=1e-5)


@pytest.mark.parametrize("sigma", [[0.1], [0.2, 0.1], [0.0, 0.1]])
def test_levels_that_do_not_increase_are_refused(network, sigma):
    with pytest.raises(
        ValueError, match="sigma must be a list of two or more positive numbers that increase"
    ):
        from_edm(network, sigma=torch.tensor(sigma))


# ElucidatedDiffusion


@pytest.fixture(scope="module")
def elucidated():
    package = other_package("denoising_diffusion_pytorch", "denoising-diffusion-pytorch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = package.Unet(dim=8, dim_mults=(1, 2), channels=3, learned_sinusoidal_cond=True)
        return package.ElucidatedDiffusion(network, image_size=8).eval()


def test_elucidated_diffusion_has_the_squared_error_of_its_own_loss(elucidated, monkeypatch):
    levels = edm_levels(20)
    model = from_edm(elucidated.preconditioned_network_forward, sigma=levels, shape=SHAPE)
    found = evaluate_bound(model, PIXELS, protocol="exact", estimator="full", progress=False)
    x_0 = to_model_range(torch.from_numpy(PIXELS))
    for t in (1, 2, 10, 20):
        monkeypatch.setattr(torch, "randn_like", StepNoise(0, [t - 1], Stream.BOUND))
        sigma = levels[t - 1].float().expand(3)
        with torch.no_grad():
            loss = elucidated((x_0 + 1) / 2, sigma=sigma, loss_reduction="none")
        error = (loss / elucidated.loss_weight(sigma)).numpy()
        np.testing.assert_allclose(found.terms.x_0_squared_error[:, t - 1], error, rtol=1e-4)
