"""What the records of stages say of themselves."""

import dataclasses
import math

import numpy as np
import pytest
from records_for_tests import example

from ddpm_eval.results.fields import Estimate, fields_of_kind
from ddpm_eval.results.records import QUALITY_OVER_STEPS, Quality, Samples, TrainingLog


def log(status):
    numbers = {"steps": 2, "images": 8, "seconds": 1.0, "parameters": 1}
    return TrainingLog(np.ones(2), np.ones(2), status=status, reason="", **numbers)


@pytest.mark.parametrize("status", ["ok", "stopped", "running", "diverged", "imported"])
def test_only_divergence_and_other_projects_weights_end_a_training(status):
    assert log(status).diverged is (status == "diverged")
    assert log(status).imported is (status == "imported")
    assert log(status).over is (status in ("diverged", "imported"))


def test_images_are_four_dimensional():
    with pytest.raises(ValueError, match=r"Samples.images has 3 dimensions"):
        Samples(
            np.zeros((2, 8, 8), np.uint8), np.zeros(2), np.zeros(2), method="ancestral", num_steps=20, seed=0
        )


def test_only_inceptions_numbers_are_called_fid():
    quality = example(Quality)
    inception = dataclasses.replace(quality, features="inception-v3-compat")
    assert inception.is_inception
    assert (inception.distance_name, inception.score_name) == ("FID", "Inception score")
    digits = dataclasses.replace(quality, features="digits-classifier")
    assert not digits.is_inception
    assert digits.distance_name == "Frechet distance (digits classifier)"
    assert digits.score_name == "score (digits classifier)"


def test_every_figure_of_quality_has_an_interval_and_a_unit():
    names = {field.name for field in fields_of_kind(Quality, "estimate")}
    assert {"frechet_distance", "frechet_infinite", "score", "kid", "precision", "recall"} < names
    unknown = Estimate(math.nan, math.nan, math.nan, "1")
    assert not dataclasses.replace(example(Quality), precision=unknown).precision.known


def test_quality_curves_have_names_of_their_own():
    assert len(set(QUALITY_OVER_STEPS.values())) == len(QUALITY_OVER_STEPS) == 2
