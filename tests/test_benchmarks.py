"""The benchmark of training and sampling: what it measures is real, what it prints is what it measured."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import network_tables  # noqa: E402
import network_turns  # noqa: E402

from experiments.paper.presets import preset  # noqa: E402

MARKED = """# Speed

<!-- digits on cpu -->
old
<!-- end of digits on cpu -->

<!-- cifar10 on cpu -->
none
<!-- end of cifar10 on cpu -->
"""


def row(variant, speeds, stage="training", network="digits", peak=100.0):
    return network_tables.Row(
        network, stage, network_turns.Variant.parse(variant), 128, speeds, 2_500_000_000, 0.5, peak
    )


@pytest.mark.slow
def test_the_smallest_benchmark_writes_its_tables(tmp_path):
    document = tmp_path / "performance.md"
    document.write_text(MARKED)
    words = ["--networks", "digits", "--device", "cpu", "--rounds", "2", "--batch", "4", "--threads", "1"]
    command = [
        sys.executable,
        ROOT / "benchmarks" / "network.py",
        *words,
        "--variants",
        "ours/fp32/eager",
        "ours/bf16/eager",
    ]
    done = subprocess.run(
        [*command, "--write", document], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    text = document.read_text()
    assert len(re.findall(r"^\| digits \| (?:training|sampling) \| 4 \| ours/", text, re.MULTILINE)) == 4
    assert "old" not in text and "none" in text and "CPU, 1 threads" in text and "commit " in text
    written = text.split("<!-- digits on cpu -->")[1].split("<!-- end of digits on cpu -->")[0]
    assert written.strip() in done.stdout


def test_ratios_are_of_the_same_rounds_and_to_diffusers():
    ours, theirs = row("ours/fp32/eager", (20.0, 60.0, 80.0)), row("diffusers/fp32/eager", (10.0, 20.0, 20.0))
    lines = network_tables.table([ours, theirs])
    assert "ratio to diffusers/fp32/eager" in lines[0] and "share of 0.1 TFLOP/s" in lines[0]
    # 2, 3 and 4: the ratio of the medians would be 3 as well, that of neighbours' extremes would not
    assert "| 60 [20, 80] |" in lines[2] and "| 3 [2, 4] |" in lines[2]
    assert "| 30% | 2.50 |" in lines[2]  # 60 images of 0.5 GFLOP in a second, of 100 GFLOP/s
    alone = network_tables.table([ours, row("ours/bf16/eager", (10.0, 30.0, 40.0))])
    assert "ratio to ours/fp32/eager" in alone[0] and "| 0.5 [0.5, 0.5] |" in alone[3]


def test_hours_follow_from_the_speeds_of_the_defaults():
    rows = [
        row("ours/bf16/compiled", (128.0,)),
        row("ours/fp32/eager", (64.0,)),
        row("ours/fp32/eager", (2000.0,), stage="sampling"),
    ]
    spec = preset("digits")
    cells = network_tables.hours_table(rows, "cpu")[2].split("|")
    assert float(cells[3]) == pytest.approx(spec.train.steps * 128 / 64 / 3600, rel=0.05)
    assert float(cells[5]) == pytest.approx(spec.evaluation.n_samples * 1000 / 2000 / 3600, rel=0.05)
    assert float(cells[6]) == pytest.approx(10_000 * 1000 / 2000 / 3600, rel=0.05)
    assert (
        len(network_tables.hours_table(rows, "cuda")) == 2
    )  # sampling was not measured with that device's default


def test_the_arithmetic_is_that_of_the_layers():
    """Backward costs twice forward, but for the first layer's images.

    Half the width is about a quarter of the products.
    """
    large, small = (preset(name) for name in ("cifar10", "cifar10-small"))
    step, update = (network_turns.gigaflop_per_image(large, stage) for stage in ("sampling", "training"))
    assert update == pytest.approx(3 * step, rel=0.01)
    assert step / network_turns.gigaflop_per_image(small, "sampling") == pytest.approx(4, rel=0.1)
    # the authors' network, as others count it: 6.1 billion products, each a multiplication and an addition
    assert step == pytest.approx(2 * 6.1, rel=0.02)


def test_a_document_without_a_place_for_the_tables_is_refused(tmp_path):
    document = tmp_path / "document.md"
    document.write_text("# Nothing")
    with pytest.raises(ValueError, match="has no place for these tables"):
        network_tables.insert(document, "digits on cpu", "text")
    assert document.read_text() == "# Nothing"


@pytest.mark.parametrize("text", ["ours", "ours/fp16/eager", "theirs/fp32/eager", "ours/fp32/eager/x"])
def test_a_variant_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="is no variant"):
        network_turns.Variant.parse(text)


def run_benchmark(name, *words):
    command = [sys.executable, ROOT / "benchmarks" / name, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_benchmark_of_digests_times_the_file_and_every_stage():
    small = ["--megabytes", "1", "--rounds", "1", "--updates", "2", "--samples", "4", "--steps", "3"]
    text = run_benchmark("integrity.py", *small)
    assert re.search(r"^results file of \d\.\d MB, ", text, re.MULTILINE)
    first, again = re.findall(r"check of .*: ([\d.]+) \(", text)
    assert 0 < float(again) < float(first)
    stages = re.findall(r"^(\w+): [\d.]+ s, ([\d.]+) \(", text, re.MULTILINE)
    assert [name for name, _ in stages] == ["training", "sampling", "bound", "features"]
    assert all(0.1 < float(ratio) < 10 for _, ratio in stages)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_of_all_processes_at_once():
    """A process and its child that hold 60 MB each, beside what Python itself needs."""
    code = "import subprocess, sys, time; held = bytearray(b'1' * 60_000_000); {}; time.sleep(0.5)"
    child = code.format("None")
    parent = code.format(f"subprocess.run([sys.executable, '-c', {child!r}], check=True)")
    text = run_benchmark("peak_memory.py", "--every", "0.02", "--", sys.executable, "-c", parent)
    assert "at most 2 processes at once" in text
    (together,) = re.findall(r"together: (\d+) MB", text)
    assert 120 <= int(together) < 200
