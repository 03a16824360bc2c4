"""What several tests work on, each made once: a whole reproduction, and one trained and sampled run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SETTINGS, call, folders, main_run, runs_option

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def reproduced(digits_classifier, tmp_path_factory):
    """Return a folder in which ``reproduce`` has run at its smallest, and what it printed."""
    folder = tmp_path_factory.mktemp("reproduced")
    place_classifier(digits_classifier, folder / "runs")
    command = [sys.executable, "cli.py", "reproduce", *map(str, folders(folder)), *SETTINGS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, done.stdout


@pytest.fixture(scope="session")
def trained_and_sampled(tmp_path_factory):
    """Return a folder with the paper's model at its smallest, trained and sampled."""
    folder = tmp_path_factory.mktemp("trained")
    call("train", *runs_option(folder), *SETTINGS, "--preview-steps", "0")
    call("sample", main_run(folder))
    return folder


@pytest.fixture
def trained_run(trained_and_sampled, tmp_path):
    """Return the folder of a trained and sampled run of the test's own."""
    shutil.copytree(trained_and_sampled / "runs" / "digits", tmp_path / "runs" / "digits")
    return main_run(tmp_path)


@pytest.fixture
def classifier(digits_classifier, tmp_path):
    """Let the digits' classifier lie ready among the test's runs, and return its folder."""
    return place_classifier(digits_classifier, tmp_path / "runs")


@pytest.fixture
def passive(monkeypatch):
    """Let waiting threads of worker processes sleep, as `cli.py` does: beside other work they crawl."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")


def place_classifier(digits_classifier, runs):
    """Copy a classifier to where the commands look for it, and return the folder."""
    return Path(shutil.copytree(digits_classifier.weights_path.parent, runs / "classifiers"))
