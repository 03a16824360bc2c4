"""Colours are told apart from the page: at least 3:1 for graphics, on light and on dark."""

import pytest
from matplotlib.colors import to_rgb

from ddpm_eval.reporting.colours import DARK, GREY, LIGHT, MEANINGS, colour_index


def luminance(colour):
    """Relative luminance, WCAG 2.2."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_has_the_values_of_its_definition():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(
    ("colours", "papers"), [((*LIGHT, GREY), ("#ffffff", "#f5f7fa")), (DARK, ("#14171b", "#1d2228"))]
)
def test_lines_are_seen_on_their_paper(colours, papers):
    assert min(contrast(colour, paper) for colour in colours for paper in papers) >= 3


def test_each_colour_has_a_light_and_a_dark_form():
    assert len(LIGHT) == len(DARK) == len(set(LIGHT)) == len(set(DARK))


def test_a_meaning_has_one_colour_wherever_it_stands():
    assert colour_index("eps", 5) == colour_index("eps", 0) == MEANINGS["eps"]
    assert [colour_index("another run", position) for position in (0, 1, 8)] == [0, 1, 0]
