"""Why results of a run are missing: a sentence for each stage that could not be had, in ``left_out.json``."""

import json
from collections.abc import Mapping
from pathlib import Path

from ddpm_eval.files import write_text
from ddpm_eval.spec_text import read_json

FILE_NAME = "left_out.json"


def note_left_out(folder: Path, stage: str, reason: str) -> None:
    """Note why a stage was left out, or that it was not.

    Args:
        folder: of the run.
        stage: its name.
        reason: a sentence without its stop; empty if the stage was brought about.

    Raises:
        ValueError: if the file cannot be written.
    """
    noted = dict(reasons_left_out(folder))
    if noted.get(stage, "") == reason:
        return
    noted[stage] = reason
    kept = {name: text for name, text in noted.items() if text}
    write_text(folder / FILE_NAME, json.dumps(kept, indent=2) + "\n")


def reasons_left_out(folder: Path) -> Mapping[str, str]:
    """Return the noted sentences by stage; none if there is no file, or it is not readable."""
    path = folder / FILE_NAME
    if not path.is_file():
        return {}
    try:
        found = read_json(path.read_text(errors="replace"))
    except ValueError:
        return {}
    return {str(name): str(text) for name, text in found.items()} if isinstance(found, dict) else {}
