"""On a disk that is full, read-only, another user's or under a quota, work ends in a sentence and goes on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CANNOT_MOUNT = 77
REASONS = {
    "full": "No space left on device",
    "read-only": "Read-only file system",
    "permission": "Permission denied",
    "quota": "Disk quota exceeded",
}
WORKS = {
    "full": ("training", "sampling", "bound", "features", "hdf5", "rendering"),
    "read-only": ("training", "sampling", "hdf5"),
    "permission": ("training", "sampling", "hdf5"),
    "quota": ("training", "sampling", "hdf5"),
}
"""All works write by the same functions: the full disk is tried with each of them."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", REASONS)
def test_work_that_cannot_be_written_is_refused_in_a_sentence_and_done_afterwards(tmp_path, fault):
    command = [sys.executable, "tests/disk_faults.py", fault, str(tmp_path), *WORKS[fault]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    if done.returncode == CANNOT_MOUNT:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = re.findall(r"^(\w+): Error: (.*)$", done.stdout, re.MULTILINE)
    assert [work for work, _ in found] == [*WORKS[fault]]
    assert all(REASONS[fault] in sentence for _, sentence in found), found
