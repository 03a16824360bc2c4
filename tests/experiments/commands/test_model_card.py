"""The card of a published run, as the command writes it."""

import shutil

from command_line import TINY, call, main_run, refuse

from ddpm_eval.interchange.published_run import CARD
from ddpm_eval.reporting.bound_tables import bound_estimates
from ddpm_eval.reporting.tables import format_estimate
from ddpm_eval.training.checkpoint import FILE_NAME, weights_digest
from experiments.paper.presets import preset
from experiments.study import StudyRun


def test_a_published_run_is_described_with_all_that_was_measured(reproduced, tmp_path):
    run, out = main_run(reproduced[0]), tmp_path / "models" / "tiny"
    said = call("export-checkpoint", run, "--format", "run", "--out", out)
    assert said.startswith(f"{out}: its averaged weights and their card")
    card = (out / CARD).read_text()
    assert f"weights_digest: {weights_digest(run)}" in card
    assert "# digits: averaged weights" in card and f"python cli.py rate-distortion {out}" in card
    bound = StudyRun(run, preset("digits", settings=TINY), "").bound()
    total = format_estimate(*bound_estimates(bound)["total"][:3])
    name = f"| test, {bound.estimator}, 20 steps, {bound.protocol.caption()} |"
    (row,) = [line for line in card.splitlines() if line.startswith(name)]
    assert row.split("|")[4] == f" {total} "
    assert "Frechet distance (digits classifier)" in card
    assert "only the averaged weights were kept" in call("show", out)
    assert "its training cannot go on here" in refuse("train", out)
    assert "is not an empty folder" in refuse("export-checkpoint", run, "--format", "run", "--out", out)


def test_a_run_of_which_nothing_was_measured_says_so(trained_run, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(trained_run / FILE_NAME, alone)
    call("export-checkpoint", alone, "--format", "run", "--out", tmp_path / "out")
    assert "Nothing has been measured of these weights yet." in (tmp_path / "out" / CARD).read_text()
