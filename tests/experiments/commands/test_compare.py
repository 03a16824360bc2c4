"""``compare``: what is missing is measured alike, differences are paired, and what cannot be is refused."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import call, main_run, refuse
from tiny import tiny
from untrained import save_untrained

from ddpm_eval.files import locked_folder
from ddpm_eval.metrics.timestep_sampling import stratified_offsets
from ddpm_eval.results.bound_terms import StratifiedBoundTerms
from ddpm_eval.results.store import Store
from ddpm_eval.training.checkpoint import weights_digest
from experiments.commands import compare


@pytest.fixture(scope="module")
def checkpoints(trained_and_sampled, digits_classifier, tmp_path_factory):
    """Return the folders of one training after 12 and after 24 updates."""
    runs = tmp_path_factory.mktemp("compared")
    shutil.copytree(digits_classifier.weights_path.parent, runs / "classifiers")
    early, late = runs / "early", runs / "late"
    for folder in (early, late):
        shutil.copytree(main_run(trained_and_sampled), folder)
    call("train", late, "--set", "train.steps=24", "--preview-steps", "0")
    return early, late


@pytest.fixture(scope="module")
def compared(checkpoints):
    """Return the page of the comparison of the two, and what the command printed."""
    text = call("compare", *checkpoints, "--reports", checkpoints[0].parent / "reports")
    return report_of(text), text


def report_of(text):
    """Return the folder of the report that a call printed."""
    return Path(re.findall(r"^Report: (.+)/index.html$", text, re.MULTILINE)[0])


def test_two_checkpoints_of_one_run_are_told_apart_where_unpaired_totals_could_not(compared):
    folder, _ = compared
    rows = pd.read_csv(folder / "leaderboard.csv").set_index("run")
    late = rows.loc["late"]
    low, high = late["difference_bits_per_dim_low"], late["difference_bits_per_dim_high"]
    assert low < late["bits_per_dim"] - rows.loc["early", "bits_per_dim"] < high
    assert low > 0 or high < 0
    unpaired = math.hypot(*(rows["bits_per_dim_high"] - rows["bits_per_dim_low"]))
    assert high - low <= unpaired / 3
    total = pd.read_csv(folder / "tables" / "differences.csv").set_index("quantity").loc["total"]
    assert total["unpaired_bits_per_dim_low"] < 0 < total["unpaired_bits_per_dim_high"]
    assert total["times_narrower"] == pytest.approx(unpaired / (high - low), rel=0.1)


def test_the_leaderboard_names_each_run_its_updates_and_its_weights(compared, checkpoints):
    folder, text = compared
    rows = pd.read_csv(folder / "leaderboard.csv").set_index("run")
    assert rows["updates"].to_dict() == {"early": 12, "late": 24}
    assert rows["weights"].to_dict() == {path.name: weights_digest(path) for path in checkpoints}
    assert set(rows["n_images"]) == {24} and set(rows["n_samples"]) == {80}
    assert set(rows["data"]) == {"digits"} and set(rows["protocol"]) == {"paper"}
    assert (rows["frechet_distance_low"] < rows["frechet_distance_high"]).all()
    assert "| run | updates | bits/dim | difference (bits/dim) |" in text
    curve = pd.read_csv(folder / "figures" / "checkpoints_bits_per_dim.csv")
    assert curve["updates"].tolist() == [12, 24]


def test_what_is_measured_is_not_measured_again(compared, checkpoints, monkeypatch):
    folder, _ = compared
    files = [path / "results.h5" for path in checkpoints]
    before = [path.stat().st_mtime_ns for path in files]
    written = []

    def render(comparison):
        written.append(comparison.report_folder)
        return folder / "index.html"

    monkeypatch.setattr(compare, "write_comparison", render)
    document = json.loads(call("compare", *checkpoints, "--reports", folder.parent, "--json"))
    assert written == [folder] and document["report"] == str(folder / "index.html")
    expected = pd.read_csv(folder / "leaderboard.csv")
    assert [row["run"] for row in document["leaderboard"]] == expected["run"].tolist()
    for row, (_, stored) in zip(document["leaderboard"], expected.iterrows(), strict=True):
        assert list(row) == list(expected)
        assert (row["updates"], row["bits_per_dim"]) == (
            stored["updates"],
            pytest.approx(stored["bits_per_dim"]),
        )
    first = next(row for row in document["leaderboard"] if row["run"] == "early")
    assert first["difference_bits_per_dim"] is None  # not NaN, which is no JSON
    assert [row["quantity"] for row in document["differences"]] == ["rate", "distortion", "prior", "total"]
    assert [path.stat().st_mtime_ns for path in files] == before


def test_a_run_of_another_seed_gets_the_noise_the_times_and_the_evaluation_of_the_first(
    checkpoints, tmp_path
):
    first = shutil.copytree(checkpoints[0], tmp_path / "first")
    other = save_untrained(tmp_path / "other", tiny(seed=5))
    stratified = ["--no-quality", "--estimator", "stratified", "--seed", "9", "--limit", "16"]
    folder = report_of(call("compare", first, other, *stratified, "--reports", tmp_path / "reports"))
    found = [
        Store(run / "results.h5").get("bound/stratified-paired/test/paper", StratifiedBoundTerms)
        for run in (first, other)
    ]
    for name in ("image_id", "t", "inclusion", "offset"):
        np.testing.assert_array_equal(*(getattr(terms, name) for terms in found))
    np.testing.assert_array_equal(found[0].offset, stratified_offsets(16, 9))
    rows = pd.read_csv(folder / "leaderboard.csv")
    assert set(rows["noise_seed"]) == {9} and set(rows["n_images"]) == {16}
    assert rows["frechet_distance"].isna().all() and rows["n_samples"].isna().all()
    assert "Not measured" in (folder / "report.md").read_text()


def test_what_cannot_be_compared_is_refused_in_one_sentence(checkpoints, tmp_path):
    first = checkpoints[0]
    shorter = save_untrained(tmp_path / "shorter", tiny(diffusion__timesteps=10))
    diverged = save_untrained(tmp_path / "diverged", status="diverged", reason="loss nan at update 3")
    options = ["--reports", tmp_path / "reports", "--no-quality"]
    for runs, sentence in (
        ([], "compare takes two RUNs or more, not 0"),
        ([first], "compare takes two RUNs or more, not 1"),
        ([first, first], "is named twice"),
        ([first, tmp_path / "nowhere"], "nowhere holds no checkpoint.safetensors"),
        ([first, shorter], "shorter and early cannot be compared: they differ in T (10 and 20)"),
        ([first, diverged], "diverged diverged (loss nan at update 3)"),
        ([first, checkpoints[1], "--set", "train.steps=5"], "would make another run"),
        (
            [first, checkpoints[1], "--limit", "5", "--set", "evaluation.n_full_images=4"],
            "--limit and --set evaluation.n_full_images say the same",
        ),
        ([first, checkpoints[1], "--seed", "-1"], "-1 is not in the range"),
    ):
        assert sentence in refuse("compare", *runs, *options)
    with locked_folder(checkpoints[1]):
        assert "is in use by another process" in refuse("compare", *checkpoints, *options)
    assert not (tmp_path / "reports").exists()
