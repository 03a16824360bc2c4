"""Documents for programs: every number is JSON, and nothing is lost or invented."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from ddpm_eval.results.fields import Estimate
from experiments.json_document import as_text, rows


def test_estimates_tables_and_what_is_unknown_become_json():
    nan = float("nan")
    document = {
        "values": {
            "total": Estimate(3.5, 3.25, np.float64(3.75), "bits/dim"),
            "none": Estimate(nan, nan, nan, "1"),
        },
        "rows": rows(pd.DataFrame({"t": [1, 2], "low": [0.5, np.inf]})),
        "arrays": np.array([1, 2]),
        "folder": Path("runs/a"),
        "flags": (True, None),
    }
    assert json.loads(as_text(document)) == {
        "values": {
            "total": {"value": 3.5, "low": 3.25, "high": 3.75, "unit": "bits/dim"},
            "none": {"value": None, "low": None, "high": None, "unit": "1"},
        },
        "rows": [{"t": 1, "low": 0.5}, {"t": 2, "low": None}],
        "arrays": [1, 2],
        "folder": "runs/a",
        "flags": [True, None],
    }
