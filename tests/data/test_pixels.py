from fractions import Fraction

import numpy as np
import pytest
import torch

from ddpm_eval.data.pixels import to_model_range, to_pixels


def test_model_range_is_correctly_rounded_at_every_level():
    levels = torch.arange(256, dtype=torch.uint8)
    exact = [
        np.float32(float(Fraction(2 * u - 255, 255))) for u in range(256)
    ]  # the step through double changes nothing here
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
