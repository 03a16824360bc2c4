"""What the report says of how a stored result came about."""

import numpy as np
import pytest
from quality_examples import make_quality
from simulated_bounds import make_terms

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.reporting import intervals
from ddpm_eval.reporting.provenance_rows import (
    INTERVALS,
    RECORDS,
    display_unit,
    format_seconds,
    provenance_row,
    total_time,
    uncommitted,
)
from ddpm_eval.results.fields import fields_of_kind
from ddpm_eval.results.records import ScheduleTables
from ddpm_eval.results.store import Entry, Store

PROVENANCE = {
    "versions": {"torch": "2.13.0", "numpy": "2.3.0"},
    "python": "3.11.9",
    "git_commit": "abc123",
    "device": "cpu",
    "wall_seconds": 200.0,
    "weights": "w",
    "command": "cli.py reproduce",
    "processor": "a processor",
    "cores": 2,
    "system": "Linux",
    "created": "2026-01-31T12:00:00+00:00",
}


def stored(record, tmp_path):
    store = Store(tmp_path / "results.h5")
    store.put("name", record, key="k", provenance=PROVENANCE)
    return store.entries()[0]


def test_a_row_says_how_a_bound_came_about(tmp_path):
    terms = make_terms(np.ones((7, 3)), protocol=PROTOCOLS["paper"])
    row = provenance_row("eps-mse", stored(terms, tmp_path))
    assert (row.run, row.result, row.n) == ("eps-mse", "name", "7 images")
    assert row.unit == "nats per image; squared units of [-1, 1], mean over elements"
    assert row.interval == intervals.METHOD
    assert row.protocol == PROTOCOLS["paper"].caption()
    assert (row.device, row.wall_time, row.commit) == ("cpu", "3 min 20 s", "abc123")
    assert row.versions == "Python 3.11.9, torch 2.13.0, numpy 2.3.0"
    assert row.created == PROVENANCE["created"]
    assert (row.key, row.weights, row.command) == ("k", "w", "cli.py reproduce")
    assert row.machine == "a processor, 2 cores, Linux"


def test_a_row_says_how_sample_quality_came_about(tmp_path):
    entry = stored(make_quality(n_samples=99, caption="99 samples, as they are"), tmp_path)
    row = provenance_row("eps-mse", entry)
    assert (row.n, row.protocol) == ("99 samples", "99 samples, as they are")
    assert row.unit == "samples; squared feature units; kernel units"
    assert row.interval == "see docs/quality.md"


def test_what_is_not_known_is_left_blank():
    entry = Entry("schedule", "k", "ScheduleTables", {}, {}, [[("t", 20)], [("t", 20)]], {})
    row = provenance_row("run", entry)
    assert (row.n, row.unit, row.interval) == ("20 steps", "1", "none")
    assert [row.protocol, row.device, row.wall_time, row.versions, row.commit, row.created] == [""] * 6


def test_a_record_of_another_package_has_a_row_without_units():
    entry = Entry("brightness", "k", "Brightness", {}, {}, [], {"n_samples": 8, "method": "mean"})
    row = provenance_row("run", entry)
    assert (row.n, row.unit, row.interval, row.protocol) == ("8 samples", "", "none", "mean")


def test_times_add_up_and_uncommitted_changes_are_counted():
    entries = [
        Entry("a", "k", "ScheduleTables", {"wall_seconds": seconds, "git_commit": commit}, {}, [], {})
        for seconds, commit in ((50.0, "abc"), (70.0, "abc-dirty"), (None, "none"))
    ]
    assert total_time(entries) == "2 min 0 s"
    assert total_time(entries[2:]) == ""
    assert uncommitted(entries) == 1


def test_the_time_of_results_that_were_stored_together_counts_once():
    entries = [
        Entry(name, "k", "ScheduleTables", {"wall_seconds": 50.0, "created": created}, {}, [], {})
        for name, created in (("training", "12:00:00.1"), ("schedule", "12:00:00.1"), ("bound", "12:05:00.2"))
    ]
    assert total_time(entries) == "1 min 40 s"


def test_every_record_of_estimates_has_its_method():
    with_estimates = {name for name, kind in RECORDS.items() if fields_of_kind(kind, "estimate")}
    assert with_estimates and with_estimates <= INTERVALS.keys()
    assert INTERVALS.keys() <= RECORDS.keys()


def test_every_record_has_a_unit():
    assert RECORDS["ScheduleTables"] is ScheduleTables
    for name in RECORDS:
        assert display_unit(name)
    assert display_unit("Baseline") == "nats per image"
    assert display_unit("Interpolations") == "8-bit level"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (8.24, "8.2 s"),
        (59.96, "60.0 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds, text):
    assert format_seconds(seconds) == text
