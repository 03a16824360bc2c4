"""From a data frame to a table on disk: CSV with the raw numbers, Markdown and LaTeX with formatted ones.

An estimate and its interval, which lie in the columns of `estimate_columns`, share one formatted cell.
Columns that start with ``paper_`` hold published CIFAR-10 values. Files appear under their names only when
they are complete.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ddpm_eval.files import atomic_write, write_text
from ddpm_eval.reporting.estimate_columns import bounds_of, is_bound
from ddpm_eval.reporting.report_parts import Table

PAPER = "paper (CIFAR-10)"
INCEPTION = "inception-v3-compat"
BLANK = "--"
PAPER_DIGITS = 7
DIGITS = 4

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
"""Headings that are not just the column's name without underscores."""


def write_table(
    frame: pd.DataFrame, stem: Path, caption: str, csv_columns: Sequence[str] | None = None
) -> Table:
    """Write a table as CSV with the raw numbers, and as Markdown and LaTeX with formatted ones.

    Args:
        frame: estimates and intervals in the columns of `estimate_columns`.
        stem: path without suffix; its folder is created.
        caption: one or more sentences, plain text.
        csv_columns: of the CSV, where they are fixed; by default all.

    Raises:
        ValueError: if a file cannot be written.
    """
    table = Table(stem, caption, *_formatted(frame))
    write_csv(frame if csv_columns is None else frame[list(csv_columns)], stem.with_suffix(".csv"))
    write_text(stem.with_suffix(".md"), _markdown(table))
    write_text(stem.with_suffix(".tex"), _latex(table))
    return table


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a data frame's raw numbers as CSV.

    Raises:
        ValueError: if the file cannot be written.
    """
    with atomic_write(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def format_estimate(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """Format an estimate and its interval to two digits of the half width: ``3.75 [3.71, 3.79]``."""
    if math.isnan(value):
        return BLANK
    half = (high - low) / 2
    if not 0 < half < math.inf:
        return f"{value:.{DIGITS}g}"
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


def features_of(frame: pd.DataFrame) -> str:
    """Return the feature extractor behind all rows, empty if there are none or several."""
    known = set(frame["features"]) - {""} if "features" in frame else set()
    return str(known.pop()) if len(known) == 1 else ""


def _formatted(frame: pd.DataFrame) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return the header and the rows of formatted cells."""
    shown = [column for column in frame if not is_bound(frame, column)]
    features = features_of(frame)
    header = tuple(heading(column, features) for column in shown)
    columns = [_cells(frame, column) for column in shown]
    return header, tuple(zip(*columns, strict=True))


def _cells(frame: pd.DataFrame, column: str) -> list[str]:
    bounds = bounds_of(frame, column)
    if bounds is None:
        digits = PAPER_DIGITS if column.startswith("paper_") else DIGITS
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

    lines = [
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
    return "\n".join(lines)


def _escape_latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
