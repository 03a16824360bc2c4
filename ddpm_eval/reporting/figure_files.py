"""From a figure to its files: ``stem.svg``, ``.png`` and ``.pdf``, with the plotted numbers in ``stem.csv``.

Files appear under their names only when they are complete. They carry no dates, so that equal results give
equal files.
"""

from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text

from ddpm_eval.files import atomic_write
from ddpm_eval.reporting.figure_descriptions import describe, shows_images
from ddpm_eval.reporting.report_parts import Illustration
from ddpm_eval.reporting.tables import write_csv

DOTS_PER_INCH = 150
MARGIN_INCHES = 0.06
WITHOUT_DATES: dict[str, dict[str, None]] = {
    "png": {},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
}
"""Metadata of each format."""


def _svg_of_text() -> AbstractContextManager[None]:
    """Let texts of SVG files stay texts, and their names depend on their content alone."""
    return mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ddpm_eval"})


def write_figure(figure: Figure, data: pd.DataFrame, stem: Path, caption: str) -> Illustration:
    """Write a figure as SVG, PNG and PDF, and what it shows as CSV.

    Args:
        figure: from one of the ``plot_`` functions.
        data: the frame that was plotted.
        stem: path without suffix; its folder is created.
        caption: one or more sentences, plain text.

    Raises:
        ValueError: if a file cannot be written.
    """
    write_csv(data, stem.with_suffix(".csv"))
    _show_names_as_they_are(figure)
    with _svg_of_text():
        engine = figure.get_layout_engine()
        assert engine is not None  # every plot is made with one
        engine.execute(figure)
        box = figure.get_tightbbox().padded(MARGIN_INCHES)
        figure.set_layout_engine(None)  # laid out and measured once, for all files
    for kind, metadata in WITHOUT_DATES.items():
        with atomic_write(stem.with_suffix(f".{kind}")) as temporary, _svg_of_text():
            figure.savefig(
                temporary,
                format=kind,
                dpi=DOTS_PER_INCH,
                metadata=metadata,
                bbox_inches=box,
            )
    return Illustration(stem, caption, describe(figure), shows_images(figure))


def _show_names_as_they_are(figure: Figure) -> None:
    """Show texts that are no formulas but look like one, such as a run named ``$x^$``, letter by letter."""
    parser = MathTextParser("path")
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        try:
            for line in filter(is_math_text, text.get_text().splitlines()):
                parser.parse(line)
        except ValueError:
            text.set_parse_math(False)
