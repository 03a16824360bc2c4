"""SIGINT and SIGTERM to torchrun: both processes end without a traceback, and finished work is kept."""

import signal

import pytest
from command_line import TINY, set_options
from two_processes import ROOT, signalled

from ddpm_eval.training import checkpoint
from experiments.paper.presets import preset
from experiments.study import run_folder

STOPPED = "Stopped. Finished work is kept: the same command continues where it was."


def assert_ended_in_words(errors):
    """The only traceback is torchrun's own, of the signal; no file of the project is in it."""
    assert errors.count("Traceback") == errors.count("SignalException: Process") == 1, errors
    assert f'File "{ROOT}' not in errors
    assert errors.count("closing signal") == 2  # neither process had to be killed
    assert "SIGKILL" not in errors


@pytest.mark.slow
def test_training_in_two_processes_ends_with_a_checkpoint(tmp_path):
    settings = {**TINY, "train.steps": "1000000"}
    path = run_folder(tmp_path / "runs", preset("digits", settings=settings)) / checkpoint.FILE_NAME
    options = ["--runs", tmp_path / "runs", "--device", "cpu", "--preview-steps", "0"]
    errors = signalled(signal.SIGTERM, path, "train", *options, *set_options(settings))
    assert_ended_in_words(errors)
    assert errors.count(STOPPED) == 1
    saved = checkpoint.load(path)
    assert saved.metadata["status"] == "stopped"
    assert saved.metadata["reason"] == "by SIGTERM"


@pytest.mark.slow
def test_sampling_in_two_processes_ends_at_once(trained_run):
    many = ["--set", "evaluation.n_samples=1000000"]
    progress = trained_run / "partial" / "samples"
    errors = signalled(signal.SIGINT, progress, "sample", trained_run, "--device", "cpu", *many)
    assert_ended_in_words(errors)
    assert errors.count(STOPPED) == 1
