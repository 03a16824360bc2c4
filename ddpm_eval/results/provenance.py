"""What a number's provenance says of the process that made it: versions, machine, commit, command."""

import datetime
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

THIS_FILE = Path(__file__).resolve()
GIT_SECONDS = 10
PACKAGES = ("ddpm_eval", "torch", "torch-fidelity", "numpy", "scipy", "h5py")


@cache
def environment() -> dict[str, object]:
    """Return the versions, the machine, the package's git commit and the command line of this process."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "system": platform.platform(terse=True),
        "versions": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "command": " ".join(sys.argv),
    }


def now() -> str:
    """Return the time in UTC as text; later times sort behind earlier ones."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def _processor(description: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's model name, where the system tells it."""
    try:
        lines = description.read_text().splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _git_commit(file: Path = THIS_FILE) -> str:
    """Return the commit of the repository that a file belongs to; an installed copy belongs to none.

    ``-dirty`` stands behind it if a module differs from it: a report that was rendered again is no part of
    the program.
    """
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return "none"
    commit = _git(file.parent, "describe", "--always", "--abbrev=12") or "none"
    changed = _git(file.parent, "status", "--porcelain", "--untracked-files=no", "--", ":/*.py")
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, None if it fails or is not there."""
    command = ["git", *arguments]
    try:
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None
