"""From finished tables to the lines of curves whose values a reader can read off; nothing is computed."""

import math

import pandas as pd

from ddpm_eval.reporting.colours import colour_index
from ddpm_eval.reporting.estimate_columns import bounds_of
from ddpm_eval.reporting.report_parts import Line
from ddpm_eval.reporting.tables import PAPER

THIS = "this model"
LAST_STEPS = 100
ZOOM_FROM = 200
"""The shortest chain whose last steps can be zoomed into by a button."""


def lines_of(frame: pd.DataFrame, x: str, y: str, by: str = "run") -> list[Line]:
    """Return the lines of a quantity with its intervals, where it has any.

    Args:
        frame: columns ``x``, ``y`` and, where they exist, the bounds of ``y``.
        x: column of the abscissa.
        y: column of the ordinate.
        by: column that tells several lines apart, where it exists.
    """
    if by not in frame:
        return [_line(frame, x, y, THIS, 0)]
    groups = frame.groupby(by, sort=False)
    return [
        _line(part, x, y, str(name), colour_index(str(name), position))
        for position, (name, part) in enumerate(groups)
    ]


def papers_marks(frame: pd.DataFrame, x: str, y: str) -> Line:
    """Return the paper's values as marks, from columns ``x`` and ``y``."""
    part = frame.sort_values(x)
    return Line(PAPER, part[x].tolist(), part[y].tolist(), marks=True)


def yardstick(name: str, value: float, frame: pd.DataFrame, x: str) -> list[Line]:
    """Return a level line over the range of ``x``; none if the value is not known."""
    ends = [float(frame[x].min()), float(frame[x].max())]
    return [Line(name, ends, [value, value])] if math.isfinite(value) else []


def zoom_into_the_end(steps: int) -> dict[str, tuple[float, float]]:
    """Return the range of the last steps of a long reverse process, by its name."""
    if steps < ZOOM_FROM:
        return {}
    return {f"last {LAST_STEPS} steps": (steps - LAST_STEPS + 1, steps)}


def _line(frame: pd.DataFrame, x: str, y: str, name: str, colour: int) -> Line:
    part = frame.sort_values(x)
    bounds = bounds_of(part, y)
    low, high = ([], []) if bounds is None else (part[bound].astype(float).tolist() for bound in bounds)
    return Line(name, part[x].tolist(), part[y].astype(float).tolist(), low, high, colour)
