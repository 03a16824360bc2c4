"""Whatever is killed at any moment is done again to equal contents, and no temporary file is left."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KILLS = int(os.environ.get("DDPM_EVAL_KILLS", "1"))
"""Kills of each work; 50 take some minutes each."""
WORKS = ("training", "sampling", "bound", "features", "hdf5", "rendering")


@pytest.mark.slow
def test_killed_work_is_done_again_to_equal_contents(tmp_path):
    command = [sys.executable, "tests/killed_work.py", str(KILLS), str(tmp_path), *WORKS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = re.findall(r"(\w+) cases: (\d+), killed: (\d+), .*, equal: (\d+)", done.stdout)
    assert [(work, int(killed)) for work, _, killed, _ in found] == [(work, KILLS) for work in WORKS]
    assert all(cases == equal for _, cases, _, equal in found)
