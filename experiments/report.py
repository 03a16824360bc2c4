"""The report of a study from whatever is stored: its sections, its head and how each number was made."""

from pathlib import Path

from experiments.study import Study, StudyRun


def write_report(study: Study) -> Path:
    """Write the report of a study from what is stored; return the path of its page."""
    raise NotImplementedError


def summary(run: StudyRun) -> str:
    """Return in one line what is known of a run."""
    raise NotImplementedError
