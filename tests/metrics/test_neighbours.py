"""Nearest neighbours against scipy's search, copies that must be found, and the law of the memorisation
statistic.
"""

import dataclasses

import numpy as np
import pytest
from scipy.spatial import cKDTree

from ddpm_eval.metrics import neighbours
from ddpm_eval.metrics.neighbours import memorisation


def rows_of(array):
    return lambda index: array[index]


def test_nearest_equals_a_tree_search(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 37)
    rng = np.random.default_rng(0)
    queries, candidates = rng.standard_normal((100, 5)), rng.standard_normal((300, 5))
    found, distances = neighbours.nearest(rows_of(queries), 100, rows_of(candidates), 300, 4)
    expected, where = cKDTree(candidates).query(queries, k=4)
    np.testing.assert_array_equal(found, where)
    np.testing.assert_allclose(distances, expected, rtol=1e-12)


def test_copies_are_found_at_distance_zero_and_raise_the_memorisation(digits, digits_classifier):
    train, test = digits
    copied = np.arange(100, 140)
    samples = np.concatenate([train.take(copied), test.take(np.arange(40))])
    found = neighbours.find_neighbours(samples, train, test, digits_classifier, count=3)
    for space in ("pixel", "feature"):
        np.testing.assert_array_equal(getattr(found, f"{space}_id")[:40, 0], train.ids[copied])
        assert (getattr(found, f"{space}_distance")[:40, 0] <= 1e-5).all()
        assert getattr(found, f"{space}_memorisation").low > 0.5
    assert (found.pixel_distance[:40, 0] == 0).all()
    np.testing.assert_array_equal(found.shown_pixel[:, 0], found.shown)
    np.testing.assert_array_equal(found.pixel_distance[40:, 0], found.held_out_pixel_distance[:40])
    assert (np.diff(found.pixel_distance, axis=1) >= 0).all()
    assert (found.n_samples, found.n_train, found.n_held_out) == (80, 1437, 360)


def test_a_mirrored_copy_is_found_where_mirror_images_are_searched(digits, digits_classifier):
    train, test = digits
    copied = np.arange(100, 140)
    samples = train.take(copied)[..., ::-1].copy()
    plain, found = (
        neighbours.find_neighbours(samples, train, test, digits_classifier, count=2, mirrored=mirrored)
        for mirrored in (False, True)
    )
    assert (plain.pixel_distance[:, 0] > 0).mean() > 0.9  # but for a symmetric digit
    assert (found.pixel_distance[:, 0] == 0).all()
    np.testing.assert_array_equal(found.pixel_id[:, 0], train.ids[copied])
    np.testing.assert_array_equal(found.shown_pixel[:, 0], found.shown)
    assert (found.n_train, found.mirrored, plain.mirrored) == (1437, True, False)
    assert (found.held_out_pixel_distance <= plain.held_out_pixel_distance).all()


def test_pixel_distance_is_the_rms_difference_in_levels(digits, digits_classifier):
    train, test = digits
    image = train.take(np.array([7]))
    brighter = np.where(image < 250, image + 5, image - 5).astype(np.uint8)
    found = neighbours.find_neighbours(brighter, train, test, digits_classifier, count=1)
    assert found.pixel_id[0, 0] == train.ids[7]
    assert found.pixel_distance[0, 0] == pytest.approx(5, rel=1e-12)


def test_held_out_images_themselves_are_not_memorised(digits, digits_classifier):
    train, test = digits
    found = neighbours.find_neighbours(test, train, test, digits_classifier)
    assert found.pixel_memorisation.value == pytest.approx(0.5, abs=1e-12)
    assert found.feature_memorisation.value == pytest.approx(0.5, abs=1e-12)


def test_memorisation_is_the_share_of_pairs():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, 50).astype(float), rng.integers(0, 9, 40).astype(float)
    pairs = (a[:, None] < b).mean() + 0.5 * (a[:, None] == b).mean()
    assert memorisation(a, b).value == pytest.approx(pairs, rel=1e-12)
    assert memorisation(np.zeros(20), np.ones(30)) == (1.0, pytest.approx(0.025 ** (1 / 20)), 1.0, "1")
    assert memorisation(np.ones(20), np.zeros(30)) == (0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 20)), "1")


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_memorisation_interval_covers_the_probability(shift):
    # P(X < Y) = Phi(shift / sqrt 2) for unit normals; 500 intervals: standard error of the coverage 0.0097
    from scipy.stats import norm

    rng = np.random.default_rng(2)
    truth = norm.cdf(shift / np.sqrt(2))
    estimates = [memorisation(rng.standard_normal(80), shift + rng.standard_normal(120)) for _ in range(500)]
    assert 0.92 <= np.mean([e.low <= truth <= e.high for e in estimates]) <= 0.98


def test_unsuitable_samples_are_refused(digits, digits_classifier):
    train, test = digits
    with pytest.raises(ValueError, match="the samples are 9x9 pixels, but digits's images 8x8"):
        neighbours.find_neighbours(np.zeros((3, 1, 9, 9), np.uint8), train, test, digits_classifier)
    few = dataclasses.replace(train, ids=train.ids[:4])
    with pytest.raises(ValueError, match="5 neighbours asked for, but digits has 4 training images"):
        neighbours.find_neighbours(test, few, test, digits_classifier)
