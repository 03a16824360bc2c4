"""``train``: what it leaves, how it is interrupted and continued, and what it refuses before it begins."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import SETTINGS, call, folders, main_run, refuse, runs_option
from PIL import Image

from ddpm_eval.training import memory

ROOT = Path(__file__).resolve().parents[3]
INTERRUPTED = 130
LONG = ["--set", "train.steps=100000"]


def test_dry_run_prints_and_makes_nothing(tmp_path):
    output = call("train", "--dry-run", "--prediction", "x0", *runs_option(tmp_path))
    assert '"prediction": "x0"' in output and not list(tmp_path.iterdir())


def test_a_variance_and_the_objective_that_it_needs_can_be_chosen_together(tmp_path):
    learned = ["--set", "diffusion.variance=learned"]
    assert "a learned variance needs objective vlb" in refuse("train", "--dry-run", *learned)
    assert '"variance": "learned"' in call("train", "--dry-run", "--objective", "vlb", *learned)


def test_training_shows_how_it_goes(tmp_path):
    """Event files and previews lie in the run's folder; the report draws the bound over training."""
    call("train", *runs_option(tmp_path), *SETTINGS, "--log", "tensorboard", "--preview-steps", "4")
    run = main_run(tmp_path)
    previews = [path.name for path in sorted((run / "previews").iterdir())]
    assert previews == [f"step-{n:08d}.png" for n in (4, 8, 12)]
    assert list((run / "tensorboard").iterdir())
    call("report", *folders(tmp_path), *SETTINGS)
    curve = pd.read_csv(next((tmp_path / "reports").iterdir()) / "figures" / "training_bound.csv")
    assert curve["update"].tolist() == [4, 8, 12] and (curve["n_images"] == 24).all()
    assert (curve["bits_per_dim_low"] < curve["bits_per_dim"]).all()
    assert (curve["bits_per_dim"] < curve["bits_per_dim_high"]).all()
    page = (next((tmp_path / "reports").iterdir()) / "report.md").read_text()
    assert "8 evaluations of each of the same 24 test images" in page


def test_a_trained_run_is_not_begun_again(trained_run):
    assert "leave out --no-resume" in refuse("train", trained_run, "--no-resume")
    assert "ok after 12 updates" in call("train", trained_run)


def test_a_run_that_does_not_fit_in_memory_is_refused_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda runtime: 120 * 10**6)
    large = ["--set", "train.batch_size=4096", "--set", "train.steps=1"]
    one = ["train", *runs_option(tmp_path), *SETTINGS, *large]
    message = refuse(*one)
    assert "training digits with batches of 4096 needs about" in message
    assert "--set train.batch_size=" in message
    assert not list(tmp_path.rglob("*.safetensors"))
    assert "ok after 1 updates" in call(*one, "--ignore-memory")


def test_a_missing_tensorboard_is_said_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    message = refuse("train", *runs_option(tmp_path), *SETTINGS, "--log", "tensorboard")
    assert "pip install 'ddpm_eval[log]'" in message
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_gpu_is_said(tmp_path):
    assert "no CUDA device" in refuse("train", "--device", "cuda", *runs_option(tmp_path), *SETTINGS)


def test_folders_of_images_that_cannot_be_used(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    arguments = ["train", "--data", f"folder:{images}", *runs_option(tmp_path)]
    assert "no images" in refuse(*arguments)
    for i, side in enumerate([8, 8, 12]):
        Image.fromarray(np.full((side, side), 99, np.uint8)).save(images / f"{i}.png")
    assert "2.png" in refuse(*arguments)
    (images / "2.png").write_bytes(b"not an image")
    assert "2.png" in refuse(*arguments)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    assert str(tmp_path / "runs") in refuse("train", *runs_option(tmp_path), *SETTINGS)


@contextmanager
def training(folder):
    """Run a training that would take long, from its first checkpoint on; kill it in the end."""
    process = subprocess.Popen(
        [sys.executable, "cli.py", "train", *map(str, runs_option(folder)), *SETTINGS, *LONG],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # background jobs of a shell ignore SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        _wait_for_checkpoint(process, folder)
        yield process
    finally:
        process.kill()
        process.communicate()


def _wait_for_checkpoint(process, folder):
    deadline = time.monotonic() + 120
    while not list((folder / "runs").rglob("checkpoint.safetensors")):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stopped_run_continues(tmp_path, sent, code):
    """While it trains no other command may work on the run; once it is stopped, the same command goes on."""
    command = ["train", *runs_option(tmp_path), *SETTINGS, *LONG]
    with training(tmp_path) as process:
        assert f"in use by another process (pid {process.pid})" in refuse(*command)
        os.kill(process.pid, sent)
        _, error = process.communicate(timeout=60)
        assert process.returncode == code
    if sent == signal.SIGINT:
        assert "the same command continues where it was" in error and "Traceback" not in error
    checkpoint = next((tmp_path / "runs").rglob("checkpoint.safetensors"))
    before = checkpoint.stat().st_mtime_ns
    output = call(*command, "--max-minutes", "0.02")
    assert "stopped after" in output and checkpoint.stat().st_mtime_ns > before


def test_a_young_average_is_said_before_and_after(tmp_path, caplog):
    """After 12 updates 94% are of the start: 0.995^12."""
    output = call("train", *runs_option(tmp_path), *SETTINGS, "--preview-steps", "0")
    said = (
        "after 12 updates 94% of the averaged weights are still those of the random start "
        "(train.ema_decay 0.995): samples will be noise until about update 460"
    )
    assert said in caplog.messages[0] and f"ok after 12 updates; {said}" in output
    caplog.clear()
    old = [*SETTINGS, "--set", "train.ema_decay=0.5"]
    assert "noise" not in call("train", *runs_option(tmp_path), *old, "--preview-steps", "0")
    assert caplog.messages == []
