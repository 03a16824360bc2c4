"""What a figure shows, in words: the text for readers who cannot see it.

It is read off the finished figure: what each panel's axes are, and where each named line begins and ends.
"""

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D


def describe(figure: Figure) -> str:
    """Describe each panel of a figure of lines; of images, say only what the panels are called."""
    panels = [_describe_panel(ax) for ax in figure.axes]
    return " ".join(panel for panel in panels if panel)


def shows_images(figure: Figure) -> bool:
    """Tell whether a figure shows images."""
    return any(ax.images for ax in figure.axes)


def _describe_panel(ax: Axes) -> str:
    if ax.images:
        return _of_images(ax)
    names = " against ".join(_one_line(label) for label in (ax.get_ylabel(), ax.get_xlabel()) if label)
    lines = [_describe_line(line) for line in ax.lines if not str(line.get_label()).startswith("_")]
    return f"{names}: {'; '.join(lines)}." if lines else f"{names}."


def _of_images(ax: Axes) -> str:
    """Name the grid, and the columns where they have names."""
    columns = [label.get_text() for label in ax.get_xticklabels() if label.get_text()]
    named = f"columns {columns[0]} to {columns[-1]}" if columns else ""
    parts = [_one_line(ax.get_title()), _one_line(ax.get_xlabel()), named]
    return f"Grid of images: {', '.join(part for part in parts if part)}."


def _describe_line(line: Line2D) -> str:
    x, y = (np.asarray(values, dtype=np.float64) for values in line.get_data())
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return f"{line.get_label()} has no values"
    x, y = x[known], y[known]
    first, last = (f"{y[i]:.3g} at {x[i]:.4g}" for i in (0, -1))
    return f"{line.get_label()} {first}" if len(x) == 1 else f"{line.get_label()} from {first} to {last}"


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("$", "")).strip()
