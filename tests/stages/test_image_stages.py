"""What needs the data set alone: images for figures, and the Gaussian that any network should beat."""

import dataclasses

import numpy as np
import pytest
import torch
from counted_run import again, bring_about, names
from tiny import HERE
from two_processes import side_by_side, together

from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.model.gaussian import Gaussian
from ddpm_eval.results.records import Baseline, ReferenceImages, SimpleCodes
from ddpm_eval.stages import image_stages
from ddpm_eval.stages.base import ensure, is_done
from ddpm_eval.stages.image_stages import BaselineStage, ReferenceImagesStage, SimpleCodesStage
from ddpm_eval.stages.training_stage import TrainingStage


def in_range(images):
    return to_model_range(torch.from_numpy(images))


def test_reference_images_are_the_first_of_the_training_split(run, monkeypatch):
    bring_about(run, ReferenceImagesStage())
    found = run.results.get("reference-images", ReferenceImages)
    np.testing.assert_array_equal(found.images, run.train_images.array)  # fewer than are wanted
    assert (found.name, found.split) == (run.spec.data.name, "train")
    monkeypatch.setattr(image_stages, "N_REFERENCE_IMAGES", 5)
    assert not is_done(ReferenceImagesStage(), run)
    bring_about(run, ReferenceImagesStage())
    assert len(run.results.get("reference-images", ReferenceImages).images) == 5


def test_the_baseline_is_the_fitted_gaussians_bound_in_closed_form(run, monkeypatch):
    monkeypatch.setattr(image_stages, "BATCH_SIZE", 7)  # several batches of each set
    bring_about(run, BaselineStage())
    found = run.results.get("baseline", Baseline)
    kept = [i for i in range(20) if i not in (3, 7)]
    np.testing.assert_array_equal(found.image_id, kept)
    assert (found.split, found.variance, found.dimensions, found.n_train) == ("test", "fixed-large", 64, 40)
    gaussian = Gaussian.fit([in_range(run.train_images.array)])
    schedule = make_schedule(run.spec.diffusion)
    x_0 = in_range(run.test_images.array[kept])
    terms = gaussian.expected_terms(schedule, schedule.fixed_variance("fixed-large"), x_0)
    np.testing.assert_allclose(found.bound, (terms.terms.sum(1) + terms.prior).numpy(), rtol=1e-9)
    np.testing.assert_allclose(found.nll, gaussian.dequantised_nll(x_0).numpy(), rtol=1e-9)
    assert (found.bound > 0).all()


def test_codes_without_a_network_are_of_the_scored_images_and_the_coders_of_all(run):
    bring_about(run, SimpleCodesStage())
    found = run.results.get("simple-codes", SimpleCodes)
    kept = [i for i in range(20) if i not in (3, 7)]
    np.testing.assert_array_equal(found.image_id, kept)
    train = run.train_images.array
    levels = np.unique(train)
    assert (found.levels, found.n_train, found.n_coded) == (len(levels), 40, 20)
    seen = np.isin(run.test_images.array[kept], levels).all(axis=(1, 2, 3))
    np.testing.assert_allclose(found.uniform[seen], np.log2(len(levels)), rtol=1e-12)
    assert np.isinf(found.uniform[~seen]).all()
    share = (np.bincount(train.reshape(-1), minlength=256) + 0.5) / (train.size + 128)
    expected = -np.log2(share)[run.test_images.array[kept]].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found.histogram, expected, rtol=1e-12)
    error = run.test_images.array[kept] - train.astype(float).mean(axis=0)
    np.testing.assert_allclose(found.mean_image_rmse, np.sqrt((error**2).mean()), rtol=1e-12)
    sizes = dict(zip(found.coders.split(", "), found.coded_bytes, strict=True))
    assert 0 < sizes["PNG"] < 20 * 64 + 1000
    assert bool(found.coder_notes) == bool(np.isnan(found.coded_bytes).any())


def test_sets_that_do_not_fit_in_memory_are_not_coded(run, monkeypatch):
    assert SimpleCodesStage().applies(run)
    monkeypatch.setattr(image_stages, "MOST_CODED_ELEMENTS", 60 * 64 - 1)
    assert not SimpleCodesStage().applies(run)


def test_a_learned_variance_has_the_baseline_of_the_large_one(run):
    learned = again(run, diffusion__objective="vlb", diffusion__variance="learned")
    small = again(run, diffusion__variance="fixed-small")
    keys = {variant.spec.cell: BaselineStage().key(variant) for variant in (run, learned, small)}
    assert keys["eps-vlb-learned"] == keys["eps-mse-fixed-large"] != keys["eps-mse-fixed-small"]


def test_they_stay_valid_when_training_goes_on_and_at_any_precision(run):
    for stage in (ReferenceImagesStage(), BaselineStage()):
        ensure(stage, run)
    longer = again(run, train__steps=8)
    ensure(TrainingStage(), longer)
    lower = again(run)
    lower.runtime = dataclasses.replace(HERE, precision="bf16")
    for other in (longer, lower):
        assert is_done(ReferenceImagesStage(), other) and is_done(BaselineStage(), other)
    assert names(run) == {"training", "schedule", "reference-images", "baseline"}


@pytest.mark.parametrize(
    "change", [{"evaluation__n_test_images": 7}, {"diffusion__timesteps": 10}, {"diffusion__beta_end": 0.4}]
)
def test_the_baseline_is_of_the_images_that_are_scored_and_of_the_chain(run, change):
    ensure(BaselineStage(), run)
    assert not is_done(BaselineStage(), again(run, **change))
    assert is_done(BaselineStage(), again(run, evaluation__n_samples=99))


def test_two_processes_make_them_once(run):
    for stage in (ReferenceImagesStage(), BaselineStage()):
        side_by_side(lambda process, stage=stage: ensure(stage, process), together(run))
        assert is_done(stage, run)
        assert stage.network_evaluations(run) == 0
