"""azula's own sampler steps and losses against the adapted model's, from one noise."""

import numpy as np
import pytest
import torch
from same_noise import other_package
from torch import nn

from ddpm_eval.adapters.azula import from_azula
from ddpm_eval.api.bounds import evaluate_bound
from ddpm_eval.data.image_set import from_array
from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.model.gaussian import Gaussian
from ddpm_eval.model.samplers import make_sampler
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.randomness import Stream, normal

denoise = other_package("azula.denoise", "azula")
noise = other_package("azula.noise", "azula")
samplers = other_package("azula.sample", "azula")

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8)).astype(np.uint8)
LABELS = np.array([2, 0, 1])
SHAPE = (3, 8, 8)
T = 16
SCHEDULES = {
    "variance preserving": noise.VPSchedule(),
    "variance exploding": noise.VESchedule(1e-2, 50.0),
    "cosine": noise.CosineSchedule(),
    "rectified": noise.RectifiedSchedule(),
}


class Backbone(nn.Module):
    """A backbone of azula's interface in double precision, with a label or without."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.convolution = nn.Conv2d(3, 3, 3, padding=1, dtype=torch.float64)

    def forward(self, x_t, t, label=None):
        shift = 0 if label is None else label.reshape(-1, 1, 1, 1)
        return torch.tanh(self.convolution(x_t) + 0.1 * t.reshape(-1, 1, 1, 1) + shift)


@pytest.fixture(params=SCHEDULES)
def denoiser(request):
    return denoise.KarrasDenoiser(Backbone(), SCHEDULES[request.param]).eval()


@pytest.mark.parametrize("method", ["ancestral", "ddim"])
def test_every_step_is_that_of_its_sampler(denoiser, method, monkeypatch):
    """From one image, through both samplers; scales are those of azula's images of each time."""
    model = from_azula(denoiser, timesteps=T, shape=SHAPE)
    theirs = (
        samplers.DDPMSampler(denoiser) if method == "ancestral" else samplers.DDIMSampler(denoiser, eta=0.0)
    )
    ids = torch.arange(3)
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = torch.arange(T + 1, dtype=torch.float64) / T
    alpha, sigma = denoiser.schedule(times)
    scale = (alpha**2 + sigma**2).sqrt()
    with torch.no_grad(), model.evaluating() as measured:
        ours = make_sampler(measured.under(PROTOCOLS["exact"]).process, 4, method)
        for t in range(T, 1, -1):
            time = torch.tensor([t])
            p = ours.process(x, time)
            drawn = ours.noise(ids, time, x)
            monkeypatch.setattr(torch, "randn_like", lambda like, drawn=drawn: drawn)
            expected = theirs.step(scale[t] * x, times[t], times[t - 1]) / scale[t - 1]
            torch.testing.assert_close(ours.step(p, x, time, ids), expected, rtol=1e-8, atol=1e-8)


def test_the_squared_error_is_that_of_its_loss(denoiser, monkeypatch):
    model = from_azula(denoiser, timesteps=T, shape=SHAPE)
    found = evaluate_bound(model, PIXELS, protocol="exact", estimator="full", progress=False)
    x_0 = to_model_range(torch.from_numpy(PIXELS)).double()
    for t in range(1, T + 1):
        eps = normal(0, Stream.BOUND, torch.arange(3), torch.tensor([t]), SHAPE, torch.float64)
        monkeypatch.setattr(torch, "randn_like", lambda like, eps=eps: eps)
        time = torch.full((3,), t / T, dtype=torch.float64)
        with torch.no_grad():
            loss = denoiser.loss(x_0, time)
        alpha, sigma = denoiser.schedule(time[:1])
        error = float(loss / ((alpha / sigma) ** 2 + 1))
        assert found.terms.x_0_squared_error[:, t - 1].mean() == pytest.approx(error, rel=1e-6)


def test_its_gaussian_denoiser_is_this_projects():
    covariances = other_package("azula.linalg.covariance", "azula")
    factor = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 12)) / 4)
    eigenvalues, basis = torch.linalg.eigh(factor @ factor.T)
    mean, schedule = torch.linspace(-0.5, 0.5, 12, dtype=torch.float64), noise.VPSchedule()
    theirs = denoise.GaussianDenoiser(mean, covariances.FullCovariance(basis, eigenvalues), schedule)

    class OfImages:
        def __init__(self):
            self.schedule = schedule

        def __call__(self, x_t, t):
            rows = [theirs(x.flatten(), time).mean.reshape(x.shape) for x, time in zip(x_t, t, strict=True)]
            return denoise.DiracPosterior(torch.stack(rows))

    model = from_azula(OfImages(), timesteps=T)
    gaussian = Gaussian.from_moments(mean.reshape(3, 2, 2), factor @ factor.T)
    x_t, t = torch.randn(T, 3, 2, 2, dtype=torch.float64), torch.arange(T)
    exact = gaussian.network(model.chain, "x0")(x_t, t)
    torch.testing.assert_close(model.network(x_t, t), exact, rtol=1e-8, atol=1e-8)


def test_classes_are_given_by_the_arguments_name():
    denoiser = denoise.KarrasDenoiser(Backbone(), noise.VPSchedule())
    model = from_azula(denoiser, timesteps=T, class_argument="label")
    own, other = (
        evaluate_bound(model, from_array(PIXELS, labels=labels), estimator="full", progress=False)
        for labels in (LABELS, np.array([2, 1, 1]))
    )
    same = [np.array_equal(own.terms.terms[i], other.terms.terms[i]) for i in range(3)]
    assert same == [True, False, True]
