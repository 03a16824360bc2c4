"""The rate of network evaluations: whole batches over the time that they took."""

import pytest
import torch
from tiny import HERE, TINY, cell

from ddpm_eval.runtime import Runtime
from ddpm_eval.stages import speed
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.speed import evaluations_per_second

BATCH = 5


@pytest.fixture
def clock(monkeypatch):
    """Let each look at the clock take a quarter of a second."""
    ticks = iter(range(1000))
    monkeypatch.setattr(speed, "monotonic", lambda: next(ticks) / 4)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("spec", [TINY, cell("mu", "vlb", "learned")])
def test_the_rate_counts_the_images_of_whole_batches(tmp_path, spec):
    run = Run(tmp_path / "none", spec, HERE, asked_batch_size=BATCH)
    # the clock says 0 at the beginning, 0.25 after the first batch and 0.5, the least, after the second
    assert evaluations_per_second(run) == pytest.approx(BATCH / 0.5)
    assert not run.folder.exists()


@pytest.mark.usefixtures("clock")
def test_two_processes_are_twice_as_fast(tmp_path):
    two = Runtime(torch.device("cpu"), rank=0, world_size=2)
    run = Run(tmp_path / "none", TINY, two, asked_batch_size=BATCH)
    assert evaluations_per_second(run) == pytest.approx(2 * BATCH / 0.5)


def test_a_batch_that_takes_longer_than_the_least_time_counts_once(tmp_path, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(speed, "monotonic", lambda: 7 * next(ticks))
    run = Run(tmp_path / "none", TINY, HERE, asked_batch_size=BATCH)
    assert evaluations_per_second(run) == pytest.approx(BATCH / 14)
