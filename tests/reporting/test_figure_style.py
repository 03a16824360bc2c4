"""What all figures keep to: plain numbers on axes, colours that differ, texts that do not overlap."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from ddpm_eval.reporting.figure_style import COLOURS
from ddpm_eval.reporting.plots import plot_training


@pytest.mark.parametrize(
    ("low", "high", "labels"), [(0.6, 1.1, ["0.6", "0.8", "1"]), (2, 40, ["2", "5", "10", "20"])]
)
def test_logarithmic_axes_have_plain_numbers(low, high, labels):
    frame = pd.DataFrame({"update": [1, 2], "loss": [low, high], "gradient_norm": [low, high]})
    figure = plot_training(frame, "loss")
    figure.draw_without_rendering()
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels(which="both")]
    assert set(labels) <= set(shown)
    assert not any("times" in text for text in shown)


def test_no_text_is_clipped_and_no_labels_overlap(figures):
    for figure in figures:
        figure.draw_without_rendering()
        width, height = figure.canvas.get_width_height()
        labels = [
            text
            for ax in figure.axes
            for text in (ax.xaxis.label, ax.yaxis.label, ax.title)
            if text.get_text()
        ]
        boxes = [text.get_window_extent() for text in labels]
        for box in boxes:
            assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_line_colours_differ_for_the_colour_blind():
    """Luminance separates the first two colours as well as hue does, so that they differ in print, too."""
    luminance = [np.dot(to_rgb(colour), [0.2126, 0.7152, 0.0722]) for colour in COLOURS[:2]]
    assert abs(luminance[0] - luminance[1]) > 0.15
