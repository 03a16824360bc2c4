"""From a data frame to a table on disk: CSV with the raw numbers, Markdown and LaTeX with formatted ones.

An estimate and its interval, which lie in the columns of `estimate_columns`, share one formatted cell. What
people read has the results before the counts, and says once what is the same in every row; the CSV has all.
Columns that start with ``paper_`` hold published CIFAR-10 values. Files appear under their names only when
they are complete.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ddpm_eval.files import atomic_write, write_text
from ddpm_eval.reporting.estimate_columns import bounds_of, is_bound
from ddpm_eval.reporting.latex import LatexLayout, latex_table
from ddpm_eval.reporting.report_parts import Table, markdown_text

PAPER = "paper (CIFAR-10)"
INCEPTION = "inception-v3-compat"
BLANK = "--"
PAPER_DIGITS = 7
DIGITS = 4
COUNTS = ("network_evaluations", "inexact_left_out", "draws")
"""Columns beside those that begin with n_ that say how much was measured."""

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
    "kid": "KID",
    "frechet_infinite": "Frechet distance, infinitely many samples",
    "weight_l": "weight under L",
    "weight_l_simple": "weight under L_simple",
    "l_bits_per_dim": "trained on L (bits/dim)",
    "l_simple_bits_per_dim": "trained on L_simple (bits/dim)",
    "fid": "FID",
    "n_images": "n (images)",
    "n_samples": "n (samples)",
    "n_distortion": "n (distortion)",
    "n_train": "n (train)",
    "n_test": "n (test)",
    "n_held_out": "n (held out)",
    "is_bound": "bits/dim is a bound",
    "decoder_share": "decoder / total",
    "network_evaluations": "network evaluations",
    "seconds_per_image": "seconds per image",
    "clipped_updates": "share of updates clipped",
    "score_std_over_trainings": "score, std over trainings",
    "frechet_distance_std_over_trainings": "Frechet distance, std over trainings",
    "bits_per_dim_std_over_trainings": "bits/dim, std over trainings",
    "frechet_distance_trainings": "Frechet distance, trainings",
    "bits_per_dim_trainings": "bits/dim, trainings",
}
"""Headings that are not just the column's name without underscores."""


def write_table(
    frame: pd.DataFrame,
    stem: Path,
    caption: str,
    csv_columns: Sequence[str] | None = None,
    shown: pd.DataFrame | None = None,
    texts: Mapping[str, Sequence[str]] | None = None,
    layout: LatexLayout | None = None,
) -> Table:
    """Write a table as CSV with the raw numbers, and as Markdown and LaTeX with formatted ones.

    Args:
        frame: estimates and intervals in the columns of `estimate_columns`.
        stem: path without suffix; its folder is created.
        caption: one or more sentences, plain text.
        csv_columns: of the CSV, where they are fixed; by default all.
        shown: what people read instead, such as the same numbers as a matrix.
        texts: of columns that are shown, a text for each row that is read instead of the number, such as
            ``9.46 ± 0.11``; the number is formatted where the text is empty.
        layout: how the paper sets the table; by default LaTeX has all columns.

    Raises:
        ValueError: if a file cannot be written.
    """
    table = _formatted(frame if shown is None else shown, stem, caption, texts or {})
    write_csv(frame if csv_columns is None else frame[list(csv_columns)], stem.with_suffix(".csv"))
    write_text(stem.with_suffix(".md"), _markdown(table))
    write_text(stem.with_suffix(".tex"), latex_table(table, layout))
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


def _formatted(frame: pd.DataFrame, stem: Path, caption: str, texts: Mapping[str, Sequence[str]]) -> Table:
    """Format a frame's cells, with the results before the counts and without columns of a single value."""
    shown = [column for column in frame if not is_bound(frame, column)]
    constant = [column for column in shown[1:] if _is_constant(frame, column)]
    columns = _in_reading_order(frame, [column for column in shown if column not in constant])
    features = features_of(frame)
    cells = [_with_texts(_cells(frame, column), texts.get(column, ())) for column in columns]
    raw = [[None if pd.isna(value) else value for value in frame[column].tolist()] for column in columns]
    once = [(heading(column, features), _cells(frame, column)[0]) for column in constant]
    return Table(
        stem,
        caption,
        header=tuple(heading(column, features) for column in columns),
        rows=tuple(zip(*cells, strict=True)),
        constants=tuple((name, cell) for name, cell in once if cell != BLANK),
        columns=tuple(columns),
        values=tuple(zip(*raw, strict=True)),
    )


def _is_constant(frame: pd.DataFrame, column: str) -> bool:
    """Tell whether a column that is no estimate has one value in all of several rows."""
    if len(frame) < 2 or bounds_of(frame, column) is not None or column.startswith("paper_"):
        return False
    return len(set(map(str, frame[column]))) == 1


def _in_reading_order(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Move counts that precede the first estimate behind the last one."""
    estimates = [i for i, column in enumerate(columns) if bounds_of(frame, column) is not None]
    if not estimates:
        return list(columns)
    before, until, after = (
        columns[: estimates[0]],
        columns[estimates[0] : estimates[-1] + 1],
        estimates[-1] + 1,
    )
    late = [column for column in before if column.startswith("n_") or column in COUNTS]
    early = [column for column in before if column not in late]
    return [*early, *until, *late, *columns[after:]]


def _with_texts(cells: list[str], texts: Sequence[str]) -> list[str]:
    """Put texts in the place of cells where they are not empty."""
    return [text or cell for text, cell in zip(texts, cells, strict=True)] if texts else cells


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
        return "| " + " | ".join(markdown_text(cell).replace("|", "\\|") for cell in cells) + " |"

    rule = ["---:" if right else "---" for right in table.numeric]
    lines = [line(table.header), line(rule), *map(line, table.rows)]
    return "\n".join([*lines, "", markdown_text(table.full_caption), ""])
