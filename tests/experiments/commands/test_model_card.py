"""The card of a published run, as the command writes it."""

import re
import shutil

import pytest
from command_line import TINY, call, main_run, refuse, runs_option, set_options

from ddpm_eval.interchange.published_run import CARD
from ddpm_eval.reporting.bound_tables import bound_estimates
from ddpm_eval.reporting.tables import format_estimate
from ddpm_eval.results.store import Store
from ddpm_eval.training.checkpoint import FILE_NAME, weights_digest
from experiments.paper.presets import preset
from experiments.study import StudyRun


def test_a_published_run_is_described_with_all_that_was_measured(reproduced, tmp_path):
    run, out = main_run(reproduced[0]), tmp_path / "models" / "tiny"
    said = call("export-checkpoint", run, "--format", "run", "--out", out)
    assert said.startswith(f"{out}: averaged weights and a card; commands that measure take it as a RUN")
    card = (out / CARD).read_text()
    assert f"weights_digest: {weights_digest(run)}" in card
    assert "# digits: averaged weights" in card and f"python cli.py rate-distortion {out}" in card
    bound = StudyRun(run, preset("digits", settings=TINY), "").bound()
    total = format_estimate(*bound_estimates(bound)["total"][:3])
    name = f"| test, {bound.estimator}, 20 steps, {bound.protocol.caption()} |"
    (row,) = [line for line in card.splitlines() if line.startswith(name)]
    assert row.split("|")[4] == f" {total} "
    assert f"python cli.py likelihood {out} --estimator stratified" in card
    assert "Frechet distance (digits classifier)" in card
    assert "only the averaged weights were kept" in call("show", out)
    assert "its training cannot go on here" in refuse("train", out)
    assert "is not an empty folder" in refuse("export-checkpoint", run, "--format", "run", "--out", out)


def test_what_was_measured_of_earlier_weights_is_left_out(trained_run, tmp_path):
    limited = ["--limit", "4"]
    call("likelihood", trained_run, *limited)
    call("export-checkpoint", trained_run, "--format", "run", "--out", tmp_path / "before")
    assert "| test, " in (tmp_path / "before" / CARD).read_text()
    measured = weights_digest(trained_run)
    longer = set_options({**TINY, "train.steps": "16"})
    call("train", *runs_option(tmp_path), *longer, "--preview-steps", "0")
    assert weights_digest(trained_run) != measured
    assert any(name.startswith("bound/") for name in names_of_weights(trained_run, measured))
    call("export-checkpoint", trained_run, "--format", "run", "--out", tmp_path / "after")
    card = (tmp_path / "after" / CARD).read_text()
    assert "Nothing has been measured of these weights yet." in card and "| test, " not in card
    call("likelihood", trained_run, *limited)
    call("export-checkpoint", trained_run, "--format", "run", "--out", tmp_path / "again")
    assert (tmp_path / "again" / CARD).read_text().count("| test, ") == 1


def names_of_weights(run, weights):
    """Return the names of the results that are stored of these weights."""
    entries = Store(run / "results.h5").entries()
    return [entry.name for entry in entries if entry.provenance.get("weights") == weights]


def test_a_run_of_which_nothing_was_measured_says_so(trained_run, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(trained_run / FILE_NAME, alone)
    call("export-checkpoint", alone, "--format", "run", "--out", tmp_path / "out")
    assert "Nothing has been measured of these weights yet." in (tmp_path / "out" / CARD).read_text()


def test_the_cards_command_measures_what_the_card_says(trained_run, tmp_path):
    call("likelihood", trained_run, "--estimator", "stratified", "--limit", "5")
    call("export-checkpoint", trained_run, "--format", "run", "--out", tmp_path / "out")
    card = (tmp_path / "out" / CARD).read_text()
    (command,) = [line.split() for line in card.splitlines() if "cli.py likelihood" in line]
    assert command[2:] == ["likelihood", str(tmp_path / "out"), "--estimator", "stratified", "--limit", "5"]
    said = call(*command[2:])
    (row,) = [line for line in card.splitlines() if line.startswith("| test, stratified")]
    value, low, high = re.findall(r"[0-9.]+", row.split("|")[4])
    (total,) = [line for line in said.splitlines() if line.split()[:1] == ["total"]]
    printed = [float(number) for number in re.findall(r"[0-9.]+", total)[:3]]
    assert printed == pytest.approx([float(value), float(low), float(high)], abs=0.01)
