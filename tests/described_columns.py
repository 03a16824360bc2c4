"""Whether the CSV files of a report have the columns that the dictionary declares."""

import re

import pandas as pd

from ddpm_eval.reporting.estimate_columns import is_bound
from experiments.csv_columns import OVER_SEEDS

PIXEL = re.compile(r"\d+_\d+_\d+")


def assert_described(folder, files):
    """Fail unless every CSV file below a folder has just the columns that its entry in ``files`` declares."""
    known = {name: set(file.described()) for file in files for name in file.names.split()}
    found = {path.relative_to(folder).with_suffix("").as_posix(): columns_of(path) for path in csv(folder)}
    assert found.keys() <= known.keys()
    for name, columns in found.items():
        assert columns <= known[name], name
        assert known[name] - columns <= set(OVER_SEEDS.split()), name


def csv(folder):
    """Return the CSV files below a folder."""
    files = list(folder.rglob("*.csv"))
    assert files
    return files


def columns_of(path):
    """Return the columns of a file, an estimate and all pixels once."""
    frame = pd.read_csv(path, nrows=1)
    return {"0_0_0" if PIXEL.fullmatch(name) else name for name in frame if not is_bound(frame, name)}
