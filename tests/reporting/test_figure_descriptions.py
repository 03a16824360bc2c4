"""The text for readers who cannot see a figure says what its axes and lines are."""

import numpy as np

from ddpm_eval.reporting.figure_descriptions import describe, shows_images
from ddpm_eval.reporting.image_grids import plot_columns, plot_samples
from ddpm_eval.reporting.plots import plot_rate_distortion


def test_each_line_is_described_by_its_ends(curve):
    figure = plot_rate_distortion(curve)
    text = describe(figure)
    assert (
        "distortion (RMSE on 0-255) against reverse steps taken: this model from 91 at 1 to 10 at 10." in text
    )
    assert "rate (bits/dim) against reverse steps taken: this model from 0.1 at 1 to 1 at 10." in text
    assert not shows_images(figure)


def test_grids_of_images_are_named():
    images = np.zeros((2, 3, 1, 8, 8), np.uint8)
    figure = plot_columns(images, ["10", "20"], "reverse steps taken")
    assert describe(figure) == "Grid of images: reverse steps taken, columns 10 to 20."
    assert shows_images(figure)
    assert describe(plot_samples({"samples": images[0]})) == "Grid of images: samples."
