"""A process that samples and measures again and again holds no more in the end than at first."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECONDS = float(os.environ.get("DDPM_EVAL_REPEATED_SECONDS", "0"))
"""How long to go on; 3600 is what docs/reliability.md counts."""
NOISE_MB = 1
"""By which the allocator's unused memory comes and goes (measured: 0.2)."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_open_files_and_threads_stay_flat(tmp_path):
    command = [sys.executable, "tests/repeated_work.py", str(SECONDS), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
    found = json.loads(done.stdout)
    before, after = found["second_third"], found["last_third"]
    assert after["memory_mb"] <= before["memory_mb"] + NOISE_MB
    assert after["open_files"] <= before["open_files"] and after["threads"] <= before["threads"]
