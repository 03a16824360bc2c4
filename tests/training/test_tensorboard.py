"""TensorBoard: real event files hold the log's means; an interrupted training continues the same curves."""

import sys
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import HERE, TINY, digits, tiny

from ddpm_eval.runtime import Runtime
from ddpm_eval.training import checkpoint, loop, tensorboard
from ddpm_eval.training.loop import TrainingOptions
from ddpm_eval.training.tensorboard import TensorBoard
from ddpm_eval.training.trainer import Trainer

SPEC = tiny(train__steps=11, train__checkpoint_steps=4, train__warmup_steps=5)
CALLS = [2, 4, 6, 8, 10, 11]


class Killed(Exception):
    """Stands for a kill."""


@pytest.fixture(autouse=True)
def frequent_calls(monkeypatch):
    for module in (loop, tensorboard):
        monkeypatch.setattr(module, "CHECK_STEPS", 2)
    monkeypatch.setattr(TensorBoard, "every", 2)


def run(folder, spec=SPEC, kill_at=None):
    def progress(stage, done, total):
        if done == kill_at:
            raise Killed

    board = TensorBoard(folder / "tensorboard")
    path, options = folder / checkpoint.FILE_NAME, TrainingOptions(callbacks=[board])
    try:
        return loop.train(spec, digits(), HERE, path, options=options, progress=progress)
    finally:
        board.close()


def curves(folder):
    """Return steps and values of all scalars, as TensorBoard shows them."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    found = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    return {
        name: ([e.step for e in points], np.array([e.value for e in points]))
        for name, points in found.items()
    }


def test_the_curves_are_the_logs_means_between_calls(tmp_path):
    log, found = run(tmp_path), curves(tmp_path)
    blocks = list(zip([0, *CALLS], CALLS, strict=False))
    for name, values in {"train/loss": log.loss, "train/gradient_norm": log.gradient_norm}.items():
        steps, points = found[name]
        assert steps == CALLS
        np.testing.assert_allclose(points, [values[a:b].mean() for a, b in blocks], rtol=1e-6)
    rate = SPEC.train.learning_rate
    np.testing.assert_allclose(
        found["train/learning_rate"][1], rate * np.minimum(1, np.array(CALLS) / 5), rtol=1e-6
    )
    steps, speed = found["train/images_per_second"]
    images = np.array([8 * (b - a) for a, b in blocks])
    # what follows the last call is not counted
    np.testing.assert_allclose((images / speed).sum(), log.seconds, rtol=0.05, atol=0.05)
    assert len(found) == 4


def test_a_killed_training_continues_the_same_curves(tmp_path):
    """The call after the checkpoint is lost; the resumed run makes it again, and no step appears twice."""
    run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", kill_at=8)
    assert checkpoint.load(tmp_path / "killed").step == 4
    assert curves(tmp_path / "killed")["train/loss"][0] == [2, 4, 6]
    time.sleep(1.1)  # event files are read in the order of their names, which count seconds
    resumed = run(tmp_path / "killed")
    whole, joined = curves(tmp_path / "whole"), curves(tmp_path / "killed")
    assert resumed.steps == 11
    for name in ("train/loss", "train/gradient_norm", "train/learning_rate"):
        assert joined[name][0] == whole[name][0] == CALLS
        np.testing.assert_array_equal(joined[name][1], whole[name][1])


def test_what_was_written_beyond_the_checkpoint_is_discarded(tmp_path):
    """Without a checkpoint the run starts again: of the first attempt nothing is left."""
    spec = tiny(train__steps=11, train__checkpoint_steps=100)
    with pytest.raises(Killed):
        run(tmp_path, spec, kill_at=8)
    assert curves(tmp_path)["train/loss"][0] == [2, 4, 6]
    time.sleep(1.1)
    run(tmp_path, spec)
    assert curves(tmp_path)["train/loss"][0] == CALLS


def test_only_the_main_process_writes(tmp_path):
    board = TensorBoard(tmp_path / "tensorboard")
    trainer = Trainer(TINY, HERE)
    trainer.runtime = Runtime(HERE.device, rank=1, world_size=2)
    board(trainer)
    board(trainer)
    board.close()
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if the import failed
    with pytest.raises(ValueError, match=r"needs the tensorboard package \(pip install 'ddpm_eval\[log\]'\)"):
        TensorBoard(tmp_path)
