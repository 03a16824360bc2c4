"""Small networks are trained by one thread, and the others by all."""

import pytest
import torch
from tiny import TINY

from ddpm_eval.data.datasets import load
from ddpm_eval.runtime import ALONE
from ddpm_eval.training import checkpoint
from ddpm_eval.training.loop import train
from ddpm_eval.training.threads import fitting_threads
from experiments.paper.presets import preset


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "world_size", "threads"),
    [("photos", 1, 1), ("digits", 1, 1), ("cifar10-tiny", 1, 2), ("mnist", 1, 2), ("mnist", 16, 1)],
)
def test_the_widest_layer_decides(two_threads, name, world_size, threads):
    with fitting_threads(preset(name), world_size):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2


def test_a_small_run_is_trained_by_one_thread(two_threads, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    train(TINY, load(TINY.data, "train"), ALONE, path)
    assert checkpoint.load(path).metadata["threads"] == 1 and torch.get_num_threads() == 2
