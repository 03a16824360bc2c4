"""Table 2 as a figure: each cell a point with its interval, beside the paper's values; nothing is computed.

Where the features are the paper's, its values are crosses in the same panels; else they have panels of their
own, since distances and scores of other features cannot share an axis.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm_eval.reporting.colours import GREY
from ddpm_eval.reporting.estimate_columns import estimate_columns
from ddpm_eval.reporting.figure_style import colour_of, make_logarithmic, style
from ddpm_eval.reporting.plots import YARDSTICK
from ddpm_eval.reporting.tables import INCEPTION, PAPER, features_of, format_estimate, heading

WIDE = 20
"""Values that differ by more than this factor are drawn on a logarithmic axis."""
CLOSE = 1.1
"""Values within this factor of the lowest are told apart in a panel of their own."""
PUBLISHED = {"frechet_distance": "paper_fid", "score": "paper_inception_score"}
"""Columns of the paper's values."""
MEASURED = ("frechet_distance", "score", "bits_per_dim")
MARGIN = 0.18
"""Empty space beside the outermost points, as a share of the panel, in which their numbers fit."""
ROW_INCHES = 2.7
WIDTH_INCHES = 9.0
MOST_IN_A_ROW = 3


@dataclass(frozen=True)
class Panel:
    """A column of the table that is drawn, whether it is the paper's, and whether only its lowest values are.

    Attributes:
        column: of the table.
        label: of the axis.
        published: whether the column holds the paper's values.
        close: whether the axis ends above the lowest values.
    """

    column: str
    label: str
    published: bool = False
    close: bool = False


def plot_ablation(table: pd.DataFrame) -> Figure:
    """Draw Table 2 as points with intervals: sample quality and bits/dim; a cell without numbers says why.

    A dashed line marks the distance of the test images to the training images; crosses are the paper's
    values. Where bits/dim differ by much, their lowest values have a panel of their own.

    Args:
        table: of `ddpm_eval.reporting.ablation_table.ablation_table`.
    """
    names = [f"{row.prediction}, {row.objective}, {row.variance}" for row in table.itertuples()]
    panels = _panels(table)
    columns = min(len(panels), MOST_IN_A_ROW)
    rows = -(-len(panels) // columns)
    with style():
        figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * rows), layout="constrained")
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for ax, panel in zip(axes.flat, panels, strict=False):
            _draw(ax, table, panel)
        for ax in axes.flat[len(panels) :]:
            ax.set_axis_off()
        for first in axes[:, 0]:
            first.set_yticks(range(len(names)), names)
        axes[0, 0].set_ylim(len(names) - 0.5, -0.8)  # the first cell above, its number below the frame
    return figure


def _panels(table: pd.DataFrame) -> list[Panel]:
    features = features_of(table)
    panels = [Panel(column, _label(column, features)) for column in MEASURED]
    if features != INCEPTION:
        known = {column: name for column, name in PUBLISHED.items() if name in table}
        panels += [Panel(name, _paper_label(column), published=True) for column, name in known.items()]
    bits = table["bits_per_dim"].astype(float)
    near = bits <= CLOSE * bits.min()
    if near.sum() > 1 and not near[bits.notna()].all():
        panels.append(Panel("bits_per_dim", "bits/dim, the lowest", close=True))
    return panels


def _label(column: str, features: str) -> str:
    """Return the heading of a column, and below it the features in which it was measured."""
    label = heading(column, features)
    return label if column == "bits_per_dim" else f"{label}\n({features or 'several extractors'})"


def _paper_label(column: str) -> str:
    return f"{heading(column, INCEPTION)} of the paper\n(CIFAR-10, Inception)"


def _draw(ax: Axes, table: pd.DataFrame, panel: Panel) -> None:
    """Draw one column of all cells."""
    ax.margins(x=MARGIN)
    if panel.published:
        _draw_published(ax, table[panel.column].astype(float))
    else:
        _draw_measured(ax, table, panel)
    if not panel.published and not panel.close:
        _mark_known(ax, table, panel.column)
    ax.set_xlabel(panel.label)
    ax.grid(axis="y", color="0.9")


def _draw_measured(ax: Axes, table: pd.DataFrame, panel: Panel) -> None:
    """Draw a point with its interval for each cell, or a word where there is no number."""
    value, low, high = (table[name].astype(float) for name in estimate_columns(panel.column))
    inside = value <= CLOSE * value.min() if panel.close else value.notna()
    colours = [colour_of(prediction, 0) for prediction in table.loc[inside, "prediction"]]
    rows = np.flatnonzero(inside)
    ax.hlines(rows, low[inside], high[inside], colors=colours)
    ax.scatter(value[inside], rows, c=colours, s=22, zorder=3)
    for row, status in enumerate(table["status"]):
        if math.isnan(value.iloc[row]):
            _write(ax, row, status if status != "ok" else "not measured")
            continue
        number = format_estimate(value.iloc[row], low.iloc[row], high.iloc[row]).partition(" ")[0]
        if inside.iloc[row]:
            _label_point(ax, value.iloc[row], row, number)
        else:
            _write(ax, row, f"outside, at {number}")
    if value[inside].min() > 0 and value[inside].max() > WIDE * value[inside].min():
        make_logarithmic(ax, "x")


def _draw_published(ax: Axes, values: pd.Series) -> None:
    """Draw the paper's values as crosses; a cell that the paper left blank says so."""
    rows = np.arange(len(values))
    ax.plot(values, rows, "x", color=GREY, markersize=6, label=PAPER)
    for row, value in enumerate(values):
        if math.isnan(value):
            _write(ax, row, "blank in the paper")
        else:
            _label_point(ax, value, row, f"{value:.2f}")


def _mark_known(ax: Axes, table: pd.DataFrame, column: str) -> None:
    """Draw the distance of the test images, and the paper's values where they are of the same features."""
    if column == "frechet_distance":
        for distance in table["reference_distance"].dropna().unique():
            ax.axvline(distance, color=GREY, linestyle="--", linewidth=1, label=YARDSTICK)
    name = PUBLISHED.get(column, "")
    if features_of(table) == INCEPTION and name in table:
        rows = np.arange(len(table))
        ax.plot(table[name].astype(float), rows, "x", color=GREY, markersize=6, label=PAPER, zorder=2.5)


def _write(ax: Axes, row: int, text: str) -> None:
    place = ax.get_yaxis_transform()
    ax.text(0.5, row, text, transform=place, ha="center", va="center", color="0.4", style="italic")


def _label_point(ax: Axes, value: float, row: int, text: str) -> None:
    """Write a point's number above it: on a logarithmic axis near points look like one."""
    ax.annotate(
        text, (value, row), xytext=(0, 4), textcoords="offset points", ha="center", va="bottom", fontsize=7.5
    )
