"""`validate` passes the production code as it is, and fails it with any of a list of planted bugs."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ddpm_eval.metrics import bound, quality
from ddpm_eval.model import gaussian, samplers
from ddpm_eval.model.diffusion import ReverseProcess
from ddpm_eval.stages import pipeline
from experiments import validate
from experiments.validate import Row


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    """Less work than the command does; the planted bugs must be found all the same."""
    monkeypatch.setattr(validate, "DRAWS", 1)
    monkeypatch.setattr(validate, "N_GAUSSIAN", 32)
    monkeypatch.setattr(validate, "N_SAMPLES", 512)


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


def test_only_selects_by_part_of_a_name_and_refuses_none():
    said = []
    validate.run("frech", said.append)
    assert said == ["checking frechet"]
    with pytest.raises(
        ValueError, match=r"no check has 'fid' in its name \(there are bound, optimal-variance"
    ):
        validate.run("fid", said.append)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    validate.validation_rows("frechet")
    assert torch.get_num_threads() == before


def test_rows_pass_by_their_tolerance_and_never_with_nan():
    row = Row("a", "1", measured=1.0, exact=1.2, standard_error=0.1, tolerance=0.45)
    assert row.passed and row.difference_in_standard_errors == pytest.approx(-2)
    assert not replace(row, measured=1.7).passed
    assert not replace(row, measured=math.nan).passed
    sharp = replace(row, standard_error=0.0, tolerance=1e-9)
    assert not sharp.passed and math.isnan(sharp.difference_in_standard_errors)


def test_the_table_has_a_row_each():
    rows = [Row("a", "1", 1.0, 1.0, 0.5, 2.0), Row("b", "nats", 1.0, 9.0, 1.0, 4.5)]
    frame = validate.validation_table(rows)
    columns = [
        "quantity",
        "unit",
        "measured",
        "exact",
        "difference_in_standard_errors",
        "tolerance",
        "passed",
    ]
    assert list(frame.columns) == columns
    assert frame["passed"].tolist() == [True, False]
    assert frame["difference_in_standard_errors"].tolist() == [0.0, -8.0]
    assert isinstance(frame, pd.DataFrame)


def test_the_worst_time_is_the_one_with_the_most_standard_errors():
    rng = np.random.default_rng(0)
    exact = np.zeros((50, 20))
    measured = rng.standard_normal((50, 20))
    measured[:, 6] = measured[:, 6] * 0.01 + 0.05  # small in itself, large for its spread
    row = validate._worst("q", "1", measured, exact)
    assert row.quantity == "q, t = 7" and not row.passed


def test_features_with_exact_moments():
    law = validate.narrow_gaussian()
    rows = validate._with_exact_moments(law, 100)
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
    read = ReverseProcess.read
    monkeypatch.setattr(ReverseProcess, "read", lambda self, o, x, t: read(self, o, x, (t + 1).clamp(max=50)))


def plant_noise(monkeypatch):
    normal = bound.normal
    monkeypatch.setattr(bound, "normal", lambda *a: 1.05 * normal(*a))


def plant_last_noise(monkeypatch):
    step = samplers.Chain.step

    def noisy(self, p, x, t, ids):
        extra = torch.exp(0.5 * p.log_variance) * self._noise(ids, t, x) if int(t) == 1 else 0
        return step(self, p, x, t, ids) + extra

    monkeypatch.setattr(samplers.Chain, "step", noisy)


def plant_sampler_variance(monkeypatch):
    monkeypatch.setattr(
        samplers.Chain, "_noise", lambda self, ids, t, x, f=samplers.Chain._noise: 1.05 * f(self, ids, t, x)
    )


def plant_truncation(monkeypatch):
    monkeypatch.setattr(pipeline.pixels, "to_pixels", lambda x: ((x.clamp(-1, 1) + 1) * 127.5).to(torch.uint8))


def plant_biased_covariance(monkeypatch):
    unbiased = quality.Moments.covariance.fget
    monkeypatch.setattr(
        quality.Moments, "covariance", property(lambda self: unbiased(self) * (self.n - 1) / self.n)
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
        ("sampler", plant_sampler_variance),
        ("sampler", plant_truncation),
    ],
)
def test_planted_bugs_are_found(monkeypatch, check, plant):
    plant(monkeypatch)
    if check == "sampler":  # the strided chains suffice, and are quick
        monkeypatch.setattr(validate, "SAMPLED_STEPS", (validate.STRIDED_STEPS,))
    assert failures(check)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "plant"),
    [("stratified", plant_decoder), ("gaussian-data", plant_half), ("bound", plant_decoder)],
)
def test_a_planted_bug_is_found_through_the_pipeline(monkeypatch, check, plant):
    plant(monkeypatch)
    assert failures(check)
