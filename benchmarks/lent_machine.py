"""Processes and packages on a machine that is lent by the minute and may have no network."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TextIO

import carry

ROOT = Path(__file__).resolve().parents[1]
LATE = 124
"""The exit code of a command that was stopped, as of the program ``timeout``."""
GRACE_SECONDS = 20
"""What a command gets to stop cleanly."""
BEGIN_SECONDS = 60
"""What a background process gets to begin."""


# Processes


def run_within(seconds: float, command: Sequence[str], log: TextIO) -> int:
    """Run a command, stopped cleanly after ``seconds``; return its exit code, LATE if it was stopped."""
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=die_with_parent)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        stop(process)
        return LATE
    except KeyboardInterrupt:
        stop(process)
        raise


def stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process as Ctrl-C does; kill it if it does not end."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def die_with_parent() -> None:
    """Let the kernel end this process with its parent, so that nothing of a killed stay holds the run."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def run_in_background(command: Sequence[str], out: Path) -> None:
    """Start a command that works in the folder ``out`` and outlives this process; return when it has begun.

    Raises:
        ValueError: if it ends at once, or another process works in the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    if carry.is_busy(out):
        raise ValueError(f"{out} is in use by another process: wait for it, or name another folder")
    output = out / "output.txt"
    with output.open("w") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    end = time.monotonic() + BEGIN_SECONDS
    while not carry.is_busy(out) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    if process.poll() not in (None, 0):
        raise ValueError(f"the process ended at once: {last_error(output)}")


def last_error(path: Path) -> str:
    """Return the last error that a command wrote into the log."""
    return next(reversed(re.findall(r"^\S*Error: (.+)$", path.read_text(), re.MULTILINE)), f"see {path}")


# Packages


@contextlib.contextmanager
def packages(wheels: Path | None) -> Iterator[None]:
    """Make this repository and a folder of wheels importable, here and in the commands, without a network."""
    with tempfile.TemporaryDirectory(prefix="wheels-") as site:
        if wheels is not None:
            install(wheels, site)
        sys.path[:0] = [str(ROOT), site]
        before = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), site, before]))
        check_packages()
        yield


def install(wheels: Path, site: str) -> None:
    """Install all wheels of a folder into ``site``."""
    files = sorted(str(path) for path in wheels.glob("*.whl"))
    if not files:
        raise ValueError(f"{wheels} holds no wheels (*.whl)")
    options = ["--quiet", "--no-index", "--no-deps", "--target", site]
    pip = [sys.executable, "-m", "pip", "install", *options, *files]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(
            f"the wheels in {wheels} cannot be installed: {done.stderr.strip().splitlines()[-1]}"
        )


def check_packages() -> None:
    """Raise ValueError, naming them, if packages are missing that the project needs."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.split(r"[<>=!~ ;\[]", line, maxsplit=1)[0] for line in wanted]
    missing = [name for name in names if not has_package(name)]
    if missing:
        raise ValueError(
            f"packages are missing: {', '.join(missing)} (pip install -c constraints.txt -e ., or carry "
            "their wheels and those of what they need, and name the folder with --wheels)"
        )


def has_package(name: str) -> bool:
    """Tell whether a package is installed."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
