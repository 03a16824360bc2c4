"""Every baseline recomputed by another formula, closed forms, and what happens at levels never seen."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from ddpm_eval.data.datasets import load
from ddpm_eval.data.splits import every_nth
from ddpm_eval.metrics.histograms import (
    LEVELS,
    histogram_bits,
    level_counts,
    one_histogram,
    pixel_histograms,
    uniform,
)
from ddpm_eval.spec import DataSpec


@pytest.fixture
def small_images():
    """30 training and 12 test images, 3x2x4, of few levels that differ from pixel to pixel."""
    rng = np.random.default_rng(0)
    centre = rng.integers(10, 240, (1, 3, 2, 4))
    train = centre + rng.integers(-3, 4, (30, 3, 2, 4))
    test = centre + rng.integers(-2, 3, (12, 3, 2, 4))
    return train.astype(np.uint8), test.astype(np.uint8)


def test_baselines_by_exact_fractions(small_images):
    """Counted with dictionaries and divided as fractions, image by image."""
    train, test = small_images
    found = histogram_bits(train, test)
    everywhere = Counter(train.reshape(-1).tolist())
    pixels = [Counter(column.tolist()) for column in train.reshape(30, -1).T]

    def p(level):
        return (everywhere[level] + Fraction(1, 2)) / (train.size + 128)

    def p_at(pixel, level):
        return (pixels[pixel][level] + p(level)) / Fraction(31)

    for i, image in enumerate(test.reshape(12, -1).tolist()):
        one = sum(-math.log2(p(level)) for level in image) / len(image)
        each = sum(-math.log2(p_at(d, level)) for d, level in enumerate(image)) / len(image)
        # sums of 24 float64 logarithms: relative rounding of 1e-14 at most
        assert found.histogram[i] == pytest.approx(one, rel=1e-13)
        assert found.pixel_histograms[i] == pytest.approx(each, rel=1e-13)


def test_mean_of_one_histogram_is_entropy_plus_divergence(small_images):
    """The mean codelength of the test set is a cross entropy, H(f) + KL(f || p)."""
    train, test = small_images
    p = one_histogram(level_counts(train))[0]
    f = np.bincount(test.reshape(-1), minlength=LEVELS)
    expected = stats.entropy(f, base=2) + stats.entropy(f, p, base=2)
    assert histogram_bits(train, test).histogram.mean() == pytest.approx(expected, rel=1e-12)


def test_mean_of_pixel_histograms_is_the_mean_of_their_cross_entropies(small_images):
    train, test = small_images
    p = pixel_histograms(level_counts(train))
    f = level_counts(test)
    expected = np.mean(
        [stats.entropy(f_d, base=2) + stats.entropy(f_d, p_d, base=2) for f_d, p_d in zip(f, p, strict=True)]
    )
    assert histogram_bits(train, test).pixel_histograms.mean() == pytest.approx(expected, rel=1e-12)


def test_add_half_is_the_predictive_probability_of_a_dirichlet_prior():
    """E[p(v) | counts] under Dirichlet(1/2, ..., 1/2) by Monte Carlo over gamma variables."""
    rng = np.random.default_rng(0)
    counts = np.zeros((1, LEVELS), np.int64)
    counts[0, [3, 200]] = [40, 9]
    gammas = rng.gamma(counts[0] + 0.5, size=(20_000, LEVELS))
    draws = gammas / gammas.sum(axis=1, keepdims=True)
    error = draws.std(axis=0) / np.sqrt(len(draws))
    z = (one_histogram(counts)[0] - draws.mean(axis=0)) / error
    assert np.abs(z).max() < 5  # 256 nearly normal errors: beyond 5 with probability 1.5e-4


def test_all_three_are_probabilities(small_images):
    counts = level_counts(small_images[0])
    for p, pixels in ((uniform(counts), 1), (one_histogram(counts), 1), (pixel_histograms(counts), 24)):
        assert p.shape == (pixels, LEVELS)
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)


def test_every_level_once_takes_eight_bits():
    """256 images of one level each: nothing can be learned but the range, and every smoothing is exact."""
    images = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None, None], (256, 1, 2, 2))
    found = histogram_bits(images, images)
    for bits in (found.uniform, found.histogram, found.pixel_histograms):
        np.testing.assert_allclose(bits, 8, rtol=1e-14)
    assert found.levels == 256


def test_constant_images_have_a_closed_form():
    """n images of D pixels of one level: p = (n D + 1/2) / (n D + 128), and per pixel (n + p) / (n + 1)."""
    n, d = 7, 12
    images = np.full((n, 3, 2, 2), 90, np.uint8)
    found = histogram_bits(images, images[:2])
    p = (n * d + 0.5) / (n * d + 128)
    np.testing.assert_array_equal(found.uniform, [0, 0])
    np.testing.assert_allclose(found.histogram, -math.log2(p), rtol=1e-14)
    np.testing.assert_allclose(found.pixel_histograms, -math.log2((n + p) / (n + 1)), rtol=1e-13)


def test_a_level_never_seen_takes_finitely_many_bits_but_under_the_uniform_code():
    train = np.zeros((5, 1, 1, 2), np.uint8)
    train[:, :, :, 1] = 1
    test = np.array([[[[0, 1]]], [[[0, 77]]]], np.uint8)
    found = histogram_bits(train, test)
    assert found.uniform.tolist() == [1, math.inf]
    p_0, p_77 = 5.5 / 138, 0.5 / 138
    assert found.histogram[1] == pytest.approx(-(math.log2(p_0) + math.log2(p_77)) / 2, rel=1e-14)
    each = -(math.log2((5 + p_0) / 6) + math.log2(p_77 / 6)) / 2
    assert found.pixel_histograms[1] == pytest.approx(each, rel=1e-14)


def test_training_images_in_any_order_give_the_same(small_images):
    train, test = small_images
    found, turned = histogram_bits(train, test), histogram_bits(train[::-1], test)
    np.testing.assert_array_equal(found.pixel_histograms, turned.pixel_histograms)


@pytest.mark.parametrize(
    ("by_class", "one", "each"),
    [(False, 2.9947, 2.4351), (True, 2.9779, 2.4203)],  # every fifth digit; the split of the data set
)
def test_digits_take_few_bits_without_any_model(by_class, one, each):
    """17 levels, and a margin that is nearly always empty: the codelengths that were measured."""
    train, test = (load(DataSpec(name="digits", channels=1, side=8), split) for split in ("train", "test"))
    if by_class:
        found = histogram_bits(train.array, test.array)
    else:
        ids = np.concatenate([train.ids, test.ids])
        images = np.concatenate([train.array, test.array])[np.argsort(ids)]
        found = histogram_bits(*(images[every_nth(len(images), 5, split)] for split in ("train", "test")))
    assert found.levels == 17
    np.testing.assert_allclose(found.uniform, math.log2(17), rtol=1e-14)
    assert found.histogram.mean() == pytest.approx(one, abs=5e-5)
    assert found.pixel_histograms.mean() == pytest.approx(each, abs=5e-5)


def test_other_arrays_are_sentences():
    images = np.zeros((2, 1, 3, 3), np.uint8)
    with pytest.raises(ValueError, match=r"training images must be 8-bit levels \(uint8\), but are float64"):
        histogram_bits(images / 255, images)
    with pytest.raises(ValueError, match=r"test images must have shape .* but have \(0, 1, 3, 3\)"):
        histogram_bits(images, images[:0])
    with pytest.raises(ValueError, match=r"have shape \(1, 3, 3\), but test images \(1, 3, 2\)"):
        histogram_bits(images, images[..., :2])
