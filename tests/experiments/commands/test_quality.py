"""``quality`` and ``neighbours`` of a run's samples and of images in files."""

import json

import pytest
from click.testing import CliRunner
from command_line import call, refuse

import cli
from ddpm_eval.results.records import Coverage, Quality
from ddpm_eval.results.store import Store

pytestmark = pytest.mark.usefixtures("classifier")


def document(*arguments):
    """Return the document that a command prints on stdout."""
    return json.loads(CliRunner().invoke(cli.main, [str(a) for a in arguments]).stdout)


def printed(output):
    """Return the lines of an output that are not of a progress bar."""
    return [line for line in output.splitlines() if not line.startswith("features:")]


def test_the_quality_of_a_run_is_stored(trained_run):
    text = call("quality", trained_run)
    found = Store(trained_run / "results.h5").get("quality", Quality)
    assert "frechet_distance" in text and f"{found.frechet_distance.value:.5g}" in text
    assert "not comparable with any published FID or IS" in text


def test_density_and_coverage_stand_below_once_for_each_reference(trained_run):
    arguments = ["quality", trained_run, "--reference", "train", "--reference", "test"]
    lines = [line.split() for line in call(*arguments).splitlines()]
    rows = {(row[1], row[2]): row[3:6] for row in lines if row[:1] == ["against"]}
    assert list(rows) == [
        (split, metric) for split in ("train", "test") for metric in ("density", "coverage")
    ]
    found = Store(trained_run / "results.h5").get("coverage", Coverage)
    assert rows["train", "coverage"] == [f"{number:.5g}" for number in found.coverage[:3]]
    assert rows["test", "density"] != rows["train", "density"]
    measured = document(*arguments, "--json")["measurements"]
    by_reference = {each["reference"]: each["values"]["density"]["value"] for each in measured}
    assert by_reference["train"] == found.density.value != by_reference["test"]


def test_other_numbers_of_samples_than_the_runs_are_measured_but_not_stored(trained_run):
    call("quality", trained_run)
    call("sample", trained_run, "-n", "85")
    assert "; 85 samples against" in call("quality", trained_run)
    assert Store(trained_run / "results.h5").get("quality", Quality).n_samples == 80


def test_samples_of_earlier_weights_are_not_measured_as_the_present_ones(trained_run):
    call("train", trained_run, "--set", "train.steps=14", "--preview-steps", "0")
    message = refuse("quality", trained_run)
    assert "holds no samples of the run's present weights" in message


def test_images_in_files_are_measured_like_the_samples_that_they_are(trained_run, tmp_path):
    call("sample", trained_run, "--npz", tmp_path / "samples.npz")
    runs = ["--runs", trained_run.parent.parent]
    text = call("quality", "--images", tmp_path / "samples.npz", "--data", "digits", *runs)
    assert printed(text) == printed(call("quality", trained_run))


def test_protocols_and_references_stand_side_by_side(trained_run):
    both = ["--protocol=paper", "--protocol=torch-fidelity", "--reference=train", "--reference=test"]
    text = call("quality", trained_run, *both)
    for name in ("paper", "torch-fidelity"):
        assert f"{name}, against train: " in text and f"{name}, against test: " in text


def test_quality_in_the_features_of_clip(trained_run, small_clip):
    clip = ["--features", "clip-vit-b-32", "--features-weights", small_clip]
    text = call("quality", trained_run, *clip)
    assert (
        "frechet_distance is the Frechet distance (clip-vit-b-32); kid is the CMMD-like kernel distance"
        in text
    )
    assert "score is" not in text and "not comparable with any published" not in text
    assert "clip-vit-b-32 (weights " in text
    assert "name --features or --inception, not both" in refuse("quality", trained_run, *clip, "--inception")
    assert "needs --features" in refuse("quality", trained_run, *clip[2:])


def test_nearest_training_images_are_drawn(trained_run, tmp_path):
    text = call("neighbours", trained_run, "--out", tmp_path / "nearest.png")
    assert "memorisation" in text and text.strip().endswith(f"{tmp_path / 'nearest'}.png")
    assert (tmp_path / "nearest.png").exists()


def test_options_of_a_run_do_not_go_with_images(trained_run, tmp_path):
    images = ["quality", "--images", tmp_path, "--data", "digits"]
    assert "name --images or a run, not both" in refuse(*images, "--preset", "digits")
    assert "belong to a run" in refuse(*images, "--precision", "bf16")
