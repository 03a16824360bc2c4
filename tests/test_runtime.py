"""Where things run: devices, shards, seeds."""

import ctypes
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from simulated_mps import SimulatedMPS
from tiny import HERE, TINY, digits

from ddpm_eval import runtime
from ddpm_eval.metrics.bound import evaluate_bound
from ddpm_eval.model.unet import UNet
from ddpm_eval.runtime import Runtime, global_seed
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.sampling_stages import SamplesStage
from ddpm_eval.stages.training_stage import TrainingStage

ROOT = Path(__file__).resolve().parents[1]


def without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def with_cuda(monkeypatch, count=2):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


# Devices


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_without_a_gpu_everything_runs_on_the_cpu(monkeypatch, name):
    without_cuda(monkeypatch)
    here = runtime.start(name)
    assert here.device == torch.device("cpu") and here.main and here.world_size == 1
    assert not here.mixed_precision and not here.compiled
    assert runtime.start(name, mixed_precision=True).mixed_precision


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:x"])
def test_a_gpu_that_is_not_there_is_a_sentence(monkeypatch, name):
    without_cuda(monkeypatch)
    with pytest.raises(
        ValueError,
        match=rf"device '{name}' asked for, but torch .* finds no CUDA device \(use --device cpu\)",
    ):
        runtime.start(name)


@pytest.mark.parametrize("name", ["gpu", "cpu:0", "mps:0", "", "Cuda"])
def test_an_unknown_device_is_a_sentence(monkeypatch, name):
    with_cuda(monkeypatch)
    with pytest.raises(ValueError, match=rf"device '{name}' is unknown \(auto, cpu, cuda, cuda:N, mps\)"):
        runtime.start(name)


def test_gpus_are_chosen_by_name_or_by_local_rank(monkeypatch):
    with_cuda(monkeypatch)
    assert runtime._device("cuda:1", local_rank=0) == torch.device("cuda:1")
    assert (
        runtime._device("cuda", local_rank=1)
        == runtime._device("auto", local_rank=1)
        == torch.device("cuda:1")
    )
    with pytest.raises(ValueError, match="device 'cuda:2' asked for, but there are 2 CUDA devices"):
        runtime._device("cuda:2", local_rank=0)
    with pytest.raises(ValueError, match="device 'cuda:x' is unknown"):
        runtime._device("cuda:x", local_rank=0)
    with pytest.raises(ValueError, match="device 'cuda' asked for, but there are 2 CUDA devices"):
        runtime._device("auto", local_rank=2)  # more processes than GPUs


def test_a_gpu_of_apples_is_taken_by_name_alone(monkeypatch):
    without_cuda(monkeypatch)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    here = runtime.start("mps")
    assert (here.device, here.arithmetic_device) == (torch.device("mps"), torch.device("cpu"))
    assert here.describe() == "Apple GPU (mps)"
    assert not here.mixed_precision and not here.compiled
    assert runtime.start("auto").device == torch.device("cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"'mps' is of one process, but torchrun started several"):
        runtime.start("mps")


def test_a_gpu_of_apples_that_is_not_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    sentence = r"device 'mps' asked for, but torch .* finds no Apple GPU \(use --device cpu\)"
    with pytest.raises(ValueError, match=sentence):
        runtime.start("mps")


def test_a_device_without_float64_trains_samples_and_measures_as_the_cpu_does(tmp_path):
    """The network is there, and all that needs float64 around it on the CPU."""
    found = {}
    for device in ("cpu", "mps"):
        run = Run(tmp_path / device, TINY, Runtime(torch.device(device)))
        with SimulatedMPS() as there:
            for stage in (TrainingStage(), SamplesStage()):
                ensure(stage, run)
            images = digits("test").subset(np.arange(8))
            (terms,) = evaluate_bound(run.model(), images, estimator="stratified")
        assert (there.arrivals > 0) == (device == "mps")
        found[device] = (SamplesStage().read(run).images, terms.terms, terms.prior)
    for on_cpu, on_mps in zip(found["cpu"], found["mps"], strict=True):
        assert np.array_equal(on_cpu, on_mps)


def test_threads_are_set_where_they_are_asked_for():
    before = torch.get_num_threads()
    try:
        runtime.start("cpu", threads=2)
        assert torch.get_num_threads() == 2
        assert runtime.start("cpu", threads=None) and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_stopping_without_a_process_group_is_harmless():
    runtime.stop()


def test_the_device_is_named_with_its_threads_and_processes():
    assert HERE.describe() == f"CPU, {torch.get_num_threads()} threads"
    assert dataclasses.replace(HERE, world_size=3).describe().startswith("CPU, 3 processes of ")


# Shards


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_shards_are_disjoint_complete_and_even(world_size):
    items = list(range(20))
    shards = [Runtime(torch.device("cpu"), rank, world_size).shard(items) for rank in range(world_size)]
    assert sorted(item for shard in shards for item in shard) == items
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_only_the_first_process_writes():
    assert [Runtime(torch.device("cpu"), rank, 3).main for rank in range(3)] == [True, False, False]


def test_alone_nothing_is_communicated():
    value = torch.tensor([1.0, 2.0])
    HERE.barrier()
    assert torch.equal(HERE.mean(value), value)
    assert HERE.any_process(True) is True and HERE.any_process(False) is False


def test_alone_every_item_is_computed_in_order_when_it_is_asked_for():
    computed = []

    def square(item):
        computed.append(item)
        return item**2

    gathered = HERE.all_gather([3, 1, 2], square)
    assert next(gathered) == 9 and computed == [3]
    assert list(gathered) == [1, 4] and computed == [3, 1, 2]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_keep_the_device_busy_within_its_memory(device):
    here = Runtime(torch.device(device))
    sizes = [here.batch_size(side, width=8) for side in (8, 32, 64, 256, 2048)]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] == 8
    assert sizes[0] == (1024 if device == "cuda" else 256)
    # the number of activations of a layer counts: half the side leaves room for four times the width
    assert here.batch_size(64, width=32) == here.batch_size(32, width=128)


# Randomness and placement


def test_a_global_seed_holds_for_its_block_only():
    before = torch.get_rng_state()
    drawn = []
    for seed in (5, 5, 6):
        with global_seed(seed, torch.device("cpu")):
            drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RuntimeError, match="work"), global_seed(5, torch.device("cpu")):
        raise RuntimeError("work")
    assert torch.equal(torch.get_rng_state(), before)


def test_placing_a_network_changes_its_layout_only():
    x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 15])
    for width in (TINY.network.base_channels, runtime.CHANNELS_LAST_WIDTH):
        network = UNet(TINY.network.model_copy(update={"base_channels": width}), 1, 8, 1, seed=0).eval()
        torch.nn.init.normal_(network.conv_out.weight, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = network(x, t)
            placed = HERE.place(network, width)
            torch.testing.assert_close(placed(x, t), expected, rtol=1e-4, atol=1e-4)
        wide = placed.mid.block_1.conv1.weight
        channels_last = wide.is_contiguous(memory_format=torch.channels_last) and not wide.is_contiguous()
        assert channels_last == (width >= runtime.CHANNELS_LAST_WIDTH)


def test_compilation_is_off_unless_asked_for():
    network = UNet(TINY.network, 1, 8, 1)
    assert HERE.compile(network) is network


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_of_evaluation_is_what_was_asked_for(precision, expected):
    here = runtime.start("cpu", precision=precision)
    assert here.precision == precision
    a = torch.ones(2, 2)
    with here.evaluation_precision():
        assert (a @ a).dtype == expected
    assert (a @ a).dtype == torch.float32
    with here.training_precision():  # on a CPU training is float32
        assert (a @ a).dtype == torch.float32


# Memory

FAULTS = """
import resource, torch
from ddpm_eval.runtime import keep_freed_memory
keep_freed_memory()
def work():
    blocks = [torch.ones(2**20) for _ in range(20)]
for _ in range(5):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_kept_for_the_next_tensors():
    run = subprocess.run([sys.executable, "-c", FAULTS], cwd=ROOT, capture_output=True, text=True, check=True)
    # by default most processes fault in ten times twenty blocks of 1024 pages anew
    assert int(run.stdout) < 1_000
