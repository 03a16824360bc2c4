"""What a run is, in words: the head of its report and of the command ``show``."""

from pathlib import Path


def describe_run(folder: Path) -> dict[str, str]:
    """Describe the run in ``folder`` by its results or, where nothing is measured yet, by its checkpoint.

    Raises:
        ValueError: if there is neither.
    """
    raise NotImplementedError
