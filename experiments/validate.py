"""The production code measured against Gaussian data whose exact answers are known in closed form.

Two Gaussian models (see `experiments.validation_models`) stand in for a trained network, and the library,
from images through the results file to the tables, must return their exact numbers:

- *digits*: a Gaussian fitted to the digits' training images, its exact denoiser evaluated on the real test
  images. The exact values are of these very images, so that only the noise of the bound is left between
  measured and exact.
- *narrow*: a correlated Gaussian over small colour images, so narrow that x_0 estimates never reach [-1, 1]:
  clipping must change nothing, and rounding samples to 8 bits adds ``(2/255)^2 / 12`` to each variance
  (Sheppard's correction; elements spread over some ten levels make it exact to 1e-100).

The checks are in `experiments.validation_checks`, and when a row passes in `experiments.validation_row`.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from experiments.validation_checks import CHECKS
from experiments.validation_models import GaussianModels
from experiments.validation_row import Row


def run(only: str | None, echo: Callable[[str], None]) -> tuple[str, bool]:
    """Run the checks.

    Args:
        only: text that the wanted checks' names contain; None for all of `CHECKS`.
        echo: told what is being done.

    Returns:
        The table as text, and whether every row passed.

    Raises:
        ValueError: if no check has such a name.
    """
    rows = validation_rows(only, echo)
    table = validation_table(rows).to_string(index=False, float_format=_number)
    failed = [row.quantity for row in rows if not row.passed]
    verdict = f"FAILED: {'; '.join(failed)}" if failed else f"all {len(rows)} rows passed"
    return f"{table}\n{verdict}", not failed


def validation_rows(only: str | None = None, echo: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Return the rows of all checks, or of those whose name contains ``only``; see `run`."""
    chosen = {name: check for name, check in CHECKS.items() if only is None or only in name}
    if not chosen:
        raise ValueError(f"no check has {only!r} in its name (there are {', '.join(CHECKS)})")
    rows = []
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        models = GaussianModels(Path(folder))
        for name, check in chosen.items():
            echo(f"checking {name}")
            rows += check(models)
    return rows


def validation_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the rows as a table.

    Returns:
        quantity, unit, measured, exact, difference_in_standard_errors, tolerance, passed.
    """
    columns = [
        *("quantity", "unit", "measured", "exact"),
        *("difference_in_standard_errors", "tolerance", "passed"),
    ]
    frame = pd.DataFrame([asdict(row) for row in rows])
    frame["difference_in_standard_errors"] = [row.difference_in_standard_errors for row in rows]
    frame["passed"] = [row.passed for row in rows]
    return frame[columns]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: these tensors are so small that threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _number(value: float) -> str:
    return f"{value:.6g}"
