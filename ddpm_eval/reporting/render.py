"""From finished tables to figures (seaborn) and tables on disk (CSV, Markdown, LaTeX); no arithmetic on
results.

Conventions: a figure is written as ``stem.png`` and ``stem.pdf`` with the plotted numbers in ``stem.csv``; a
    table as
``stem.csv`` (raw numbers), ``stem.md`` and ``stem.tex`` (an estimate with its interval in one cell). A column
``x`` has its interval in ``x_low`` and ``x_high``, or in ``low`` and ``high`` where a row holds one estimate;
``paper_`` marks published CIFAR-10 values. Files appear under their names only when they are complete.
Figures are built without pyplot, so nothing global is touched.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ddpm_eval.results.records import Array

PAPER = "paper (CIFAR-10)"
INCEPTION = "inception-v3-compat"
BLANK = "--"
COLOURS = sns.color_palette("colorblind")
WIDE = 20
"""Values that differ by more than this factor are drawn on a logarithmic axis."""
_MARKERS = ("o", "s", "D", "^", "v", "P")

_WORDS = {
    "bits_per_dim": "bits/dim",
    "t": "t",
    "rmse_255": "RMSE (0-255)",
    "image_rmse_255": "mean image RMSE (0-255)",
    "psnr_db": "PSNR (dB)",
    "frechet_distance": "Frechet distance",
    "score": "score",
    "score_std": "std over splits",
    "inception_score": "IS",
    "fid": "FID",
    "n_images": "n (images)",
    "n_samples": "n (samples)",
    "n_distortion": "n (distortion)",
    "n_train": "n (train)",
    "n_test": "n (test)",
    "n_held_out": "n (held out)",
    "is_bound": "bits/dim is a bound",
    "decoder_share": "decoder / total",
}


@dataclass(frozen=True)
class Illustration:
    """A figure on disk: ``stem`` with .png, .pdf and .csv."""

    stem: Path
    caption: str


@dataclass(frozen=True)
class Table:
    """A table on disk (``stem`` with .csv, .md and .tex) and its formatted cells."""

    stem: Path
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


# Tables


def write_table(
    frame: pd.DataFrame, stem: Path, caption: str, csv_columns: Sequence[str] | None = None
) -> Table:
    """Write a table as CSV with the raw numbers, and as Markdown and LaTeX with formatted ones.

    Args:
        frame: estimates and intervals in the module's naming.
        stem: path without suffix; its folder is created.
        caption: one or more sentences, plain text.
        csv_columns: of the CSV, where they are fixed; by default all.
    """
    raw = frame if csv_columns is None else frame[list(csv_columns)]
    table = Table(stem, caption, *_formatted(frame))
    _write(stem.with_suffix(".csv"), lambda path: raw.to_csv(path, index=False, lineterminator="\n"))
    _write(stem.with_suffix(".md"), lambda path: path.write_text(_markdown(table), encoding="utf-8"))
    _write(stem.with_suffix(".tex"), lambda path: path.write_text(_latex(table), encoding="utf-8"))
    return table


def format_estimate(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """Format an estimate with its interval, rounded to two digits of the interval's half width: ``3.75 [3.71,
    3.79]``.
    """
    if math.isnan(value):
        return BLANK
    half = (high - low) / 2
    if not 0 < half < math.inf:
        return f"{value:.4g}"
    last = math.floor(math.log10(half)) - 1  # the place of the last digit
    if last < -6:
        digits = max(math.floor(math.log10(max(abs(low), abs(high)))) - last, 0)
        return f"{value:.{digits}e} [{low:.{digits}e}, {high:.{digits}e}]"
    decimals = max(-last, 0)
    return f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def heading(column: str, features: str = "") -> str:
    """Return a column's heading; score and distance are IS and FID only where Inception computed them."""
    if column.startswith("paper_"):
        return f"{PAPER}: {heading(column.removeprefix('paper_'), features)}"
    if features == INCEPTION and column in ("score", "frechet_distance"):
        return {"score": "IS", "frechet_distance": "FID"}[column]
    if column not in _WORDS and column.endswith("_bits_per_dim"):
        return column.removesuffix("_bits_per_dim").replace("_", " ") + " (bits/dim)"
    return _WORDS.get(column, column.replace("_", " "))


def _formatted(frame: pd.DataFrame) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    shown = [c for c in frame if c not in ("low", "high") and not _is_bound(c, frame)]
    known = set(frame["features"]) - {""} if "features" in frame else set()
    features = known.pop() if len(known) == 1 else ""
    header = tuple(heading(column, features) for column in shown)
    columns = [_cells(frame, column) for column in shown]
    return header, tuple(zip(*columns, strict=True))


def _is_bound(column: str, frame: pd.DataFrame) -> bool:
    return column.endswith(("_low", "_high")) and column.rpartition("_")[0] in frame


def _cells(frame: pd.DataFrame, column: str) -> list[str]:
    if f"{column}_low" in frame:
        bounds = (f"{column}_low", f"{column}_high")
    elif column in ("value", "bits_per_dim") and "low" in frame:
        bounds = ("low", "high")
    else:
        digits = 7 if column.startswith("paper_") else 4
        return [_plain(value, digits) for value in frame[column]]
    parts = (frame[name].astype(float) for name in (column, *bounds))
    return [format_estimate(*values) for values in zip(*parts, strict=True)]


def _plain(value: object, digits: int) -> str:
    if value is None or value is pd.NA or value == "" or (isinstance(value, float) and math.isnan(value)):
        return BLANK
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    lines = [line(table.header), line(["---"] * len(table.header)), *map(line, table.rows)]
    return "\n".join([*lines, "", table.caption, ""])


def _latex(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(_escape_latex, cells)) + r" \\"

    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape_latex(table.caption)}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.header)}}}",
            r"\toprule",
            line(table.header),
            r"\midrule",
            *map(line, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _escape_latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


# Figures


def write_figure(figure: Figure, data: pd.DataFrame, stem: Path, caption: str) -> Illustration:
    """Write a figure as PNG and PDF, and what it shows as CSV.

    Args:
        figure: from one of the ``plot_`` functions.
        data: the frame that was plotted.
        stem: path without suffix; its folder is created.
        caption: one or more sentences, plain text.
    """
    _write(stem.with_suffix(".csv"), lambda path: data.to_csv(path, index=False, lineterminator="\n"))
    tight: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.06}
    # without dates, equal results give equal files
    _write(stem.with_suffix(".png"), lambda path: figure.savefig(path, format="png", dpi=150, **tight))
    figure.set_layout_engine("none")  # laid out by now; the second file need not do it again
    metadata = {"CreationDate": None}
    _write(
        stem.with_suffix(".pdf"), lambda path: figure.savefig(path, format="pdf", metadata=metadata, **tight)
    )
    return Illustration(stem, caption)


def plot_samples(panels: Mapping[str, Array], columns: int = 8) -> Figure:
    """Draw grids of images side by side, each under its title.

    Args:
        panels: uint8 ``[image, channel, row, column]`` by title, such as samples and real images.
        columns: images per row.
    """
    rows = max(-(-len(images) // columns) for images in panels.values())
    with _style():
        figure = Figure(figsize=(3.4 * len(panels), 3.4 * rows / columns + 0.4), layout="constrained")
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
        images: uint8 ``[column, sample, channel, row, column]``, first axis from left to right.
        labels: of the columns.
        xlabel: what the labels are.
    """
    count, samples = images.shape[:2]
    flat = np.swapaxes(images, 0, 1).reshape(-1, *images.shape[2:])
    with _style():
        figure = Figure(figsize=(7.0, 7.0 * samples / count + 0.6), layout="constrained")
        ax = figure.subplots()
        _show(ax, mosaic(flat, count))
        side = images.shape[-1] + 1
        ax.set_xticks([side * (i + 0.5) for i in range(count)], list(labels))
        ax.tick_params(length=0)
        ax.set_xlabel(xlabel)
    return figure


def plot_training(frame: pd.DataFrame, loss_label: str) -> Figure:
    """Draw loss and gradient norm over updates, on logarithmic axes.

    Args:
        frame: of `ddpm_eval.reporting.analyse.training_curve`; a column ``run`` tells several runs apart.
        loss_label: what the loss is, with its unit.
    """
    with _style():
        figure = Figure(figsize=(7.0, 2.8), layout="constrained")
        axes = figure.subplots(1, 2)
        labels = (loss_label, "gradient norm before clipping")
        for ax, column, label in zip(axes, ("loss", "gradient_norm"), labels, strict=True):
            for (name, part), colour in zip(_groups(frame, "run"), COLOURS, strict=False):
                ax.plot(part["update"], part[column], color=colour, linewidth=1.2, label=name)
            ax.set(xlabel="update", ylabel=label)
            _logarithmic(ax, "y")
        _finish(figure, axes, always="run" in frame)
    return figure


def plot_rate_distortion(curve: pd.DataFrame, paper: pd.DataFrame | None = None) -> Figure:
    """Draw Fig. 5: distortion and rate against reverse steps, distortion against rate, with interval bands.

    Args:
        curve: of `ddpm_eval.reporting.analyse.rate_distortion_curve`; a column ``run`` tells several curves
            apart.
        paper: the paper's reverse_steps, rate_bits_per_dim, rmse_255, drawn as points; over reverse steps
            only beside a chain of as many.
    """
    panels = (
        ("reverse_steps", "rmse_255"),
        ("reverse_steps", "rate_bits_per_dim"),
        ("rate_bits_per_dim", "rmse_255"),
    )
    labels = {
        "reverse_steps": "reverse steps taken",
        "rmse_255": "distortion (RMSE on 0-255)",
        "rate_bits_per_dim": "rate (bits/dim)",
    }
    with _style():
        figure = Figure(figsize=(9.0, 3.1), layout="constrained")
        axes = figure.subplots(1, 3)
        for ax, (x, y) in zip(axes, panels, strict=True):
            for (name, part), colour in zip(_groups(curve, "run"), COLOURS, strict=False):
                _band(ax, part, x, y, colour, name or "this model")
            if paper is not None and (x != "reverse_steps" or curve[x].max() == paper[x].max()):
                ax.plot(paper[x], paper[y], "x", color="0.35", markersize=5, label=PAPER)
            ax.set(xlabel=labels[x], ylabel=labels[y])
            ax.set_ylim(bottom=0)
        _finish(figure, axes[::-1])
    return figure


def plot_terms(frame: pd.DataFrame) -> Figure:
    """Draw each term of the bound against t, with its interval and the floor that the reverse variance sets.

    Args:
        frame: of `ddpm_eval.reporting.analyse.terms_table`; a column ``run`` tells several apart.
    """
    with _style():
        figure = Figure(figsize=(5.5, 3.4), layout="constrained")
        ax = figure.subplots()
        for (name, part), colour in zip(_groups(frame, "run"), COLOURS, strict=False):
            part = part.rename(columns={"low": "bits_per_dim_low", "high": "bits_per_dim_high"})
            _band(ax, part, "t", "bits_per_dim", colour, name or "term")
        first = _groups(frame, "run")[0][1]
        if first["floor_bits_per_dim"].gt(0).any():
            floor = first[first["floor_bits_per_dim"].gt(0)]
            ax.plot(floor["t"], floor["floor_bits_per_dim"], ":", color="0.35", label="variance floor")
        _logarithmic(ax, "x", "y")
        ax.set(xlabel="t (t = 1: decoder)", ylabel="term of the bound (bits/dim)")
        positive = frame.loc[frame["bits_per_dim"] > 0, "bits_per_dim"]
        ax.set_ylim(
            bottom=positive.min() / 10
        )  # the floor and bounds at or below zero run out of the picture
        _finish(figure, [ax], always=True)
    return figure


def plot_ablation(table: pd.DataFrame) -> Figure:
    """Draw Table 2 as points with intervals: sample quality and bits/dim of the cells; a cell without numbers
    says why.

    Args:
        table: of `ddpm_eval.reporting.analyse.ablation_table` (or ``table2``, which has neither the score's
            intervals nor the reference distance of the test images, drawn as a dashed line).
    """
    names = [f"{c.prediction}, {c.objective}, {c.variance}" for c in table.itertuples()]
    known = set(table["features"]) - {""}
    features = known.pop() if len(known) == 1 else ""
    with _style():
        figure = Figure(figsize=(9.0, 2.9), layout="constrained")
        axes = figure.subplots(1, 3, sharey=True)
        for ax, column in zip(axes, ("frechet_distance", "score", "bits_per_dim"), strict=True):
            _dots(ax, table, column)
            ax.set_xlabel(_with_features(heading(column, features), column, features))
        if "reference_distance" in table:
            for distance in table["reference_distance"].dropna().unique():
                axes[0].axvline(distance, color="0.35", linestyle="--", linewidth=1)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        sns.despine(figure)
    return figure


def plot_against(
    frame: pd.DataFrame, x: str, y: str, *, xlabel: str, ylabel: str, log: bool = False, by: str = "run"
) -> Figure:
    """Draw one quantity against another as points with intervals joined by lines, such as bits/dim against
    steps.

    Args:
        frame: columns ``x``, ``y`` and, where they exist, the bounds of ``y``.
        x: column of the abscissa.
        y: column of the ordinate.
        xlabel: with the unit.
        ylabel: with the unit.
        log: whether both axes are logarithmic.
        by: column that tells several lines apart, where it exists.
    """
    with _style():
        figure = Figure(figsize=(5.0, 3.4), layout="constrained")
        ax = figure.subplots()
        for (name, part), colour, marker in zip(_groups(frame, by), COLOURS, _MARKERS, strict=False):
            _points(ax, part.sort_values(x), x, y, colour, marker, name)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        if log:
            _logarithmic(ax, "x", "y")
        _finish(figure, [ax])
    return figure


def plot_quality(frame: pd.DataFrame, x: str, xlabel: str, features: str, by: str = "method") -> Figure:
    """Draw Frechet distance and score against a column, with intervals; and against time per image where that
    is known.

    Args:
        frame: of `ddpm_eval.reporting.analyse.quality_over_time` or `quality_over_steps`.
        x: column of the abscissa.
        xlabel: what it is.
        features: the extractor.
        by: column that tells several lines apart, where it exists.
    """
    panels = [(x, xlabel, "frechet_distance"), (x, xlabel, "score")]
    if "seconds_per_image" in frame:
        panels.append(("seconds_per_image", "seconds per image", "frechet_distance"))
    with _style():
        figure = Figure(figsize=(3.1 * len(panels), 3.0), layout="constrained")
        axes = figure.subplots(1, len(panels))
        for ax, (column, label, metric) in zip(axes, panels, strict=True):
            for (name, part), colour, marker in zip(_groups(frame, by), COLOURS, _MARKERS, strict=False):
                _points(ax, part.sort_values(column), column, metric, colour, marker, name)
            ax.set(xlabel=label, ylabel=_with_features(heading(metric, features), metric, features))
            if by in frame:
                _logarithmic(ax, "x")
            if metric == "frechet_distance":
                _logarithmic(ax, "y")
        _finish(figure, axes)
    return figure


def _dots(ax: Axes, table: pd.DataFrame, column: str) -> None:
    rows = np.arange(len(table))
    colours = ["0.5" if prediction == "mu" else COLOURS[0] for prediction in table["prediction"]]
    value = table[column].astype(float)
    if f"{column}_low" in table:
        ax.hlines(
            rows, table[f"{column}_low"].astype(float), table[f"{column}_high"].astype(float), colors=colours
        )
    ax.scatter(value, rows, c=colours, s=22, zorder=3)
    for row, status in enumerate(table["status"]):
        if math.isnan(value.iloc[row]):
            text = status if status != "ok" else "not measured"
            ax.text(
                0.5,
                row,
                text,
                transform=ax.get_yaxis_transform(),
                ha="center",
                va="center",
                color="0.4",
                style="italic",
            )
    if value.min() > 0 and value.max() > WIDE * value.min():
        _logarithmic(ax, "x")
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)


def _with_features(label: str, column: str, features: str) -> str:
    return f"{label}\n({features or 'several extractors'})" if column != "bits_per_dim" else label


def _points(
    ax: Axes,
    part: pd.DataFrame,
    x: str,
    y: str,
    colour: tuple[float, float, float],
    marker: str,
    label: str | None,
) -> None:
    ax.plot(part[x], part[y], color=colour, marker=marker, markersize=4, linewidth=1, label=label)
    if f"{y}_low" in part:
        ax.vlines(part[x], part[f"{y}_low"], part[f"{y}_high"], color=colour)


def _band(
    ax: Axes, part: pd.DataFrame, x: str, y: str, colour: tuple[float, float, float], label: str
) -> None:
    part = part.sort_values(x)
    ax.plot(part[x], part[y], color=colour, linewidth=1.4, label=label)
    ax.fill_between(part[x], part[f"{y}_low"], part[f"{y}_high"], color=colour, alpha=0.25, linewidth=0)


def _groups(frame: pd.DataFrame, column: str) -> list[tuple[str | None, pd.DataFrame]]:
    if column not in frame:
        return [(None, frame)]
    return [(str(name), part) for name, part in frame.groupby(column, sort=False)]


def _finish(figure: Figure, axes: Sequence[Axes], always: bool = False) -> None:
    handles, labels = axes[0].get_legend_handles_labels()
    if len(handles) > 1 or (always and handles):
        figure.legend(
            handles, labels, loc="outside upper center", ncols=2 if len(labels) == 4 else 3, frameon=False
        )
    sns.despine(figure)


def _logarithmic(ax: Axes, *names: Literal["x", "y"]) -> None:
    """Make axes logarithmic with plain numbers; where they span few decades, between the powers of ten,
    too.
    """
    for name in names:
        ax.set(**{f"{name}scale": "log"})
        axis = ax.xaxis if name == "x" else ax.yaxis
        axis.set_major_formatter(FuncFormatter(_plain_tick))
        axis.set_minor_formatter(
            FuncFormatter(lambda value, _, axis=axis: _minor_tick(value, *axis.get_view_interval()))
        )


def _plain_tick(value: float, _: object = None) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e4 else f"$10^{{{round(math.log10(value))}}}$"


def _minor_tick(value: float, low: float, high: float) -> str:
    decades = math.log10(high / low)
    leading = value / 10 ** math.floor(math.log10(value) + 1e-9)
    shown = () if decades > 2 else (2, 5) if decades > 0.7 else range(1, 10)
    return f"{value:g}" if round(leading) in shown else ""


def mosaic(images: Array, columns: int) -> Array:
    """Lay ``[image, channel, row, column]`` out on white, row by row, one pixel apart: ``[row, column,
    3]``.
    """
    rows, (height, width) = -(-len(images) // columns), images.shape[2:]
    canvas = np.full((rows * (height + 1), columns * (width + 1), 3), 255, dtype=np.uint8)
    for k, image in enumerate(images):
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        canvas[top : top + height, left : left + width] = np.moveaxis(
            np.broadcast_to(image, (3, height, width)), 0, -1
        )
    return canvas[:-1, :-1]


def _show(ax: Axes, canvas: Array) -> None:
    ax.imshow(canvas, interpolation="nearest", extent=(0, canvas.shape[1], canvas.shape[0], 0))
    ax.set(xticks=[], yticks=[])
    sns.despine(ax=ax, left=True, bottom=True)


def _style() -> AbstractContextManager[None]:
    style = {**sns.axes_style("ticks"), "font.size": 9.0, "axes.labelsize": 9.0, "axes.titlesize": 9.0}
    return mpl.rc_context(
        {**style, "legend.fontsize": 8.5, "xtick.labelsize": 8.0, "ytick.labelsize": 8.0, "pdf.fonttype": 42}
    )


def _write(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
