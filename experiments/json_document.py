"""What a command found as one JSON document, for programs.

Every document has ``command`` and, where it is about one run, ``run``. An estimate is an object of ``value``,
``low``, ``high`` (its 95% interval) and ``unit``. What is not known, or has no interval, is null.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ddpm_eval.results.fields import Estimate, Record, fields_of_kind

Document = Mapping[str, object]


def as_text(document: Document) -> str:
    """Return a document as JSON text."""
    return json.dumps(_plain(document), indent=2, allow_nan=False)


def estimates(record: Record) -> dict[str, Estimate]:
    """Return the estimates of a record by name."""
    return {field.name: getattr(record, field.name) for field in fields_of_kind(type(record), "estimate")}


def rows(frame: pd.DataFrame) -> Sequence[Document]:
    """Return the rows of a table, each by the names of its columns."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: object) -> object:
    """Return a value as what JSON has."""
    if isinstance(value, Estimate):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
