"""From curves, sliders and choices to the plain data that the page's scripts read.

Numbers keep seven digits, more than a screen shows; what is not finite becomes null.
"""

import math
from collections.abc import Sequence

from ddpm_eval.reporting.mosaics import data_uri, mosaic, png
from ddpm_eval.reporting.report_parts import Choice, Curve, Line, Measure, ProgressiveSlider

DIGITS = 7
COLUMNS = 8
"""Images in a row of a slider."""


def curve_data(curve: Curve) -> dict[str, object]:
    """Return a curve as JSON has it."""
    return {
        "name": curve.name,
        "xlabel": curve.xlabel,
        "ylabel": curve.ylabel,
        "logarithmic": curve.logarithmic,
        "zooms": [[label, *ends] for label, ends in curve.zooms.items()],
        "lines": [_line(line) for line in curve.lines],
    }


def slider_data(slider: ProgressiveSlider) -> dict[str, object]:
    """Return a slider as JSON has it, each position's images as one picture."""
    pictures = [data_uri(png(mosaic(images, COLUMNS))) for images in slider.images]
    return {
        "name": slider.name,
        "steps": [int(step) for step in slider.steps],
        "pictures": pictures,
        "measures": [_measure(measure) for measure in slider.measures],
        "curve": None if slider.curve is None else curve_data(slider.curve),
        "marks": _numbers(slider.marks),
    }


def choice_data(choice: Choice) -> dict[str, object]:
    """Return a choice as JSON has it, each run's images as one picture."""
    options = [
        {
            "label": option.label,
            "picture": data_uri(png(mosaic(option.images, choice.columns))),
            "numbers": [list(pair) for pair in option.numbers.items()],
        }
        for option in choice.options
    ]
    return {"name": choice.name, "options": options}


def _line(line: Line) -> dict[str, object]:
    return {
        "name": line.name,
        "x": _numbers(line.x),
        "y": _numbers(line.y),
        "low": _numbers(line.low),
        "high": _numbers(line.high),
        "colour": line.colour,
        "marks": line.marks,
    }


def _measure(measure: Measure) -> dict[str, object]:
    parts = {"value": measure.value, "low": measure.low, "high": measure.high}
    return {"label": measure.label, **{name: _numbers(values) for name, values in parts.items()}}


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values]
