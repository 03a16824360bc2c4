"""The memory of evaluations: counted tensors, measured peaks, and the refusal."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import HERE, TINY, digits

from ddpm_eval.data.image_set import ArrayImages
from ddpm_eval.metrics import evaluation_memory
from ddpm_eval.metrics.evaluation_memory import (
    EvaluationMemory,
    LiveTensors,
    bound,
    check,
    check_features,
    sampling,
)
from ddpm_eval.protocol import PROTOCOLS
from experiments.paper.presets import NAMES, preset

ROOT = Path(__file__).resolve().parents[2]
PAPER, EXACT = PROTOCOLS["paper"], PROTOCOLS["exact"]


# The count


def test_tensors_count_while_they_live_and_views_do_not():
    given = torch.zeros(1000)
    with LiveTensors() as counted:
        counted.leave_out(given)
        given.view(10, 100)
        kept = given + 1  # 4000 bytes
        for _ in range(5):
            kept[::2] * 2.0  # 2000 bytes, freed at once
        kept.add_(1)
    assert (counted.live, counted.peak) == (4000, 6000)
    del kept
    assert counted.live == 0


def test_what_is_taken_for_a_moment_counts_for_the_peak_only():
    counted = LiveTensors()
    counted.add_for_a_moment(7)
    assert (counted.live, counted.peak) == (0, 7)


def test_the_network_dominates_and_the_batch_is_a_line():
    """Wider networks need more; protocols that share the network's passes share its memory."""
    narrow, wide = (
        sampling(preset("cifar10", settings=width), PAPER, 8, HERE).memory()
        for width in ({"network.base_channels": "64"}, {})
    )
    assert wide.per_image == pytest.approx(2 * narrow.per_image, rel=0.05)
    assert wide.fixed - evaluation_memory.LIBRARIES_BYTES == pytest.approx(4 * 35.7e6, rel=0.05)
    assert narrow.needed(9) - narrow.needed(8) == narrow.per_image
    one, two = (bound(TINY, protocols, 80, HERE).memory() for protocols in ([PAPER], [PAPER, EXACT]))
    assert one.per_image <= two.per_image < 1.5 * one.per_image
    assert two.results == 2 * one.results == 3 * 2 * 2 * 4 * 80


# The measured peak


MEASURE = """
import sys
from pathlib import Path
import numpy as np
import torch
from ddpm_eval import runtime
from ddpm_eval.metrics.bound import evaluate_bound
from ddpm_eval.metrics.drawing import draw_samples
from ddpm_eval.metrics.evaluation_memory import bound, sampling
from ddpm_eval.model.samplers import make_sampler
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.stages.run import SAMPLING, Run
from ddpm_eval.training import checkpoint
from ddpm_eval.training.trainer import Trainer
from experiments.paper.presets import preset

name, work, size, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
here = runtime.start("cpu", threads=1)
chain = {"diffusion.timesteps": "3", "diffusion.beta_start": "0.1", "diffusion.beta_end": "0.9"}
run = Run(folder, preset(name, settings=chain), here)
protocols = [PROTOCOLS["paper"], PROTOCOLS["exact"]]
if work == "save":
    checkpoint.save(run.checkpoint, Trainer(run.spec, here).snapshot("ok", ""))
    sys.exit()


def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
run.network
if work == "sampling":
    draw_samples(make_sampler(run.process(), 0, "ancestral"), run.shape, range(size), batch_size=size)
else:
    images = np.random.default_rng(0).integers(0, 256, (-(-size // 3), *run.shape), np.uint8)
    evaluate_bound(run.model(), images, protocols, batch_size=size)
measured = status("VmHWM") - before
if work == "sampling":  # the estimate comes last: what it leaves behind would be used again
    evaluation = sampling(run.spec, SAMPLING, size, here)
else:
    evaluation = bound(run.spec, protocols, 3 * size, here)
print(evaluation.memory().needed(size), measured)
"""


def measure(*arguments):
    command = [sys.executable, "-c", MEASURE, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return list(map(int, done.stdout.split()))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_estimate_is_the_measured_peak_within_a_quarter(tmp_path):
    """The peak is of a process of its own, over what it held after the estimate."""
    cases = [
        ("cifar10-small", "sampling", 24),
        ("cifar10-small", "the bound", 24),
        ("digits", "sampling", 1024),
    ]
    for name in ("cifar10-small", "digits"):
        measure(name, "save", 1, tmp_path / name)
    for name, work, size in cases:
        estimated, measured = measure(name, work, size, tmp_path / name)
        print(name, work, size, estimated, measured)
        assert measured == pytest.approx(estimated, rel=evaluation_memory.ERROR)


# The refusal


def available(monkeypatch, count):
    monkeypatch.setattr(evaluation_memory, "available_bytes", lambda runtime: count)


@pytest.mark.parametrize("work", [sampling(TINY, PAPER, 8, HERE), bound(TINY, [PAPER], 80, HERE)])
def test_an_evaluation_is_refused_exactly_where_it_does_not_fit(monkeypatch, work):
    needed = work.memory().needed(4096)
    available(monkeypatch, needed)
    check(work, 4096)
    available(monkeypatch, needed - 1)
    with pytest.raises(ValueError, match=rf"{work.work} of tiny in batches of 4096 needs about \d+ MB"):
        check(work, 4096)


def test_the_batch_that_is_proposed_fits_and_a_much_larger_one_does_not(monkeypatch):
    limit = 4 * 10**9
    available(monkeypatch, limit)
    work = sampling(preset("celebahq256"), PAPER, 10, HERE)
    with pytest.raises(ValueError, match="available on the cpu: --batch-size ") as refusal:
        check(work, 64)
    largest = int(str(refusal.value).partition("--batch-size ")[2].split()[0])
    assert work.memory().needed(largest) <= limit < work.memory().needed(2 * largest)
    available(monkeypatch, 2 * 10**8)
    with pytest.raises(ValueError, match="not even batches of one image fit"):
        check(work, 64)


def test_results_that_do_not_fit_are_refused_whatever_the_batch():
    many = EvaluationMemory(loading=5, fixed=10, per_image=1, results=100)
    assert (many.needed(8), many.largest_batch(100)) == (110, 0)
    assert EvaluationMemory(loading=5, fixed=10, per_image=1).largest_batch(100) == 65


def test_what_a_compiler_may_save_is_not_refused():
    compiled = dataclasses.replace(HERE, compiled=True)
    found = sampling(preset("cifar10"), PAPER, 8, compiled).memory()
    assert found.fixed < found.least(256) < found.needed(256) / 2


@pytest.mark.parametrize("name", NAMES)
def test_what_surely_fits_does_fit(name):
    """The bound that is had at once is above the estimate, for every preset."""
    work = sampling(preset(name), PAPER, 8, HERE)
    assert not work.surely_fits(16, 2 * work.memory().needed(16))


def test_nothing_is_counted_where_there_is_plenty(monkeypatch):
    monkeypatch.setattr(evaluation_memory.Evaluation, "memory", lambda self: pytest.fail("counted"))
    available(monkeypatch, 10**9)
    check(sampling(preset("digits"), PAPER, 256, HERE), 256)
    available(monkeypatch, None)
    check(sampling(preset("celebahq256"), PAPER, 10, HERE), 64)


# Features


def test_features_are_refused_exactly_where_a_batch_does_not_fit(digits_classifier, monkeypatch):
    images = ArrayImages(digits("test").array[:64])
    available(monkeypatch, 10**9)
    next(digits_classifier.extract(images))
    available(monkeypatch, 10**6)
    with pytest.raises(
        ValueError, match=r"features of digits-classifier in batches of 64 need about .* MB"
    ) as refusal:
        next(digits_classifier.extract(images))
    needed = float(str(refusal.value).partition("need about ")[2].split()[0])
    available(monkeypatch, int(1.01e6 * needed))
    next(digits_classifier.extract(images))


def test_features_of_more_images_at_once_need_more(monkeypatch):
    """A pass of a square matrix of 1000: 4 kB of each image live twice, with KERNELS 16 kB."""
    weights = torch.ones(1000, 1000)

    def extract(images):
        return torch.ones(images, 1000) @ weights

    available(monkeypatch, evaluation_memory.LIBRARIES_BYTES + 8000 + 99 * 16000)
    check_features("a network", 100, extract, HERE)
    with pytest.raises(ValueError, match=r"features of a network in batches of 101 need about 46.6 MB"):
        check_features("a network", 101, extract, HERE)
