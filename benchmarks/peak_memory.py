"""The most memory that a command and all processes that it starts hold at once.

    python benchmarks/peak_memory.py [--every 0.1] -- python cli.py reproduce --set train.steps=24

What processes share counts once (the sum of their proportional set sizes, Linux). Peaks between two looks are
missed; the sum of each process's own peak, which is an upper bound, is printed beside it.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")


@dataclass
class Peak:
    """What a command held.

    Attributes:
        together: most bytes of all processes at one look.
        each: the most bytes of each process, by its id.
        processes: the most processes at one look.
        code: the exit code.
    """

    together: int = 0
    each: dict[int, int] = field(default_factory=dict)
    processes: int = 0
    code: int = 0


def main() -> None:
    """Run the command, and print its peak."""
    arguments = parse()
    peak = measure(arguments.command, arguments.every)
    print(f"exit code {peak.code}, at most {peak.processes} processes at once")
    print(f"peak of all processes together: {peak.together / 1e6:.0f} MB")
    print(f"sum of the peaks of {len(peak.each)} processes: {sum(peak.each.values()) / 1e6:.0f} MB")
    sys.exit(peak.code)


def measure(command: list[str], every: float) -> Peak:
    """Run a command and look at the memory of its processes every so many seconds."""
    peak = Peak()
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            held = {pid: size for pid in family(process.pid) if (size := proportional_bytes(pid))}
            peak.together = max(peak.together, sum(held.values()))
            peak.processes = max(peak.processes, len(held))
            for pid, size in held.items():
                peak.each[pid] = max(peak.each.get(pid, 0), size)
            time.sleep(every)
    peak.code = process.returncode
    return peak


def family(first: int) -> set[int]:
    """Return the ids of a process and of all that it started, as far as they run."""
    parents = {}
    for path in PROC.glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
    found = {first}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def proportional_bytes(pid: int) -> int:
    """Return a process's memory, of shared pages its share; 0 if it has ended."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=float, default=0.1, help="seconds between looks")
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


if __name__ == "__main__":
    main()
