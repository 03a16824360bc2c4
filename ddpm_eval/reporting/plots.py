"""From finished tables to figures of numbers: points, lines and bands with intervals; nothing is computed.

Intervals lie in the columns of `estimate_columns`. A column ``run`` (or another one where said) tells several
lines apart.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from ddpm_eval.reporting.colours import GREY
from ddpm_eval.reporting.estimate_columns import estimate_columns
from ddpm_eval.reporting.figure_style import (
    COLOURS,
    INK,
    MARKERS,
    Colour,
    colour_of,
    finish,
    make_logarithmic,
    style,
)
from ddpm_eval.reporting.tables import PAPER, heading
from ddpm_eval.results.fields import Array

LINE_STYLES = ("-", "--", "-.")
APART_POINTS = 4.0
"""How far the intervals of neighbouring lines are drawn apart, so that they can be told apart."""
YARDSTICK = "test images"
CLASS_SHIFT = 0.12
"""How far the points of samples and data stand beside a class's place, whose distance is 1."""


def plot_training(
    frame: pd.DataFrame,
    loss_label: str,
    *,
    targets: Mapping[str, Sequence[str]] | None = None,
    clip_norm: float | None = None,
) -> Figure:
    """Draw loss and gradient norm over updates, on logarithmic axes.

    Args:
        frame: of `ddpm_eval.reporting.training_tables.training_curve`; a column ``run`` tells runs apart.
        loss_label: what the loss is, with its unit.
        targets: the runs that predict each target, whose losses have a panel each: they are of different
            quantities.
        clip_norm: the norm to which gradients are clipped, drawn as a line.
    """
    groups = dict(targets or {})
    with style():
        figure = Figure(figsize=(3.5 * (max(len(groups), 1) + 1), 2.8), layout="constrained")
        *losses, norms = figure.subplots(1, max(len(groups), 1) + 1)
        _draw_training(norms, frame, "gradient_norm", groups)
        norms.set_ylabel("gradient norm before clipping")
        for ax, target in zip(losses, groups or [None], strict=True):
            shown = frame if target is None else frame[frame["run"].isin(groups[target])]
            _draw_training(ax, shown, "loss", groups)
            ax.set_ylabel(loss_label if target is None else f"{loss_label}\n({target})")
        if clip_norm is not None:
            norms.axhline(clip_norm, color=GREY, linestyle=":", linewidth=1, label="clipped above")
        finish(figure, [norms, *losses], always="run" in frame)
    return figure


def plot_rate_distortion(
    curve: pd.DataFrame, paper: pd.DataFrame | None = None, constant: float | None = None
) -> Figure:
    """Draw Fig. 5: distortion and rate against reverse steps, distortion against rate, with interval bands.

    Args:
        curve: of `ddpm_eval.reporting.rate_distortion_tables.rate_distortion_curve`; a column ``run`` tells
            several curves apart.
        paper: the paper's reverse_steps, rate_bits_per_dim, rmse_255, drawn as points; over reverse steps
            only beside a chain of as many.
        constant: the error of one image as the estimate of all, drawn as a line that estimates should be
            below.
    """
    steps = ("reverse_steps", "reverse steps taken")
    distortion = ("rmse_255", "distortion (RMSE on 0-255)")
    rate = ("rate_bits_per_dim", "rate (bits/dim)")
    with style():
        figure = Figure(figsize=(9.0, 3.1), layout="constrained")
        axes = figure.subplots(1, 3)
        panels = ((steps, distortion), (steps, rate), (rate, distortion))
        for ax, ((x, xlabel), (y, ylabel)) in zip(axes, panels, strict=True):
            for name, part, colour, _ in _lines(curve, "run"):
                _draw_band(ax, part, x, y, colour, name or "this model")
            if paper is not None and (x != "reverse_steps" or curve[x].max() == paper[x].max()):
                ax.plot(paper[x], paper[y], "x", color=GREY, markersize=5, label=PAPER)
            if constant is not None and y == "rmse_255":
                ax.axhline(constant, color=GREY, linestyle=":", linewidth=1, label="mean training image")
            ax.set(xlabel=xlabel, ylabel=ylabel)
            ax.set_ylim(bottom=0)
        finish(figure, axes[::-1])
    return figure


def plot_terms(frame: pd.DataFrame) -> Figure:
    """Draw each term of the bound against t, with its interval and the floor that the reverse variance sets.

    Args:
        frame: of `ddpm_eval.reporting.bound_tables.terms_table`.
    """
    with style():
        figure = Figure(figsize=(5.5, 3.4), layout="constrained")
        ax = figure.subplots()
        bounds = {"low": "bits_per_dim_low", "high": "bits_per_dim_high"}
        _draw_band(ax, frame.rename(columns=bounds), "t", "bits_per_dim", COLOURS[0], "term")
        floor = frame[frame["floor_bits_per_dim"].gt(0)]
        if len(floor):
            ax.plot(floor["t"], floor["floor_bits_per_dim"], ":", color=GREY, label="variance floor")
        make_logarithmic(ax, "x", "y")
        ax.set(xlabel="t (t = 1: decoder)", ylabel="term of the bound (bits/dim)")
        positive = frame.loc[frame["bits_per_dim"] > 0, "bits_per_dim"]
        ax.set_ylim(bottom=positive.min() / 10)  # bounds at or below zero run out of the picture
        finish(figure, [ax], always=True)
    return figure


def plot_ranges(frame: pd.DataFrame) -> Figure:
    """Draw where the bits go: the terms of each range of t with intervals, each with its share of the bound.

    Args:
        frame: of `ddpm_eval.reporting.term_ranges.range_table`.
    """
    places = range(len(frame))
    with style():
        figure = Figure(figsize=(6.5, 3.2), layout="constrained")
        ax = figure.subplots()
        ax.bar(places, frame["bits_per_dim"], color=COLOURS[0], width=0.7)
        ax.vlines(places, frame["low"], frame["high"], color=INK, linewidth=1)
        for place, high, share in zip(places, frame["high"], frame["share"], strict=True):
            ax.annotate(f"{100 * share:.2g}%", (place, high), (0, 3), textcoords="offset points", ha="center")
        ax.set_xticks(places, frame["t"].tolist())
        ax.set(xlabel="t (t = 1: decoder)", ylabel="bits/dim, with the share of all")
        finish(figure, [ax])
    return figure


def plot_objectives(frame: pd.DataFrame) -> Figure:
    """Draw how L and L_simple weight the terms, the terms of a model of each, and how these differ.

    Args:
        frame: of `ddpm_eval.reporting.term_ranges.objective_table`.
    """
    places = np.arange(len(frame))
    with style():
        figure = Figure(figsize=(9.5, 3.4), layout="constrained")
        weights, bits, differences = figure.subplots(1, 3)
        for k, (name, objective) in enumerate((("l", "L"), ("l_simple", "L_simple"))):
            colour = colour_of(objective, k)
            weights.plot(places, frame[f"weight_{name}"], "o-", color=colour, markersize=4, label=objective)
            _draw_ranges(bits, frame, f"{name}_bits_per_dim", colour, places + 0.24 * k - 0.12)
        _draw_ranges(differences, frame, "difference_bits_per_dim", INK, places)
        differences.axhline(0, color=GREY, linestyle=":", linewidth=1)
        make_logarithmic(weights, "y")
        make_logarithmic(bits, "y")
        weights.set_ylabel("weight of the error of eps (mean: 1)")
        bits.set_ylabel("terms of the bound (bits/dim)")
        differences.set_ylabel("L_simple minus L (bits/dim)")
        for ax in (weights, bits, differences):
            ax.set_xticks(places, frame["t"].tolist(), rotation=60)
            ax.set_xlabel("t (t = 1: decoder)")
        finish(figure, [weights])
    return figure


def plot_step_differences(frame: pd.DataFrame) -> Figure:
    """Draw where models differ from the first of them: each term against t, and all terms up to t together.

    Args:
        frame: of `ddpm_eval.reporting.bound_comparisons.step_differences`.
    """
    panels = {
        "difference_bits_per_dim": "difference of the term at t (bits/dim)",
        "cumulated_bits_per_dim": "difference of all terms up to t (bits/dim)",
    }
    with style():
        figure = Figure(figsize=(8.0, 3.4), layout="constrained")
        axes = figure.subplots(1, len(panels))
        for ax, (column, label) in zip(axes, panels.items(), strict=True):
            for name, part, colour, _ in _lines(frame, "run"):
                _draw_band(ax, part, "t", column, colour, str(name))
            make_logarithmic(ax, "x")
            ax.set(xlabel="t (t = 1: decoder)", ylabel=label)
        finish(figure, axes)
    return figure


def plot_against(
    frame: pd.DataFrame, x: str, y: str, *, xlabel: str, ylabel: str, log: bool = False, by: str = "run"
) -> Figure:
    """Draw one quantity against another as points with intervals, joined by lines.

    Args:
        frame: columns ``x``, ``y`` and, where they exist, the bounds of ``y``.
        x: column of the abscissa.
        y: column of the ordinate.
        xlabel: with the unit.
        ylabel: with the unit.
        log: whether both axes are logarithmic.
        by: column that tells several lines apart, where it exists.
    """
    with style():
        figure = Figure(figsize=(5.0, 3.4), layout="constrained")
        ax = figure.subplots()
        _draw_points(ax, frame, x, y, by)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        if log:
            make_logarithmic(ax, "x", "y")
        finish(figure, [ax])
    return figure


def plot_quality(
    frame: pd.DataFrame, x: str, xlabel: str, features: str, yardstick: float | None = None
) -> Figure:
    """Draw Frechet distance and score against a column, and distance against time where that is known.

    Args:
        frame: of `ddpm_eval.reporting.quality_tables.quality_over_time` or `quality_over_steps`; a column
            ``method`` tells several lines apart.
        x: column of the abscissa.
        xlabel: what it is.
        features: the extractor.
        yardstick: the distance of the test images to the training images, drawn as a line.
    """
    panels = [(x, xlabel, "frechet_distance"), (x, xlabel, "score")]
    if "seconds_per_image" in frame:
        panels.append(("seconds_per_image", "seconds per image", "frechet_distance"))
    with style():
        figure = Figure(figsize=(3.1 * len(panels), 3.0), layout="constrained")
        axes = figure.subplots(1, len(panels))
        for ax, (column, label, metric) in zip(axes, panels, strict=True):
            _draw_points(ax, frame, column, metric, "method")
            ax.set(xlabel=label, ylabel=_with_features(metric, features))
            if "method" in frame:
                make_logarithmic(ax, "x")
            if metric == "frechet_distance":
                make_logarithmic(ax, "y")
                _draw_yardstick(ax, yardstick)
        finish(figure, axes, always=yardstick is not None)
    return figure


def plot_classes(frame: pd.DataFrame) -> Figure:
    """Draw the share of each class among the samples and among the data as points with intervals.

    Args:
        frame: of `ddpm_eval.reporting.coverage_tables.class_table`.
    """
    classes = frame["class"].drop_duplicates().to_numpy()
    with style():
        figure = Figure(figsize=(5.0, 2.6), layout="constrained")
        ax = figure.subplots()
        for position, (name, part, colour, marker) in enumerate(_lines(frame, "images")):
            x = np.arange(len(classes)) + CLASS_SHIFT * (2 * position - 1)
            ax.plot(x, part["share"], marker, color=colour, markersize=4, label=name)
            ax.vlines(x, part["share_low"], part["share_high"], color=colour)
        ax.set_xticks(range(len(classes)), [str(label) for label in classes])
        ax.set(xlabel="class that the classifier assigns", ylabel="share of images")
        ax.set_ylim(bottom=0)
        finish(figure, [ax], always=True)
    return figure


def _lines(frame: pd.DataFrame, by: str) -> Iterator[tuple[str | None, pd.DataFrame, Colour, str]]:
    """Give each line's name, rows, colour and marker; without the column ``by`` there is one line."""
    if by not in frame:
        yield None, frame, COLOURS[0], MARKERS[0]
        return
    lines = frame.groupby(by, sort=False)
    for (position, (name, part)), marker in zip(enumerate(lines), cycle(MARKERS), strict=False):
        yield str(name), part, colour_of(str(name), position), marker


def _draw_training(ax: Axes, frame: pd.DataFrame, column: str, targets: Mapping[str, Sequence[str]]) -> None:
    """Draw a column over updates: a colour for each target, a line style for each run of a target."""
    places = {run: (target, k) for target, runs in targets.items() for k, run in enumerate(runs)}
    for name, part, colour, _ in _lines(frame, "run"):
        target, rank = places.get(str(name), (None, 0))
        shade = colour if target is None else colour_of(target, 0)
        dashes = LINE_STYLES[rank % len(LINE_STYLES)]
        ax.plot(part["update"], part[column], color=shade, linestyle=dashes, linewidth=1.2, label=name)
    ax.set_xlabel("update")
    make_logarithmic(ax, "y")


def _draw_points(ax: Axes, frame: pd.DataFrame, x: str, y: str, by: str) -> None:
    """Draw lines through points with their intervals, where ``y`` has any; those of several lines apart."""
    _, low, high = estimate_columns(y)
    count = frame[by].nunique() if by in frame and low in frame else 1
    figure = ax.get_figure()
    assert figure is not None
    for position, (name, rows, colour, marker) in enumerate(_lines(frame, by)):
        part = rows.sort_values(x)
        shift = APART_POINTS * (position - (count - 1) / 2) / 72 if count > 1 else 0.0
        place = ax.transData + ScaledTranslation(shift, 0, figure.dpi_scale_trans)
        drawn: list[Artist] = [
            *ax.plot(part[x], part[y], color=colour, marker=marker, markersize=4, linewidth=1, label=name)
        ]
        if low in part:
            drawn.append(ax.vlines(part[x], part[low], part[high], color=colour))
        for artist in drawn:  # only now: the axes' limits come from the data
            artist.set_transform(place)


def _draw_ranges(ax: Axes, frame: pd.DataFrame, column: str, colour: Colour | str, places: Array) -> None:
    """Draw a point with its interval for each range of t."""
    value, low, high = (frame[name] for name in estimate_columns(column))
    ax.plot(places, value, "o", color=colour, markersize=4)
    ax.vlines(places, low, high, color=colour)


def _draw_yardstick(ax: Axes, yardstick: float | None) -> None:
    if yardstick is not None and math.isfinite(yardstick):
        ax.axhline(yardstick, color=GREY, linestyle="--", linewidth=1, label=YARDSTICK)


def _draw_band(ax: Axes, rows: pd.DataFrame, x: str, y: str, colour: Colour, label: str) -> None:
    """Draw a line within the band of its intervals."""
    _, low, high = estimate_columns(y)
    part = rows.sort_values(x)
    ax.plot(part[x], part[y], color=colour, linewidth=1.4, label=label)
    ax.fill_between(part[x], part[low], part[high], color=colour, alpha=0.25, linewidth=0)


def _with_features(column: str, features: str) -> str:
    """Return the heading of a column, and below it the features in which it was measured."""
    label = heading(column, features)
    return label if column == "bits_per_dim" else f"{label}\n({features or 'several extractors'})"
