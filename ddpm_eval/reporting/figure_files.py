"""From a figure to its files: ``stem.png`` and ``stem.pdf``, with the plotted numbers in ``stem.csv``.

Files appear under their names only when they are complete. They carry no dates, so that equal results give
equal files.
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ddpm_eval.files import atomic_write
from ddpm_eval.reporting.report_parts import Illustration
from ddpm_eval.reporting.tables import write_csv

DOTS_PER_INCH = 150
MARGIN_INCHES = 0.06


def write_figure(figure: Figure, data: pd.DataFrame, stem: Path, caption: str) -> Illustration:
    """Write a figure as PNG and PDF, and what it shows as CSV.

    Args:
        figure: from one of the ``plot_`` functions.
        data: the frame that was plotted.
        stem: path without suffix; its folder is created.
        caption: one or more sentences, plain text.

    Raises:
        ValueError: if a file cannot be written.
    """
    write_csv(data, stem.with_suffix(".csv"))
    with atomic_write(stem.with_suffix(".png")) as temporary:
        figure.savefig(
            temporary, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight", pad_inches=MARGIN_INCHES
        )
    figure.set_layout_engine("none")  # laid out by now; the second file need not do it again
    with atomic_write(stem.with_suffix(".pdf")) as temporary:
        figure.savefig(
            temporary,
            format="pdf",
            metadata={"CreationDate": None},
            bbox_inches="tight",
            pad_inches=MARGIN_INCHES,
        )
    return Illustration(stem, caption)
