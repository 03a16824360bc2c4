"""Density and coverage: cases counted by hand, the closed form of equal laws, intervals, and the classes."""

import dataclasses
import math

import numpy as np
import pytest

from ddpm_eval.data.image_set import ArrayImages
from ddpm_eval.metrics.coverage import density_and_coverage, evaluate_coverage


def line(*positions):
    """Return points on a line as features of width one."""
    return np.array(positions, np.float32)[:, None]


def values_of(samples, reference, neighbours):
    """Return density and coverage without their intervals."""
    found = density_and_coverage(samples.astype(np.float32), reference.astype(np.float32), neighbours)
    return [estimate.value for estimate in found]


# Distances to the nearest neighbour of these reference images are 1, 1, 2 and 6, to the second 3, 2, 3 and 8.
REFERENCE = line(0, 1, 3, 9)


@pytest.mark.parametrize(
    ("samples", "neighbours", "density", "coverage"),
    [
        # in the balls ]-1, 1[, ]0, 2[, ]1, 5[ and ]3, 15[
        ([0.5], 1, 2, 2 / 4),
        ([4.0], 1, 2, 2 / 4),
        ([0.5, 4.0, 20.0, 20.0], 1, (2 + 2) / 4, 4 / 4),
        ([2.0], 1, 1, 1 / 4),  # on the surface of the second ball
        ([-1.0, 100.0], 1, 0, 0),
        # in the balls ]-3, 3[, ]-1, 3[, ]0, 6[ and ]1, 17[
        ([2.0], 2, 4 / 2, 4 / 4),
        ([-2.0, 16.0], 2, (1 + 1) / (2 * 2), 2 / 4),
    ],
)
def test_cases_counted_by_hand(samples, neighbours, density, coverage):
    found = density_and_coverage(line(*samples, *samples), REFERENCE, neighbours)
    assert [estimate.value for estimate in found] == pytest.approx([density, coverage], abs=1e-15)


def test_an_outlier_among_the_reference_images_spoils_neither():
    """Its ball holds all samples: precision would be 1 for samples that lie far from all other images."""
    rng = np.random.default_rng(0)
    reference = np.concatenate([rng.normal(size=(200, 2)), [[60, 60]]]).astype(np.float32)
    samples = (rng.normal(size=(200, 2)) + 20).astype(np.float32)
    density, coverage = density_and_coverage(samples, reference)
    assert (density.value, coverage.value) == pytest.approx((1 / 5, 1 / 201))


def test_equal_laws_have_density_one_and_the_coverage_of_the_closed_form():
    n, m, k, repetitions = 60, 40, 5, 300
    rng = np.random.default_rng(0)
    found = np.array(
        [values_of(rng.normal(size=(m, 3)), rng.normal(size=(n, 3)), k) for _ in range(repetitions)]
    )
    expected = 1, 1 - math.prod((n - i) / (m + n - i) for i in range(1, k + 1))
    error = found.std(axis=0, ddof=1) / np.sqrt(repetitions)
    assert (abs(found.mean(axis=0) - expected) < 3.5 * error).all()


@pytest.mark.slow
def test_intervals_cover_the_expectation_over_samples():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(300, 4)).astype(np.float32)
    found = [
        density_and_coverage((0.8 * rng.normal(size=(200, 4))).astype(np.float32), reference)
        for _ in range(400)
    ]
    for estimates in zip(*found, strict=True):
        expectation = np.mean([e.value for e in estimates])
        share = np.mean([e.low <= expectation <= e.high for e in estimates])
        # 400 repetitions leave a standard error of 1.1%; the jackknife over groups may be somewhat too wide
        assert 0.92 <= share <= 1


def test_the_number_of_samples_within_a_block_changes_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    samples, reference = rng.normal(size=(2, 70, 3)).astype(np.float32)
    whole = density_and_coverage(samples, reference)
    monkeypatch.setattr("ddpm_eval.metrics.coverage.PAIR_ROWS", 16)
    assert density_and_coverage(samples, reference) == whole


def test_the_classes_are_those_that_the_classifier_assigns(digits, digits_classifier):
    train, test = digits
    found = evaluate_coverage(test, train, digits_classifier)
    assert found.class_label.tolist() == [*range(10)]
    assert (found.class_counts.sum(), found.reference_counts.sum()) == (len(test), len(train))
    assigned = np.concatenate([logits.argmax(1) for _, logits in digits_classifier.extract(test)])
    assert found.class_counts.tolist() == np.bincount(assigned, minlength=10).tolist()
    n, m = len(train), len(test)
    expected = 1 - math.prod((n - i) / (m + n - i) for i in range(1, 6))  # if both halves have one law
    assert found.coverage.value == pytest.approx(expected, abs=0.05)
    assert found.density.value == pytest.approx(1, abs=0.1)
    one = ArrayImages(np.repeat(test.take(np.array([0])), 50, axis=0))
    single = evaluate_coverage(one, train, digits_classifier)
    assert single.coverage.value < 0.05 and single.class_counts.max() == 50


def test_other_networks_have_no_classes(digits, digits_classifier):
    train, test = digits
    found = evaluate_coverage(test, train, dataclasses.replace(digits_classifier, classes=None))
    assert len(found.class_label) == len(found.class_counts) == len(found.reference_counts) == 0


def test_too_few_images_are_refused(digits, digits_classifier):
    train, test = digits
    with pytest.raises(ValueError, match="19 samples and 1437 reference images are too few for density"):
        evaluate_coverage(test.subset(np.arange(19)), train, digits_classifier)
    with pytest.raises(ValueError, match="at least 20 samples and 6 reference images"):
        evaluate_coverage(test, train.subset(np.arange(5)), digits_classifier)
