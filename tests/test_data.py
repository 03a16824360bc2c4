from fractions import Fraction

import numpy as np
import pytest
import torch

from ddpm_eval.data import load, to_model_range, to_pixels
from ddpm_eval.spec import DataSpec

DIGITS = DataSpec(name="digits", channels=1, side=8)


def test_model_range_is_correctly_rounded_at_every_level():
    levels = torch.arange(256, dtype=torch.uint8)
    exact = [np.float32(float(Fraction(2 * u - 255, 255))) for u in range(256)]  # one rounding to double is harmless here
    assert to_model_range(levels).tolist() == [float(x) for x in exact]


def test_pixels_invert_the_model_range_and_survive_noise_below_half_a_level():
    levels = torch.arange(256, dtype=torch.uint8)
    x = to_model_range(levels)
    assert torch.equal(to_pixels(x), levels)
    for shift in (-0.99 / 255, 0.99 / 255):  # half a level is 1 / 255 in the model's range
        assert torch.equal(to_pixels(x + shift), levels)
    assert torch.equal(to_pixels(x[:-1] + 1.01 / 255), levels[1:])


def test_pixels_clip_and_refuse_nan():
    assert to_pixels(torch.tensor([-9.0, -1.0, 1.0, float("inf")])).tolist() == [0, 0, 255, 255]
    with pytest.raises(ValueError, match="1 of 2 elements are NaN"):
        to_pixels(torch.tensor([0.0, float("nan")]))


def test_only_8_bit_images_are_mapped():
    with pytest.raises(ValueError, match=r"torch\.float32"):
        to_model_range(torch.zeros(3))


def test_digits_split(digits):
    train, test = digits
    assert (len(train), len(test)) == (1437, 360)
    assert (test.ids % 5 == 0).all()
    assert sorted([*train.ids, *test.ids]) == list(range(1797))


def test_digits_are_scikit_learns_levels(digits):
    from sklearn.datasets import load_digits

    original = load_digits()
    for split in digits:
        # multiples of 255 / 16 rounded: dividing back gives the original 17 levels exactly
        levels = np.round(split.array[:, 0] * (16 / 255))
        assert np.array_equal(levels, original.images[split.ids])
        assert np.array_equal(split.labels, original.target[split.ids])
        assert (split.array.min(), split.array.max()) == (0, 255)


def test_take_uses_positions(digits):
    index = np.array([3, 0, 3])
    assert np.array_equal(digits[1].take(index), digits[1].array[[3, 0, 3]])


def test_digest_identifies_the_split(digits):
    train, test = digits
    assert train.digest == load(DIGITS, "train").digest != test.digest


def test_wrong_shape_split_and_name_are_sentences():
    with pytest.raises(ValueError, match=r"1 channels and 8 pixels .* asks for 3 and 8"):
        load(DIGITS.model_copy(update={"channels": 3}), "train")
    with pytest.raises(ValueError, match="no split 'valid'"):
        load(DIGITS, "valid")
    with pytest.raises(ValueError, match="no data set 'digitz'"):
        load(DIGITS.model_copy(update={"name": "digitz"}), "train")
