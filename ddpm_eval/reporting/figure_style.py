"""How figures look: colours that the colour-blind tell apart, fonts, logarithmic axes, legends.

Figures are built without pyplot and within `style`, so nothing global is touched.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from ddpm_eval.reporting.colours import LIGHT, colour_index

COLOURS = tuple(map(to_rgb, LIGHT))
MARKERS = ("o", "s", "D", "^", "v", "P")
LEGEND_COLUMNS = 3
BETWEEN = (2.0, 5.0)
"""Ticks between powers of ten; an axis whose ends differ by less than the factor below has all of 1 to 9."""
FEW_DECADES = 5.0
INK = "0.15"  # of the style's axes and labels

Colour = tuple[float, float, float]


def colour_of(name: str, position: int) -> Colour:
    """Return the colour of what a line is of: that of its meaning, else that of its position."""
    return COLOURS[colour_index(name, position)]


def style() -> AbstractContextManager[None]:
    """Set matplotlib's parameters for figures while a block runs."""
    return mpl.rc_context(
        {
            **sns.axes_style("ticks", {"axes.spines.right": False, "axes.spines.top": False}),
            "font.size": 9.0,
            "axes.labelsize": 9.0,
            "axes.titlesize": 9.0,
            "legend.fontsize": 8.5,
            "xtick.labelsize": 8.0,
            "ytick.labelsize": 8.0,
            "pdf.fonttype": 42,  # TrueType, whose letters can be selected
        }
    )


def finish(figure: Figure, axes: Sequence[Axes], always: bool = False) -> None:
    """Put a legend above the figure where there is more than one line.

    Args:
        figure: to finish.
        axes: of which the first has every line.
        always: whether a single line has a legend, too.
    """
    handles, labels = axes[0].get_legend_handles_labels()
    if len(handles) > 1 or (always and handles):
        columns = 2 if len(labels) == 4 else LEGEND_COLUMNS
        figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)


def make_logarithmic(ax: Axes, *names: Literal["x", "y"]) -> None:
    """Make axes logarithmic with plain numbers.

    Where an axis spans few decades, there are numbers between the powers of ten, too.
    """
    for name in names:
        ax.set(**{f"{name}scale": "log"})
        axis = ax.xaxis if name == "x" else ax.yaxis
        low, high = axis.get_view_interval()
        if high > FEW_DECADES * low:
            axis.set_minor_locator(LogLocator(subs=BETWEEN))
        axis.set_major_formatter(FuncFormatter(_plain_tick))
        axis.set_minor_formatter(
            FuncFormatter(lambda value, _, axis=axis: _minor_tick(value, *axis.get_view_interval()))
        )


def _plain_tick(value: float, _: object = None) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e4 else f"$10^{{{round(math.log10(value))}}}$"


def _minor_tick(value: float, low: float, high: float) -> str:
    decades = math.log10(high / low)
    leading = value / 10 ** math.floor(math.log10(value) + 1e-9)
    shown = () if decades > 2 else BETWEEN if 10**decades > FEW_DECADES else range(1, 10)
    return f"{value:g}" if round(leading) in shown else ""
