"""The examples of docs/extending.md run as they are printed, in the order in which they are printed."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import HERE, TINY, digits

from ddpm_eval.reporting.provenance_rows import RECORDS
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.training_stage import TrainingStage
from experiments.report import write_report
from experiments.study import resolve_run

MOST_LINES = 40
TEXT = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """Everything that the examples define."""
    defined = {}
    for example in EXAMPLES:
        exec(compile(example, "docs/extending.md", "exec"), defined)
    return defined


def test_each_example_fits_a_screen():
    assert len(EXAMPLES) == 4
    assert [len(example.splitlines()) for example in EXAMPLES if len(example.splitlines()) > MOST_LINES] == []


def test_the_metric_has_an_interval(names):
    images = digits().array[:50]
    found = names["brightness"](images)
    assert found.value == pytest.approx(images.mean(), rel=1e-12)
    assert found.low < found.value < found.high and found.unit == "8-bit levels"


def test_the_stage_is_measured_once_and_the_section_shows_it(names, tmp_path):
    run = Run(tmp_path / "runs" / "tiny", TINY, HERE)
    ensure(TrainingStage(), run)
    study = resolve_run(run.folder, TINY)
    study = replace(study, report_folder=tmp_path / "report")
    assert names["section"](study).tables == ()
    ensure(names["BrightnessStage"](), run)
    stored = study.main.result("brightness", names["Brightness"])
    assert stored.n_samples == TINY.evaluation.n_samples
    before = run.results.store.path.stat().st_mtime_ns
    ensure(names["BrightnessStage"](), run)
    assert run.results.store.path.stat().st_mtime_ns == before
    (table,) = names["section"](study).tables
    assert pd.read_csv(table.stem.with_suffix(".csv"))["level"][0] == pytest.approx(stored.level.value)
    assert "Brightness" not in RECORDS and "brightness" in write_report(study).read_text()


def test_the_data_set_is_split_by_stable_ids(names):
    train, test = (names["read_stripes"](split) for split in ("train", "test"))
    assert len(train) + len(test) == 16 and not set(train.ids) & set(test.ids)
    np.testing.assert_array_equal(train.labels, train.ids % 2)
