"""What the page's scripts read."""

import io
from base64 import b64decode

import numpy as np
from PIL import Image

from ddpm_eval.reporting.interactive_data import choice_data, curve_data, slider_data
from ddpm_eval.reporting.mosaics import mosaic
from ddpm_eval.reporting.report_parts import Choice, Curve, Line, Measure, Option, ProgressiveSlider


def test_numbers_keep_seven_digits_and_others_become_null():
    line = Line("a", [1, 2, 3], [1 / 3, np.nan, np.inf], marks=True)
    data = curve_data(Curve("c", "f", "x", "y", [line], zooms={"end": (2, 3)}))
    assert data["lines"][0]["y"] == [0.3333333, None, None]
    assert (data["lines"][0]["low"], data["lines"][0]["marks"]) == ([], True)
    assert data["zooms"] == [["end", 2, 3]]


def test_a_slider_has_a_picture_of_all_samples_for_each_position():
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 1, 2, 2)
    measure = Measure("rate", [1.0, 2.0], [0.5, 1.5], [1.5, 2.5])
    data = slider_data(ProgressiveSlider("s", "Title", "Caption.", np.array([1, 9]), images, [measure]))
    assert (data["steps"], data["curve"], data["marks"]) == ([1, 9], None, [])
    for picture, shown in zip(data["pictures"], images, strict=True):
        pixels = Image.open(io.BytesIO(b64decode(picture.partition(",")[2])))
        np.testing.assert_array_equal(np.asarray(pixels), mosaic(shown, 8))


def test_a_choice_has_a_picture_and_the_numbers_of_each_run():
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 1, 2, 2)
    options = [Option("a", images, {"score": "2.0"}), Option("b", images[:1])]
    data = choice_data(Choice("c", "Title", "Caption.", options, 2))
    assert [(option["label"], option["numbers"]) for option in data["options"]] == [
        ("a", [["score", "2.0"]]),
        ("b", []),
    ]
    pixels = Image.open(io.BytesIO(b64decode(data["options"][0]["picture"].partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(pixels), mosaic(images, 2))
