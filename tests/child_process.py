"""Another Python process on the library, for tests of kills, rivals and full disks."""

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = """\
import os, resource, signal, sys, time
from pathlib import Path
import numpy as np
"""


def child(code, *arguments, stdin=None):
    """Start a process that has the arguments as sys.argv[1:]."""
    program = IMPORTS + textwrap.dedent(code)
    pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)


def visible(folder):
    """List the files in and below a folder, but for locks."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
