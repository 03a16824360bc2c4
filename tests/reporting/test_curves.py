"""The lines that a reader can read off hold a table's numbers."""

import math

import pandas as pd
import pytest

from ddpm_eval.reporting import curves


def test_a_line_holds_a_columns_numbers_in_the_order_of_the_abscissa():
    frame = pd.DataFrame(
        {"x": [2, 1], "y": [3.0, math.nan], "y_low": [2.0, math.nan], "y_high": [4.0, math.nan]}
    )
    (line,) = curves.lines_of(frame, "x", "y")
    assert (line.name, line.x, line.high[1], line.low[1]) == ("this model", [1, 2], 4.0, 2.0)
    assert math.isnan(line.y[0])
    (without,) = curves.lines_of(frame[["x", "y"]], "x", "y")
    assert (without.low, without.high) == ([], [])


def test_lines_of_several_runs_keep_the_colours_of_their_meanings():
    frame = pd.DataFrame({"method": ["ddim", "ancestral", "new"], "x": [1, 1, 1], "y": [1.0, 2.0, 3.0]})
    lines = curves.lines_of(frame, "x", "y", "method")
    assert [(line.name, line.colour) for line in lines] == [("ddim", 1), ("ancestral", 0), ("new", 2)]


def test_a_yardstick_is_level_and_has_no_colour():
    frame = pd.DataFrame({"x": [1, 5, 3]})
    (line,) = curves.yardstick("test images", 2.0, frame, "x")
    assert (line.x, line.y, line.colour) == ([1, 5], [2.0, 2.0], None)
    assert curves.yardstick("test images", math.nan, frame, "x") == []


@pytest.mark.parametrize(("steps", "ranges"), [(100, {}), (1000, {"last 100 steps": (901, 1000)})])
def test_long_chains_can_be_zoomed_into_their_end(steps, ranges):
    assert curves.zoom_into_the_end(steps) == ranges
