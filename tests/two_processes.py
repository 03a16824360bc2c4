"""Two processes: as threads that meet at a gate, or as torchrun starts them."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from counted_run import again
from tiny import HERE

from ddpm_eval.runtime import Runtime

ROOT = Path(__file__).resolve().parents[1]
WAIT_SECONDS = 120
LONGEST_SECONDS = 600


class Together(Runtime):
    """One of two processes that meet at ``gate``, as threads."""

    gate = threading.Barrier(2)
    votes = [False, False]  # noqa: RUF012 - shared by both, as the test wants it

    def barrier(self):
        self.gate.wait(timeout=WAIT_SECONDS)

    def any_process(self, value):
        self.votes[self.rank] = value
        self.barrier()
        agreed = any(self.votes)
        self.barrier()
        return agreed


def together(run):
    """Return a run as each of two processes sees it."""
    both = [again(run), again(run)]
    for rank, process in enumerate(both):
        process.runtime = Together(HERE.device, rank, world_size=2)
    return both


def side_by_side(use, both):
    """Call a function with each of two processes at the same time, and return what it returns."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(use, both))


def torchrun(*arguments, folder=ROOT):
    """Run the command line in two processes from a folder, and return what they print."""
    with launched(*arguments, folder=folder) as launcher:
        try:
            output, errors = launcher.communicate(timeout=LONGEST_SECONDS)
        finally:
            launcher.terminate()  # which ends its processes, too, if they wait for ever
    assert launcher.returncode == 0, errors[-3000:]
    return output


def signalled(number, file, *arguments):
    """Run the command line in two processes, send a signal to torchrun once a file exists; return stderr."""
    with launched(*arguments) as launcher:
        try:
            until = time.monotonic() + WAIT_SECONDS
            while not file.exists() and launcher.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            launcher.send_signal(number)
            _, errors = launcher.communicate(timeout=WAIT_SECONDS)
        finally:
            launcher.terminate()
    return errors


def launched(*arguments, folder=ROOT):
    """Start torchrun with two processes of the command line, from a folder."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", str(ROOT / "cli.py"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes)
