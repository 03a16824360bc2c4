"""The memory estimate: autograd's count, a measured peak, the system's limits, and the refusal."""

import dataclasses
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tiny import CELLS, HERE, TINY, batches, cell, digits, tiny
from torch.nn.attention import SDPBackend, sdpa_kernel

from ddpm_eval import host_memory
from ddpm_eval.model.diffusion import training_loss
from ddpm_eval.runtime import Runtime
from ddpm_eval.training import checkpoint, loop, memory
from ddpm_eval.training.loop import TrainingOptions
from ddpm_eval.training.memory import MemoryEstimate, available_bytes, check, estimate
from ddpm_eval.training.trainer import Trainer
from experiments.paper.presets import NAMES, preset

ROOT = Path(__file__).resolve().parents[2]
GPU = Runtime(torch.device("cuda"), mixed_precision=True, compiled=True)


def available(monkeypatch, count):
    monkeypatch.setattr(memory, "available_bytes", lambda runtime: count)


# The estimate


def really_kept(spec, size, attention):
    """Bytes that autograd keeps of one real loss on this machine, weights left out."""
    trainer = Trainer(spec, HERE)
    (batch,) = batches(tiny(train__batch_size=size), 0, 1)
    weights = {p.data_ptr() for p in trainer.parameters}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), attention:
        loss = training_loss(trainer.process, spec.diffusion.objective, batch.x_0, batch.t, batch.eps)
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(("prediction", "objective", "variance"), CELLS)
def test_activations_without_memory_are_those_with_memory(prediction, objective, variance):
    """The meta device and the CPU take the same path here: no upsampling, attention written out.

    Dropout keeps its masks.
    """
    options = {"network__multipliers": "[1]", "network__dropout": 0.1}
    spec = cell(prediction, objective, variance, **options)
    six, five = (really_kept(spec, size, sdpa_kernel(SDPBackend.MATH)) for size in (6, 5))
    assert estimate(spec, HERE).per_image == six - five


def test_other_paths_on_the_meta_device_keep_a_little_more():
    """The meta device doubles the side before it convolves, and writes attention out.

    The CPU has a kernel for either.
    """
    spec = preset("digits")
    six, five = (really_kept(spec, size, nullcontext()) for size in (6, 5))
    assert 1 <= estimate(spec, HERE).per_image / (six - five) < 1.1


def test_the_estimate_is_a_line_in_the_batch_and_names_the_state():
    parameters = sum(p.numel() for p in Trainer(TINY, HERE).parameters)
    small, large = (estimate(tiny(train__batch_size=size), HERE) for size in (8, 1000))
    assert dataclasses.replace(small, images=1000) == large
    assert large.needed - dataclasses.replace(large, images=999).needed == large.per_image
    overhead = small.fixed - memory.LIBRARIES_BYTES - 20 * parameters
    assert 0 <= overhead < 20 * parameters  # of tensors that do not grow with the batch: kernels, embeddings
    assert small.saving == memory.LIBRARIES_BYTES + 32 * parameters


def test_processes_share_the_batch_and_a_gpu_holds_the_images():
    two = Runtime(torch.device("cpu"), world_size=2)
    assert estimate(TINY, two).images == 4 and estimate(TINY, two).fixed > estimate(TINY, HERE).fixed
    on_gpu = dataclasses.replace(GPU, compiled=False)
    resident = estimate(TINY, on_gpu, digits()).fixed - estimate(TINY, on_gpu).fixed
    assert resident == digits().array.nbytes
    assert estimate(TINY, HERE, digits()) == estimate(TINY, HERE)  # they are in memory already


def test_published_sizes_need_what_is_known_of_them():
    """The CIFAR-10 network trains at batch 128 under 8 GB; 256 x 256 images at batch 64 fit on no device."""
    needed = {name: estimate(preset(name), HERE).needed / 1e9 for name in NAMES}
    assert 4 < needed["cifar10"] < 8 and 0.1 < needed["digits"] < 0.3
    assert needed["celebahq256"] > 80 and needed["lsun-bedroom256-large"] > needed["lsun-bedroom256"]


MEASURE = """
import sys
from pathlib import Path
import torch
from ddpm_eval import runtime
from ddpm_eval.spec_text import override
from ddpm_eval.training import checkpoint
from ddpm_eval.training.batches import Batch
from ddpm_eval.training.memory import estimate
from ddpm_eval.training.trainer import Trainer
from experiments.paper.presets import preset

here = runtime.start("cpu", threads=1)
size = int(sys.argv[1])
spec = override(preset("cifar10-small"), {"train.batch_size": sys.argv[1], "train.steps": "9"})


def status(name):  # getrusage's peak would count what the parent held before this program began
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


resident = status("VmRSS")
print(estimate(spec, here).needed)
trainer = Trainer(spec, here)
for step in range(2):
    x_0 = torch.rand(size, 3, 32, 32) * 2 - 1
    batch = Batch(x_0, torch.randint(1, 1001, (size,)), torch.randn_like(x_0), torch.ones(size))
    trainer.seeded_update(batch)
checkpoint.save(Path(sys.argv[2]) / "checkpoint.safetensors", trainer.snapshot("ok", ""))
print(1024 * (status("VmHWM") - resident))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("size", [1, 24])
def test_the_estimate_is_the_measured_peak_within_15_percent(tmp_path, size):
    """The peak is of a new process, over what it held before.

    With one image the checkpoint's copies are the peak, with 24 the activations. The allocator's unused
    blocks and the kernels' own buffers are not counted; measured: 2% and 8% above the estimate.
    """
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(size), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    estimated, measured = map(int, done.stdout.split())
    assert measured == pytest.approx(estimated, rel=0.15)


# What is available


def test_a_cpu_offers_what_the_machine_has_left(monkeypatch):
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 7)
    assert available_bytes(HERE) == 7


def test_a_system_that_does_not_tell_refuses_nothing(monkeypatch):
    monkeypatch.setattr(host_memory, "available_bytes", lambda: None)
    check(preset("celebahq256"), HERE, digits())


def test_a_gpu_offers_what_is_free_and_what_torch_holds_unused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (700, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 200)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
    assert available_bytes(GPU) == 850


# The refusal


def test_training_is_refused_exactly_where_it_does_not_fit(monkeypatch):
    needed = estimate(TINY, HERE).needed
    available(monkeypatch, needed)
    check(TINY, HERE, digits())
    available(monkeypatch, needed - 1)
    with pytest.raises(ValueError, match=r"training tiny with batches of 8 needs about 1\d\d MB"):
        check(TINY, HERE, digits())


@pytest.mark.parametrize("processes", [1, 2])
def test_the_batch_that_is_proposed_fits_and_a_much_larger_one_does_not(monkeypatch, processes):
    runtime, limit = Runtime(torch.device("cpu"), world_size=processes), 4 * 10**9
    available(monkeypatch, limit)
    spec = preset("cifar10", settings={"train.batch_size": "512"})
    with pytest.raises(ValueError, match=r"\(--ignore-memory tries all the same\)") as refusal:
        check(spec, runtime, digits())
    words = str(refusal.value)
    assert "(55.1 MB per image), but 4 GB are available on the cpu" in words
    assert ("in each of 2 processes" in words) == (processes == 2)
    largest = int(words.partition("train.batch_size=")[2].split()[0])
    assert largest % processes == 0
    needed = {
        size: estimate(preset("cifar10", settings={"train.batch_size": str(size)}), runtime).needed
        for size in (largest, largest * 5 // 4)
    }
    assert needed[largest] <= limit < needed[largest * 5 // 4]


def test_where_no_batch_fits_none_is_proposed(monkeypatch):
    available(monkeypatch, 10**9)
    with pytest.raises(ValueError, match="not even one image per batch fits"):
        check(preset("celebahq256"), HERE, digits())


def test_a_compiled_bfloat16_training_is_refused_only_if_it_cannot_fit():
    spec = preset("cifar10")
    eager, compiled = estimate(spec, dataclasses.replace(GPU, compiled=False)), estimate(spec, GPU)
    assert eager.least == eager.needed == compiled.needed
    assert compiled.fixed < compiled.least < compiled.needed / 3


def test_no_batch_is_proposed_whose_checkpoint_cannot_be_written():
    assert MemoryEstimate(fixed=10, saving=50, per_image=1, images=5).largest_batch(40) == 0
    assert MemoryEstimate(fixed=10, saving=50, per_image=1, images=5).largest_batch(100) == 80


def test_a_run_that_does_not_fit_is_not_begun_and_one_that_is_finished_is_not_refused(tmp_path, monkeypatch):
    path = tmp_path / "run" / checkpoint.FILE_NAME
    available(monkeypatch, 10**6)
    with pytest.raises(ValueError, match="not even one image"):
        loop.train(TINY, digits(), HERE, path)
    assert not path.parent.exists()
    assert loop.train(TINY, digits(), HERE, path, options=TrainingOptions(ignore_memory=True)).status == "ok"
    assert loop.train(TINY, digits(), HERE, path).status == "ok"


def test_a_gpu_that_runs_out_all_the_same_is_a_sentence(tmp_path, monkeypatch):
    def full(trainer, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. And much more")

    monkeypatch.setattr(Trainer, "update", full)
    with pytest.raises(
        ValueError, match=r"ran out of memory with batches of 8 \(take a smaller --set train.batch_size\)"
    ):
        loop.train(TINY, digits(), HERE, tmp_path / checkpoint.FILE_NAME)
