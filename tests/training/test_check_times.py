"""Check times: by the number of updates, by time, and the same in all processes."""

import pytest
import torch

from ddpm_eval.runtime import ALONE, Runtime
from ddpm_eval.training import check_times
from ddpm_eval.training.check_times import CHECK_SECONDS, CheckTimes


class Clock:
    """Stands for the clock: an update takes as long as the test says."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(check_times, "time", clock)
    return clock


def checks_of(clock, checks, seconds_of_updates, first=0):
    """Return after which updates there is a check if they take this long."""
    found = []
    for step, seconds in enumerate(seconds_of_updates, start=first + 1):
        clock.now += seconds
        if checks.due(step, urgent=False):
            found.append(step)
            checks.checked(step)
    return found


def test_fast_updates_are_checked_by_their_number(clock):
    assert checks_of(clock, CheckTimes((5, 7), 0, ALONE), [0.01] * 15) == [5, 7, 10, 14, 15]
    assert checks_of(clock, CheckTimes((5,), 3, ALONE), [0.01] * 8, first=3) == [5, 10]


def test_slow_updates_are_checked_by_time(clock):
    """Of 4 seconds each, three exceed ten seconds; of 30, each does."""
    assert checks_of(clock, CheckTimes((50,), 0, ALONE), [4] * 7) == [3, 6]
    assert checks_of(clock, CheckTimes((50,), 0, ALONE), [0.1, 30, 30, 0.1, 0.1]) == [2, 3]


def test_an_urgent_reason_is_a_check_at_once_in_a_single_process_only(clock):
    assert CheckTimes((50,), 0, ALONE).due(1, urgent=True)
    several = CheckTimes((50,), 0, Runtime(torch.device("cpu"), world_size=2))
    several.next_step = 10
    assert not several.due(1, urgent=True) and several.due(10, urgent=False)


def test_several_processes_agree_whatever_their_clocks_say(clock, monkeypatch):
    """The mean time of an update over the processes is 2 seconds: five fit into ten seconds."""
    asked = []

    def mean(runtime, value):
        asked.append(float(value))
        return value + 1.0

    monkeypatch.setattr(Runtime, "mean", mean)
    checks = CheckTimes((50,), 0, Runtime(torch.device("cpu"), world_size=2))
    assert checks_of(clock, checks, [1.0]) == [1] and asked == [1.0]
    assert checks.next_step == 1 + CHECK_SECONDS / 2
    assert checks_of(clock, checks, [1.0] * 5, first=1) == [6] and asked == [1.0, 5.0]


def test_updates_that_take_no_time_do_not_divide_by_it(clock, monkeypatch):
    monkeypatch.setattr(Runtime, "mean", lambda runtime, value: value)
    checks = CheckTimes((50,), 0, Runtime(torch.device("cpu"), world_size=2))
    assert checks_of(clock, checks, [0.0] * 100) == [1, 50, 100]
