"""The training loop: a resumed run is bit-identical, limits stop it, and divergence is a result."""

import dataclasses
import logging
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CELLS, HERE, TINY, cell, digits, tiny

from ddpm_eval.training import check_times, checkpoint, loop
from ddpm_eval.training import trainer as trainers
from ddpm_eval.training.loop import TrainingOptions
from ddpm_eval.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]


def run(spec, path, progress=lambda stage, done, total: None, runtime=HERE, **options):
    options = TrainingOptions(**options)
    return loop.train(
        spec, digits(), runtime, path / checkpoint.FILE_NAME, options=options, progress=progress
    )


def assert_same_state(a, b):
    """Two checkpoints hold the same weights, averages, moments and log, bit by bit."""
    a, b = checkpoint.load(a / checkpoint.FILE_NAME), checkpoint.load(b / checkpoint.FILE_NAME)
    assert a.step == b.step and a.tensors.keys() == b.tensors.keys()
    assert {name.split("/")[0] for name in a.tensors} == {"model", "ema", "adam", "log"}
    different = [name for name in a.tensors if not torch.equal(a.tensors[name], b.tensors[name])]
    assert different == []


class Killed(Exception):
    """Stands for a kill: whatever was not saved is lost."""


def kill_at(update):
    def progress(stage, done, total):
        if done >= update:
            raise Killed

    return progress


# Resuming


@pytest.mark.parametrize(("prediction", "objective", "variance"), CELLS)
def test_a_killed_run_continues_bit_identically(tmp_path, prediction, objective, variance):
    """Kill between checkpoints: two updates are lost and taken again."""
    spec = cell(prediction, objective, variance, data__flips=True, network__dropout=0.1)
    whole = run(spec, tmp_path / "whole")
    with pytest.raises(Killed):
        run(spec, tmp_path / "killed", progress=kill_at(4))
    saved = checkpoint.load(tmp_path / "killed")
    assert saved.step == 2 and saved.metadata["status"] == "running"
    resumed = run(spec, tmp_path / "killed")
    assert_same_state(tmp_path / "whole", tmp_path / "killed")
    np.testing.assert_array_equal(resumed.loss, whole.loss)
    np.testing.assert_array_equal(resumed.gradient_norm, whole.gradient_norm)
    assert (
        (whole.status, whole.steps, whole.images)
        == (resumed.status, resumed.steps, resumed.images)
        == ("ok", 6, 48)
    )
    assert len(whole.loss) == 6 and np.isfinite(whole.loss).all() and (whole.loss > 0).all()


def test_a_longer_training_continues_a_shorter_one(tmp_path):
    run(tiny(train__steps=3), tmp_path / "extended")
    assert run(TINY, tmp_path / "extended").steps == 6
    run(TINY, tmp_path / "whole")
    assert_same_state(tmp_path / "whole", tmp_path / "extended")


def test_mixed_precision_is_recorded_and_a_change_of_it_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    mixed = dataclasses.replace(HERE, mixed_precision=True)
    log = run(tiny(train__steps=4), tmp_path, runtime=mixed)
    assert checkpoint.load(tmp_path / checkpoint.FILE_NAME).metadata["mixed_precision"] is True
    plain = run(tiny(train__steps=4), tmp_path / "plain")
    assert 0 < abs(log.loss - plain.loss).max() < 0.05, "bf16 rounds, and rounds alone"
    assert caplog.text == ""
    run(TINY, tmp_path)
    assert "resuming in float32" in caplog.text


def test_a_finished_run_is_not_touched(tmp_path):
    first = run(TINY, tmp_path)
    content = (tmp_path / checkpoint.FILE_NAME).read_bytes()
    again = run(TINY, tmp_path, progress=kill_at(0))
    np.testing.assert_array_equal(first.loss, again.loss)
    shorter = run(tiny(train__steps=4), tmp_path)  # fewer updates asked for than are done
    assert (shorter.status, shorter.steps) == ("ok", 6)
    assert (tmp_path / checkpoint.FILE_NAME).read_bytes() == content


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("seed", 4, "seed: 3, not 4"),
        ("data__flips", "true", "data.flips: False, not True"),
        ("network__dropout", 0.2, "network.dropout: 0.0, not 0.2"),
        ("network__multipliers", "[1, 1]", r"network.multipliers: \(1, 2\), not \(1, 1\)"),
        ("diffusion__timesteps", 30, "diffusion.timesteps: 20, not 30"),
        ("diffusion__prediction", "mu", "diffusion.prediction: eps, not mu"),
        ("train__batch_size", 16, "train.batch_size: 8, not 16"),
        ("train__learning_rate", 0.5, "train.learning_rate: 0.001, not 0.5"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused_by_name(tmp_path, setting, value, words):
    run(tiny(train__steps=1), tmp_path)
    content = (tmp_path / checkpoint.FILE_NAME).read_bytes()
    with pytest.raises(ValueError, match=rf"belongs to another run \({words}\)"):
        run(tiny(**{setting: value}), tmp_path)
    assert (tmp_path / checkpoint.FILE_NAME).read_bytes() == content


def test_what_training_does_not_depend_on_may_change(tmp_path):
    run(tiny(train__steps=2), tmp_path)
    spec = tiny(train__steps=3, train__checkpoint_steps=7, evaluation__n_samples=99)
    assert run(spec, tmp_path).steps == 3


# Stopping


def test_a_time_limit_stops_with_a_checkpoint_and_the_run_continues_bit_identically(tmp_path):
    stopped = run(TINY, tmp_path / "stopped", max_minutes=1e-9)
    # at the first check of the clock, the update of a checkpoint
    assert (stopped.status, stopped.steps) == ("stopped", 2)
    assert stopped.reason == "after 1e-09 minutes"
    assert run(TINY, tmp_path / "stopped", max_minutes=10).status == "ok"
    run(TINY, tmp_path / "whole")
    assert_same_state(tmp_path / "whole", tmp_path / "stopped")


def test_a_time_limit_reached_with_the_last_update_stops_nothing(tmp_path):
    log = run(tiny(train__steps=2), tmp_path, max_minutes=1e-9)
    assert (log.status, log.reason, log.steps) == ("ok", "", 2)


def test_a_stopped_run_that_has_all_the_updates_asked_for_is_done(tmp_path):
    assert run(TINY, tmp_path, max_minutes=1e-9).status == "stopped"
    assert run(tiny(train__steps=2), tmp_path).status == "ok"


def slow_updates(monkeypatch, seconds):
    original = Trainer.update

    def update(trainer, batch):
        original(trainer, batch)
        time.sleep(seconds)

    monkeypatch.setattr(Trainer, "update", update)


def test_slow_updates_are_checked_by_time(tmp_path, monkeypatch):
    """With one check per 50 updates the limit would be seen after the last of the six."""
    monkeypatch.setattr(check_times, "CHECK_SECONDS", 0.2)
    slow_updates(monkeypatch, 0.15)
    spec = tiny(train__checkpoint_steps=100)
    reported = []
    log = run(
        spec, tmp_path, progress=lambda stage, done, total: reported.append(done), max_minutes=0.35 / 60
    )
    assert log.status == "stopped" and log.steps < 6 and reported[0] < 4
    monkeypatch.undo()
    run(spec, tmp_path)
    run(spec, tmp_path / "whole")
    assert_same_state(tmp_path / "whole", tmp_path)


def test_divergence_of_slow_updates_is_found_by_time(tmp_path, monkeypatch):
    monkeypatch.setattr(check_times, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(trainers, "training_loss", breaking(2, "loss"))
    slow_updates(monkeypatch, 0.15)
    log = run(tiny(train__checkpoint_steps=100), tmp_path)
    assert log.diverged and log.steps == 2


def sends(number, at):
    """Return a callback that sends this process a signal after an update."""

    def send(trainer):
        if trainer.step == at:
            signal.raise_signal(number)

    send.every = 1
    return send


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_stops_with_a_checkpoint_and_the_run_continues_bit_identically(tmp_path, number, error):
    """The signal comes after update 3, and the updates are checked one by one: update 4 is the last."""
    spec = tiny(train__checkpoint_steps=100)
    before = signal.getsignal(number)
    with pytest.raises(error) as caught:
        run(spec, tmp_path / "stopped", callbacks=[sends(number, at=3)])
    assert error is KeyboardInterrupt or caught.value.code == 143
    assert signal.getsignal(number) is before
    saved = checkpoint.load(tmp_path / "stopped")
    assert saved.step == 4
    assert (saved.metadata["status"], saved.metadata["reason"]) == ("stopped", f"by {number.name}")
    assert run(spec, tmp_path / "stopped").status == "ok"
    run(spec, tmp_path / "whole")
    assert_same_state(tmp_path / "whole", tmp_path / "stopped")


def test_a_signal_during_an_update_is_answered_after_it(tmp_path, monkeypatch):
    original = Trainer.update

    def update(trainer, batch):
        original(trainer, batch)
        if trainer.step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "update", update)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(train__checkpoint_steps=100), tmp_path)
    assert checkpoint.load(tmp_path).step == 3


def test_a_signal_after_the_last_update_ends_the_program_once_the_run_is_saved(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(TINY, tmp_path, callbacks=[sends(signal.SIGINT, at=6)])
    assert checkpoint.load(tmp_path).metadata["status"] == "ok"
    assert run(TINY, tmp_path).steps == 6


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.slow
def test_the_command_stops_with_a_checkpoint(tmp_path, name, code):
    settings = ["train.steps=1000000", "train.checkpoint_steps=20", "network.base_channels=8"]
    command = [sys.executable, "cli.py", "train", "--preset", "digits", "--preview-steps", "0"]
    command += [*(word for setting in settings for word in ("--set", setting)), "--runs", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not any(tmp_path.rglob(checkpoint.FILE_NAME)):
            time.sleep(0.1)
        process.send_signal(getattr(signal, name))
        errors = process.stderr.read()
    assert "Traceback" not in errors and "Stopped. Finished work is kept" in errors
    assert process.returncode == code
    (path,) = tmp_path.rglob(checkpoint.FILE_NAME)
    metadata = checkpoint.load(path, prefixes=()).metadata
    assert (metadata["status"], metadata["reason"]) == ("stopped", f"by {name}")


# Callbacks


class Recorder:
    """A callback that notes when it is called, and takes its time."""

    def __init__(self, every, pause=0.0):
        self.every, self.pause, self.steps, self.seconds = every, pause, [], []

    def __call__(self, trainer):
        self.steps.append(trainer.step)
        self.seconds.append(trainer.seconds)
        time.sleep(self.pause)


def test_callbacks_are_called_before_the_first_update_and_at_each_check(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECK_STEPS", 5)
    spec = tiny(train__steps=13, train__checkpoint_steps=6)
    first, second = Recorder(4), Recorder(100)
    run(spec, tmp_path, callbacks=[first, second])
    assert first.steps == second.steps == [0, 4, 5, 6, 8, 10, 12, 13]
    late = Recorder(7)
    run(tiny(train__steps=15, train__checkpoint_steps=6), tmp_path, callbacks=[late])
    assert late.steps == [13, 14, 15]


def test_the_callbacks_time_is_no_part_of_the_trainings_but_of_the_limits(tmp_path):
    slow = Recorder(1, pause=0.2)
    log = run(TINY, tmp_path, callbacks=[slow])
    assert len(slow.steps) == 7 and log.seconds < 0.7 < 7 * 0.2
    assert slow.seconds == sorted(slow.seconds) and slow.seconds[-1] == log.seconds
    limited = run(
        tiny(seed=5), tmp_path / "limited", callbacks=[Recorder(1, pause=0.2)], max_minutes=0.1 / 60
    )
    assert (limited.status, limited.steps) == ("stopped", 1)


def test_callbacks_are_not_called_for_a_run_that_is_over_or_diverged(tmp_path, monkeypatch):
    recorder = Recorder(1)
    run(TINY, tmp_path)
    run(TINY, tmp_path, callbacks=[recorder])
    assert recorder.steps == []
    monkeypatch.setattr(trainers, "training_loss", breaking(3, "loss"))
    assert run(TINY, tmp_path / "diverged", callbacks=[recorder]).diverged
    assert recorder.steps == [0, 1, 2]


# Divergence


def breaking(at, what):
    """Return a training loss which in call ``at`` is infinite, or has a gradient that is not a number."""
    calls = 0
    original = trainers.training_loss

    def loss(*arguments):
        nonlocal calls
        calls += 1
        found = original(*arguments)
        if calls != at:
            return found
        # the square root's slope at zero is infinite, times zero: the value stays as it is
        return found * math.inf if what == "loss" else found + 0 * (found - found.detach()).sqrt()

    return loss


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("at", [1, 4])
def test_divergence_is_recorded_with_its_update_and_not_retried(tmp_path, monkeypatch, what, at):
    spec = tiny(train__checkpoint_steps=100, train__steps=5)
    monkeypatch.setattr(trainers, "training_loss", breaking(at, what))
    log = run(spec, tmp_path)
    assert log.diverged and log.status == "diverged"
    assert log.reason.endswith(f"at update {at} (seed 3)") and (
        "loss" in log.reason and "gradient norm" in log.reason
    )
    assert np.isfinite(log.loss[: at - 1]).all() and np.isfinite(log.gradient_norm[: at - 1]).all()
    assert not (np.isfinite(log.loss[at - 1]) and np.isfinite(log.gradient_norm[at - 1]))
    monkeypatch.undo()
    monkeypatch.setattr(Trainer, "update", lambda *arguments: pytest.fail("a diverged run was trained again"))
    again = run(spec, tmp_path)
    assert again.reason == log.reason and again.diverged
    longer = run(tiny(train__checkpoint_steps=100, train__steps=50), tmp_path)
    assert longer.diverged


def test_divergence_in_mixed_precision_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(trainers, "training_loss", breaking(1, "loss"))
    here = dataclasses.replace(HERE, mixed_precision=True)
    log = loop.train(TINY, digits(), here, tmp_path / checkpoint.FILE_NAME)
    assert log.reason.endswith(
        "at update 1 (seed 3; in bf16 autocast: --no-mixed-precision trains in float32)"
    )


def test_divergence_is_found_within_the_interval_of_checks(tmp_path, monkeypatch):
    """The 50 updates of `CHECK_STEPS`, here five, whatever the intervals of checkpoints."""
    monkeypatch.setattr(loop, "CHECK_STEPS", 5)
    monkeypatch.setattr(trainers, "training_loss", breaking(6, "loss"))
    log = run(tiny(train__steps=30, train__checkpoint_steps=100), tmp_path)
    assert log.diverged and log.steps == 10 and "at update 6 (seed 3)" in log.reason


def test_divergence_stops_at_the_next_check(tmp_path, monkeypatch):
    """The loss is checked with every checkpoint (and every 50 updates): later updates are not taken."""
    monkeypatch.setattr(trainers, "training_loss", breaking(3, "loss"))
    log = run(TINY, tmp_path)
    assert log.steps == 4 and log.reason.endswith("at update 3 (seed 3)")


def test_an_absurd_learning_rate_diverges(tmp_path):
    spec = cell("eps", "vlb", "learned", train__learning_rate=1e6, train__warmup_steps=0, train__steps=50)
    log = run(spec, tmp_path)
    assert log.diverged and "at update" in log.reason
