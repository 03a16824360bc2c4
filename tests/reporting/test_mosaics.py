"""Which pixels a grid of images has, and that its PNG keeps them."""

import io
from base64 import b64decode

import numpy as np
from PIL import Image

from ddpm_eval.reporting.mosaics import data_uri, mosaic, png

IMAGES = np.arange(3 * 4, dtype=np.uint8).reshape(3, 1, 2, 2) * 20


def test_images_lie_in_reading_order_one_pixel_apart():
    canvas = mosaic(IMAGES, columns=2)
    assert canvas.shape == (5, 5, 3)
    np.testing.assert_array_equal(canvas[3:, :2, 0], IMAGES[2, 0])
    assert (canvas[2] == 255).all()


def test_a_png_in_the_page_has_the_same_pixels():
    canvas = mosaic(IMAGES, columns=3)
    kind, _, content = data_uri(png(canvas)).partition(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(b64decode(content)))), canvas)
    assert png(canvas) == png(canvas.copy())
