"""A study of which everything is measured, and one without any result."""

import pytest
from stored_results import STEPS, store_study

from experiments.study import StudyOptions, resolve_preset

SETTINGS = {"diffusion.timesteps": str(STEPS), "evaluation.n_progressive": "2"}


def resolve(folder):
    """Return the digits' study on a chain of a few steps."""
    options = StudyOptions(folder / "reports")
    return resolve_preset("digits", SETTINGS, runs=folder / "runs", options=options)


@pytest.fixture
def empty(tmp_path):
    """A study of which nothing is stored."""
    return resolve(tmp_path)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The same study with results of all runs; nothing is to be written into its runs."""
    study = resolve(tmp_path_factory.mktemp("measured"))
    store_study(study)
    return study
