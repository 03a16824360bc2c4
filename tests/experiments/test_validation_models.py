"""The Gaussian models: what is measured of them lies in the results file, and their exact values add up."""

import math

import numpy as np
import pytest

from ddpm_eval.protocol import combine
from ddpm_eval.results.bound_terms import FullBoundTerms
from ddpm_eval.results.records import Samples
from ddpm_eval.stages.bound_stage import scored_positions
from experiments import validation_models
from experiments.validation_models import EXACT, KEY, GaussianModels, in_model_range, narrow_gaussian


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Both models, the narrow one with eight images in each split."""
    monkeypatch.setattr(validation_models, "N_GAUSSIAN", 8)
    return GaussianModels(tmp_path)


def forbidden(*arguments, **options):
    raise AssertionError("measured again")


def test_a_bound_is_measured_once_and_read_from_the_file(models, monkeypatch):
    narrow = models.narrow
    protocols = [combine(EXACT, clip=clip) for clip in (False, True)]
    measured = narrow.full_bounds(protocols)
    assert [terms.protocol for terms in measured] == protocols
    assert [terms.split for terms in measured] == ["test", "test"]
    stored = narrow.store.get("bound/full/test/exact", FullBoundTerms, KEY)
    np.testing.assert_array_equal(stored.terms, measured[0].terms)
    monkeypatch.setattr(validation_models, "evaluate_bound", forbidden)
    (again,) = narrow.full_bounds(protocols[:1])
    np.testing.assert_array_equal(again.terms, measured[0].terms)


def test_samples_are_read_from_the_file(models):
    images = models.narrow.samples(3, 10, "ddim")
    stored = models.narrow.store.get("samples-ddim-10", Samples, KEY)
    np.testing.assert_array_equal(images, stored.images)
    assert images.shape == (3, 3, 4, 4) and images.dtype == np.uint8
    assert (stored.method, stored.num_steps, stored.seed) == ("ddim", 10, models.narrow.spec.seed)
    assert np.ptp(images.reshape(3, -1), axis=0).max() > 0  # they differ


@pytest.mark.slow
def test_the_optimal_variance_is_of_the_scored_training_images(models):
    digits = models.digits
    table = digits.optimal_variance()
    (terms,) = digits.full_bounds([EXACT], "train")
    positions = scored_positions(digits.train_images, 100)
    np.testing.assert_array_equal(terms.image_id, digits.train_images.ids[positions])
    (test,) = digits.full_bounds([combine(EXACT, variance="optimal")])
    assert len(test.image_id) == len(digits.test_images)
    np.testing.assert_array_equal(digits.variance(test.protocol), table)


def test_variances_of_protocols(models):
    narrow = models.narrow
    for name in ("fixed-large", "fixed-small"):
        fixed = narrow.schedule.fixed_variance(name)
        np.testing.assert_array_equal(narrow.variance(combine(EXACT, variance=name)), fixed)
    trained = narrow.schedule.fixed_variance(narrow.spec.diffusion.variance)
    np.testing.assert_array_equal(narrow.variance(EXACT), trained)


def test_exact_values_are_sums_of_the_expected_terms(models):
    narrow = models.narrow
    expected = narrow.expected_terms(narrow.variance(EXACT), narrow.test_images.ids[2:4])
    exact = narrow.exact_values(expected)
    nats = expected.terms.sum(1) + expected.prior
    np.testing.assert_allclose(exact["total"], nats / (48 * math.log(2)), rtol=1e-12)
    np.testing.assert_allclose(exact["rate"] + exact["distortion"] + exact["prior"], exact["total"])
    np.testing.assert_allclose(exact["distortion"], expected.terms[:, 0] / (48 * math.log(2)), rtol=1e-12)
    x_0 = in_model_range(narrow.test_images)[2:4]
    direct = narrow.gaussian.expected_terms(narrow.schedule, narrow.variance(EXACT), x_0)
    np.testing.assert_array_equal(expected.terms, direct.terms)


def test_the_splits_of_the_narrow_data_differ(models):
    train_images, test_images = models.narrow.train_images, models.narrow.test_images
    assert len(train_images) == len(test_images) == 8
    assert train_images.digest != test_images.digest
    assert (train_images.split, test_images.split) == ("train", "test")


def test_the_narrow_gaussian_stays_within_the_range():
    law = narrow_gaussian()
    assert law.mean.abs().max() <= 0.3
    deviation = law.eigenvalues.sqrt()
    assert deviation.min() == pytest.approx(0.01) and deviation.max() == pytest.approx(10**-0.75)
    spread = law.covariance.diagonal().sqrt()
    assert ((1 - law.mean.flatten().abs()) / spread).min() > 5  # standard deviations to the range's end
