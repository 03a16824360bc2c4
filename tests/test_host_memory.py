"""What memory is available: by the system's count, within every control group, shared by processes."""

import pytest

from ddpm_eval import host_memory
from ddpm_eval.host_memory import available_bytes, readable


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system of 10 MB without control groups; return functions that add a group of either version."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    for name, path in {"MEMINFO": "meminfo", "CGROUPS": "cgroup", "MEMBERSHIP": "membership"}.items():
        monkeypatch.setattr(host_memory, name, tmp_path / path)
    (tmp_path / "meminfo").write_text(
        "MemTotal: 20000 kB\nMemFree: 1 kB\nMemAvailable: 10000 kB\nHugePages_Free: 0\n"
    )

    def group(path, limit, used, cache=0, version=2):
        folder = tmp_path / "cgroup" / ("" if version == 2 else "memory") / path
        folder.mkdir(parents=True, exist_ok=True)
        names = (
            ("memory.max", "memory.current")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        for name, value in zip(names, (limit, used), strict=True):
            (folder / name).write_text(f"{value}\n")
        (folder / "memory.stat").write_text(f"active_file 7\ninactive_file {cache}\n")

    def member(*lines):
        (tmp_path / "membership").write_text("".join(f"{line}\n" for line in lines))

    return group, member


def test_the_system_counts_what_can_be_had_not_what_is_free(system):
    assert available_bytes() == 10_240_000


def test_control_groups_limit_it_at_every_level(system):
    group, member = system
    member("0::/batch/job")
    group("batch/job", "max", 5)
    assert available_bytes() == 10_240_000
    group("batch", 3_000_000, 1_000_000, cache=500_000)  # the cache is given up
    assert available_bytes() == 2_500_000
    group("batch/job", 900_000, 1_000_000)
    assert available_bytes() == 0


def test_old_control_groups_and_containers_that_hide_their_path(system):
    group, member = system
    member("5:cpu,cpuacct:/x", "4:memory:/docker/1234", "0::/")
    group("", 2**63 - 4096, 1_000_000, version=1)
    assert available_bytes() == 10_240_000
    group("", 2_000_000, 1_500_000, version=1)
    assert available_bytes() == 500_000


def test_processes_on_one_machine_share_it(system, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert available_bytes() == 2_560_000


def test_a_system_may_not_tell(system):
    host_memory.MEMINFO.unlink()
    assert available_bytes() is None


def test_bytes_are_told_in_words():
    assert readable(1_500_000_000) == "1.5 GB" and readable(2_500_000) == "2.5 MB"


def test_without_a_call_for_the_usable_cores_all_count(monkeypatch):
    """As on macOS."""
    assert 1 <= host_memory.usable_cores()
    monkeypatch.delattr(host_memory.os, "sched_getaffinity")
    monkeypatch.setattr(host_memory.os, "cpu_count", lambda: 3)
    assert host_memory.usable_cores() == 3
