"""Figures that show grids of images, and the table of what they show.

Images are uint8 ``[image, channel, row, column]`` and are shown unaltered: grey ones as three equal channels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm_eval.reporting.figure_style import style
from ddpm_eval.reporting.mosaics import mosaic
from ddpm_eval.results.fields import Array

PANEL_INCHES = 3.4
WIDTH_INCHES = 7.0
GROUP_SPACE = 0.08
"""Space between groups of columns, as a share of their mean width."""
NOTE_SHARE = 0.3
"""Space for a number below an image, as a share of the image's height."""


def pixel_table(panels: Mapping[str, Array]) -> pd.DataFrame:
    """List images as rows: panel, image, and the 8-bit level of each ``channel_row_column``.

    Args:
        panels: uint8 ``[image, channel, row, column]`` by title.
    """
    frames = []
    for title, images in panels.items():
        names = ["_".join(map(str, index)) for index in np.ndindex(images.shape[1:])]
        pixels = pd.DataFrame(images.reshape(len(images), -1), columns=names)
        labels = pd.DataFrame({"panel": title, "image": np.arange(len(images))})
        frames.append(pd.concat([labels, pixels], axis=1))
    return pd.concat(frames, ignore_index=True)


def plot_samples(panels: Mapping[str, Array], columns: int = 8) -> Figure:
    """Draw grids of images side by side, each under its title.

    Args:
        panels: uint8 ``[image, channel, row, column]`` by title, such as samples and real images.
        columns: images per row.
    """
    rows = max(-(-len(images) // columns) for images in panels.values())
    size = (PANEL_INCHES * len(panels), PANEL_INCHES * rows / columns + 0.4)
    with style():
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (title, images) in zip(axes, panels.items(), strict=True):
            _show(ax, mosaic(images, columns))
            ax.set_title(title)
            ax.set_anchor("N")
        figure.get_layout_engine().set(wspace=0.04)  # type: ignore[union-attr, call-arg]
    return figure


def plot_columns(images: Array, labels: Sequence[str], xlabel: str) -> Figure:
    """Draw images that change from left to right, a row each (Fig. 6: x0_hat; Fig. 8: interpolations).

    Args:
        images: uint8 ``[position, sample, channel, row, column]``, positions from left to right.
        labels: of the positions.
        xlabel: what the labels are.
    """
    count, samples = images.shape[:2]
    flat = np.swapaxes(images, 0, 1).reshape(-1, *images.shape[2:])
    with style():
        figure = Figure(figsize=(WIDTH_INCHES, WIDTH_INCHES * samples / count + 0.6), layout="constrained")
        ax = figure.subplots()
        _show(ax, mosaic(flat, count))
        side = images.shape[-1] + 1
        ax.set_xticks([side * (i + 0.5) for i in range(count)], list(labels))
        ax.tick_params(length=0)
        ax.set_xlabel(xlabel)
    return figure


def plot_rows(rows: Mapping[str, Array], xlabel: str, labels: Sequence[str] = ()) -> Figure:
    """Draw a row of images for each name, such as the samples of several models from the same noise.

    Args:
        rows: uint8 ``[image, channel, row, column]`` by name, equally many in each.
        xlabel: what the columns are.
        labels: of the columns; by default they are numbered.
    """
    columns = len(next(iter(rows.values())))
    below = list(labels) or [str(i) for i in range(columns)]
    with style():
        size = (WIDTH_INCHES + 1.2, WIDTH_INCHES * len(rows) / columns + 0.5)
        figure = Figure(figsize=size, layout="constrained")
        ax = figure.subplots()
        _show(ax, mosaic(np.concatenate(list(rows.values())), columns))
        height, width = (side + 1 for side in next(iter(rows.values())).shape[-2:])
        ax.set_yticks([height * (i + 0.5) for i in range(len(rows))], list(rows))
        ax.set_xticks([width * (i + 0.5) for i in range(columns)], below)
        ax.tick_params(length=0)
        ax.set_xlabel(xlabel)
    return figure


def plot_groups(groups: Mapping[str, Array], notes: Mapping[str, Array] | None = None) -> Figure:
    """Draw groups of columns side by side, a row for each sample, each image above its number if it has one.

    Args:
        groups: uint8 ``[sample, column, channel, row, column]`` by title.
        notes: numbers ``[sample, column]`` by title, for the groups that have any.
    """
    notes = notes or {}
    space = NOTE_SHARE if notes else 0.0
    columns = sum(images.shape[1] for images in groups.values())
    widths = [images.shape[1] * (images.shape[-1] + 1) - 1 for images in groups.values()]
    samples = len(next(iter(groups.values())))
    tile = WIDTH_INCHES / columns
    with style():
        size = (WIDTH_INCHES + 0.4, samples * tile * (1 + space) + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(groups), width_ratios=widths, squeeze=False)[0]
        for ax, (title, images) in zip(axes, groups.items(), strict=True):
            _show_with_notes(ax, images, notes.get(title), space)
            ax.set_title(title)
            ax.set_anchor("N")
        figure.get_layout_engine().set(wspace=GROUP_SPACE)  # type: ignore[union-attr, call-arg]
    return figure


def _show_with_notes(ax: Axes, images: Array, notes: Array | None, share: float) -> None:
    """Show a grid with space below each image, a share of its height, for its number."""
    columns, height, width = images.shape[1], *images.shape[-2:]
    space = max(round(share * height), 1) if share else 0
    flat = images.reshape(-1, *images.shape[2:])
    padding = ((0, 0), (0, 0), (0, space), (0, 0))
    _show(ax, mosaic(np.pad(flat, padding, constant_values=255), columns))
    for (row, column), note in np.ndenumerate(np.empty((0, 0)) if notes is None else notes):
        bottom = row * (height + space + 1) + height
        place = (column * (width + 1) + width / 2, bottom + 0.1 * space)
        ax.text(*place, f"{note:.3g}", ha="center", va="top", fontsize=7)


def _show(ax: Axes, canvas: Array) -> None:
    ax.imshow(canvas, interpolation="nearest", extent=(0, canvas.shape[1], canvas.shape[0], 0))
    ax.set(xticks=[], yticks=[])
    sns.despine(ax=ax, left=True, bottom=True)
