"""Why a part of a report is left out: divergence, an obstacle, a failure, no training, or nobody asked."""

import json

import pytest
from stored_results import make_log, store_results
from tiny import TINY

from ddpm_eval.results.obstacles import FILE_NAME, note_left_out, reasons_left_out
from experiments.left_out import left_out
from experiments.study import StudyRun


@pytest.fixture
def run(tmp_path):
    return StudyRun(tmp_path / "runs" / "one", TINY, "one")


def text(run, *stages):
    found = left_out("Part", run, *stages)
    assert (found.title, [*found.tables, *found.figures]) == ("Part", [])
    return found.text


def test_before_training_that_is_the_reason(run):
    assert text(run, "sample") == "Not measured: the run one is not trained yet."


def test_after_training_nobody_asked_or_it_is_not_reached_yet(run):
    store_results(run, {"training": make_log()})
    assert text(run, "sample") == (
        "Not measured: the stage sample of one was not asked for, or not reached yet "
        f"(python cli.py reproduce {run.folder} measures everything)."
    )


def test_what_is_noted_of_the_stage_is_the_reason(run):
    store_results(run, {"training": make_log()})
    note_left_out(run.folder, "interpolate", "interpolations need 8 test images, but there are 4")
    assert text(run, "interpolate") == ("Not measured: interpolations need 8 test images, but there are 4.")
    assert "was not asked for" in text(run, "sample")
    note_left_out(run.folder, "interpolate", "")  # brought about
    assert "was not asked for" in text(run, "interpolate")


def test_a_run_that_diverged_is_not_measured(run):
    store_results(run, {"training": make_log(status="diverged", reason="loss nan at update 3")})
    note_left_out(run.folder, "sample", "no")
    assert text(run, "sample") == "Not measured: the run one diverged (loss nan at update 3)."


def test_nothing_is_written_where_nothing_is_noted(tmp_path):
    note_left_out(tmp_path, "sample", "")
    assert not list(tmp_path.iterdir()) and reasons_left_out(tmp_path) == {}


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00"])
def test_a_damaged_note_is_as_none(tmp_path, content):
    (tmp_path / FILE_NAME).write_text(content)
    assert reasons_left_out(tmp_path) == {}
    note_left_out(tmp_path, "sample", "no")
    assert json.loads((tmp_path / FILE_NAME).read_text()) == {"sample": "no"}
