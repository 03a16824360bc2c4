"""What a number's provenance says of the process that made it: versions, machine, commit, command."""

import datetime
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("ddpm_eval", "torch", "torch-fidelity", "numpy", "scipy", "h5py")


@cache
def environment() -> dict[str, object]:
    """Return the versions, the machine, the package's git commit and the command line of this process."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "command": " ".join(sys.argv),
    }


def now() -> str:
    """Return the time in UTC as text; later times sort behind earlier ones."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _git_commit() -> str:
    here = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        run = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10)
    except OSError:
        return "unknown"
    return run.stdout.strip() or "unknown"
