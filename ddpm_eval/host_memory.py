"""How much memory, and how many cores, this machine can give to this process."""

import os
from collections.abc import Iterator
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available_bytes() -> int | None:
    """Return how much main memory this process can still take, None where the system does not tell.

    That is what the system counts as available, within the limits of the control groups (containers, batch
    systems) that hold this process, shared evenly by the processes that torchrun started on this machine.
    """
    limits = [limit for limit in (_system_available(), *_group_limits()) if limit is not None]
    return min(limits) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if limits else None


def usable_cores() -> int:
    """Return the number of cores that this process may use, where the system tells; else all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows


def readable(count: int) -> str:
    """Return a number of bytes in words, such as ``1.5 GB`` (of 10^9 bytes)."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def _system_available() -> int | None:
    found = _numbers(MEMINFO).get("MemAvailable:")
    return None if found is None else 1024 * found


def _group_limits() -> Iterator[int]:
    """Yield what is left in every control group above this process that has a limit."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if not controllers:  # version 2: one hierarchy for all controllers
            yield from _left(CGROUPS, path, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            yield from _left(CGROUPS / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes")


def _left(root: Path, path: str, limit_name: str, used_name: str) -> Iterator[int]:
    """Yield what is left in a control group and in those that hold it, where there is a limit."""
    group = root / path.strip("/")
    for folder in (group, *group.parents[: len(group.parts) - len(root.parts)]):
        limit = _number(folder / limit_name)
        used = _number(folder / used_name)
        if limit is not None and used is not None:
            cache = _numbers(folder / "memory.stat").get("inactive_file", 0)  # given up when memory is needed
            yield max(0, limit - used + cache)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _numbers(path: Path) -> dict[str, int]:
    """Read a file of lines that begin with a name and a number."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}
