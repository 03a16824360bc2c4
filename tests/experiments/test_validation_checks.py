"""The checks pass the production code as it is, and fail it with any of a list of planted bugs."""

import numpy as np
import pytest
import torch

from ddpm_eval.metrics import bound, distances, drawing
from ddpm_eval.model import gaussian, samplers
from ddpm_eval.model.diffusion import ReverseProcess
from ddpm_eval.model.samplers import AncestralSampler, DDIMSampler
from experiments import validate, validation_checks, validation_models
from experiments.validation_checks import rows_with_exact_moments


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    """Less work than the command does; the planted bugs must be found all the same."""
    monkeypatch.setattr(validation_checks, "DRAWS", 1)
    monkeypatch.setattr(validation_checks, "N_SAMPLES", 512)
    monkeypatch.setattr(validation_models, "N_GAUSSIAN", 32)


def failures(only):
    return [row.quantity for row in validate.validation_rows(only) if not row.passed]


@pytest.mark.slow
def test_everything_passes():
    said = []
    text, passed = validate.run(None, said.append)
    assert passed, text
    assert said == [f"checking {name}" for name in validate.CHECKS]
    assert text.endswith("rows passed") and "digits, fixed-large: rate" in text


@pytest.mark.parametrize("name", ["chains", "frechet"])
def test_single_checks_pass(name):
    assert failures(name) == []


def test_features_with_exact_moments():
    law = validation_models.narrow_gaussian()
    rows = rows_with_exact_moments(law, 100)
    np.testing.assert_allclose(rows.mean(0), law.mean.flatten(), atol=1e-14)
    np.testing.assert_allclose(np.cov(rows.T), law.covariance, atol=1e-14)


# Planted bugs


def plant_kl(monkeypatch):
    term = bound.kl_from_error
    monkeypatch.setattr(bound, "kl_from_error", lambda *a: 0.98 * term(*a))


def plant_half(monkeypatch):
    term = bound.kl_from_error
    monkeypatch.setattr(bound, "kl_from_error", lambda *a: 0.5 * term(*a))


def plant_decoder(monkeypatch):
    term = bound.decoder_term
    monkeypatch.setattr(bound, "decoder_term", lambda step, x_0, decoder: term(step, x_0 + 1 / 255, decoder))


def plant_time(monkeypatch):
    step = ReverseProcess.p_mean_variance
    monkeypatch.setattr(
        ReverseProcess, "p_mean_variance", lambda self, o, x, t: step(self, o, x, (t + 1).clamp(max=50))
    )


def plant_noise(monkeypatch):
    normal = bound.normal
    monkeypatch.setattr(bound, "normal", lambda *a: 1.05 * normal(*a))


def plant_last_noise(monkeypatch, sampler=AncestralSampler):
    step = sampler.step

    def noisy(self, p, x_t, t, ids):
        extra = torch.exp(0.5 * p.log_variance) * self.noise(ids, t, x_t) if int(t) == 1 else 0
        return step(self, p, x_t, t, ids) + extra

    monkeypatch.setattr(sampler, "step", noisy)


def plant_last_ddim_noise(monkeypatch):
    plant_last_noise(monkeypatch, DDIMSampler)


def plant_sampler_variance(monkeypatch):
    noise = samplers.Sampler.noise
    monkeypatch.setattr(samplers.Sampler, "noise", lambda self, *a: 1.05 * noise(self, *a))


def plant_truncation(monkeypatch):
    monkeypatch.setattr(drawing, "to_pixels", lambda x: ((x.clamp(-1, 1) + 1) * 127.5).to(torch.uint8))


def plant_biased_covariance(monkeypatch):
    unbiased = distances.Moments.covariance.fget
    monkeypatch.setattr(
        distances.Moments, "covariance", property(lambda self: unbiased(self) * (self.n - 1) / self.n)
    )


def plant_denoiser(monkeypatch):
    call = gaussian.Denoiser.__call__
    monkeypatch.setattr(gaussian.Denoiser, "__call__", lambda self, x, t: 1.03 * call(self, x, t))


@pytest.mark.parametrize(
    ("check", "plant"),
    [
        ("chains", plant_kl),
        ("chains", plant_decoder),
        ("chains", plant_time),
        ("chains", plant_noise),
        ("chains", plant_denoiser),
        ("frechet", plant_biased_covariance),
        ("sampler", plant_last_noise),
        ("sampler", plant_last_ddim_noise),
        ("sampler", plant_sampler_variance),
        ("sampler", plant_truncation),
    ],
)
def test_planted_bugs_are_found(monkeypatch, check, plant):
    plant(monkeypatch)
    if check == "sampler":  # the strided chains suffice, and are quick
        monkeypatch.setattr(validation_checks, "SAMPLED_STEPS", (validation_checks.STRIDED_STEPS,))
    assert failures(check)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "plant"),
    [("stratified", plant_decoder), ("gaussian-data", plant_half), ("bound", plant_decoder)],
)
def test_a_planted_bug_is_found_through_the_results_file(monkeypatch, check, plant):
    plant(monkeypatch)
    assert failures(check)
