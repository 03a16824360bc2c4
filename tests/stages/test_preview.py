"""Previews: training is bit-identical with them, and they show what measuring the checkpoint shows."""

import shutil

import numpy as np
import pytest
import torch
from counted_run import Killed, bring_about, measure_bound
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import HERE, cell, digits, tiny
from two_processes import torchrun

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.reporting.bound_tables import split_table
from ddpm_eval.reporting.training_tables import history_table
from ddpm_eval.results.bound_terms import BOUND_HISTORY, BoundHistory
from ddpm_eval.spec_text import override
from ddpm_eval.stages import preview
from ddpm_eval.stages.base import ensure, is_done
from ddpm_eval.stages.preview import Previews, history_key, mosaic, training_callbacks
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.run_folders import open_run
from ddpm_eval.stages.sampling_stages import SamplesStage
from ddpm_eval.stages.training_stage import TrainingStage
from ddpm_eval.training.checkpoint import load
from ddpm_eval.training.loop import TrainingOptions
from ddpm_eval.training.trainer import Trainer
from experiments.paper.presets import preset, run_name

PAPER = PROTOCOLS["paper"]
ALL_SAMPLES = preview.SAMPLES


@pytest.fixture(scope="module", autouse=True)
def few_samples():
    """A quarter of the samples, which the tests' small batches would make slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preview, "SAMPLES", 16)
        yield


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """The tiny run on 60 real digits, one of them inexact; previews fall between checkpoints."""
    path = tmp_path_factory.mktemp("data") / "few.npz"
    images = {"x_train": digits().array[:40], "x_test": digits("test").array[:20]}
    np.savez(path, **images, inexact_test=np.array([3]))
    return override(
        tiny(train__steps=9, train__checkpoint_steps=4, network__dropout=0.2), {"data.name": f"npz:{path}"}
    )


def train(folder, spec, every=3, tensorboard=False):
    run = Run(folder, spec, HERE)
    with training_callbacks(run, every, tensorboard) as callbacks:
        ensure(TrainingStage(TrainingOptions(callbacks=callbacks)), run)
    return run


def history(run):
    return run.results.get(BOUND_HISTORY, BoundHistory, history_key(run))


def stratified(run):
    """Measure the bound as a stage does, and return its terms."""
    (terms,) = measure_bound(run, PAPER, estimator="stratified", evaluations_per_image=preview.EVALUATIONS)
    return terms


def assert_same_state(a, b):
    """Two checkpoints hold the same weights, averages, moments and log, bit by bit."""
    a, b = load(a), load(b)
    assert a.step == b.step and a.tensors.keys() == b.tensors.keys()
    assert [name for name in a.tensors if not torch.equal(a.tensors[name], b.tensors[name])] == []


def grid(run, step):
    return np.asarray(Image.open(run.folder / "previews" / f"step-{step:08d}.png"))


@pytest.fixture(scope="module")
def trained(spec, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "tiny", spec)


def test_training_is_bit_identical_with_and_without_previews(spec, trained, tmp_path):
    before = torch.get_rng_state()
    train(tmp_path / "without", spec, every=0)
    train(tmp_path / "more", spec, every=2)
    for other in ("without", "more"):
        assert_same_state(trained.folder, tmp_path / other)
    assert torch.equal(torch.get_rng_state(), before)
    assert (
        not (tmp_path / "without" / "previews").exists()
        and len(list((tmp_path / "more" / "previews").iterdir())) == 4
    )


def test_a_preview_is_what_measuring_the_checkpoint_of_that_update_gives(spec, trained, tmp_path):
    assert history(trained).update.tolist() == [3, 6, 9]
    run = train(tmp_path / "six", override(spec, {"train.steps": "6"}), every=0)
    terms = stratified(run)
    expected, found = terms.values(), history(trained)
    assert len(found.image_id) == 19 and found.inexact_left_out == 1 and 3 not in found.image_id
    np.testing.assert_array_equal(found.offset, terms.offset)
    for quantity in ("total", "rate", "distortion"):
        np.testing.assert_allclose(getattr(found, quantity)[1], expected[quantity], rtol=1e-6)
    table = history_table(found)
    split = split_table(terms).set_index("quantity")
    for column, quantity in {"bits_per_dim": "total", "rate": "rate", "distortion": "distortion"}.items():
        row = table.set_index("update").loc[6, [column, f"{column}_low", f"{column}_high"]].to_numpy(float)
        np.testing.assert_allclose(
            row, split.loc[quantity, ["bits_per_dim", "low", "high"]].to_numpy(float), rtol=1e-6
        )
    samples = bring_about(run, SamplesStage(preview.SAMPLES, 20, "ddim")).read(run).images
    enlarged = mosaic(samples.repeat(8, axis=2).repeat(8, axis=3), preview.COLUMNS)
    # batches of another size round differently
    assert np.abs(enlarged.astype(int) - grid(trained, 6)).max() <= 1


def test_previews_follow_the_averaged_weights(trained):
    """Which change with every update: no two grids are equal, nor are the bounds."""
    assert not np.array_equal(grid(trained, 3), grid(trained, 9))
    assert len(np.unique(history(trained).total.mean(1))) == 3
    trainer = Trainer(trained.spec, HERE)
    network = trainer.averaged_network()
    assert not network.training
    for value, average in zip(network.parameters(), trainer.average, strict=True):
        assert value.data_ptr() == average.data_ptr()  # no second copy


@pytest.mark.parametrize("what", ["Moment.grid", "Moment.bound", "_write_png", "Moment._terms"])
def test_a_kill_within_a_preview_loses_nothing(spec, trained, tmp_path, monkeypatch, what):
    """At update 6, after the checkpoint of update 4."""
    owner, _, name = what.rpartition(".")
    place = getattr(preview, owner) if owner else preview
    original = getattr(place, name)

    def killed(*arguments):
        fresh = Run(tmp_path / "run", spec, HERE)
        if fresh.results.has(BOUND_HISTORY, history_key(trained)):  # the second preview
            raise Killed
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, killed)
        with pytest.raises(Killed):
            train(tmp_path / "run", spec)
    assert_same_previews(train(tmp_path / "run", spec), trained)
    assert not list((tmp_path / "run" / "partial").rglob("*.h5"))


def assert_same_previews(run, other):
    a, b = history(run), history(other)
    for name in ("update", "image_id", "total", "rate", "distortion"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for step in a.update:
        np.testing.assert_array_equal(grid(run, step), grid(other, step))


def test_a_preview_that_the_checkpoint_lacks_is_taken_when_the_training_goes_on(spec, trained, tmp_path):
    """The checkpoint of update 9 is there, its preview is not; with both there nothing is done twice."""
    shutil.copytree(trained.folder, tmp_path / "run")
    longer = override(spec, {"train.steps": "10"})
    (tmp_path / "run" / "previews" / "step-00000009.png").unlink()
    run = train(tmp_path / "run", longer)
    assert_same_previews(run, trained)
    stamp = (tmp_path / "run" / "previews" / "step-00000009.png").stat().st_mtime_ns
    train(tmp_path / "run", override(spec, {"train.steps": "11"}))
    assert (tmp_path / "run" / "previews" / "step-00000009.png").stat().st_mtime_ns == stamp


def test_moments_beyond_the_checkpoint_are_taken_again(spec, trained, tmp_path):
    """A training that starts anew beside the history of an old one replaces it moment by moment."""
    shutil.copytree(trained.folder, tmp_path / "run")
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    run = train(tmp_path / "run", override(spec, {"train.steps": "6"}), every=2)
    assert history(run).update.tolist() == [2, 4, 6]


@pytest.mark.parametrize("kind", [("mu", "vlb", "learned"), ("x0", "mse", "fixed-small")])
def test_every_kind_of_network_can_be_previewed(spec, tmp_path, kind):
    """One that predicts mu takes all steps of its chain, with fewer samples: 8 instead of 16 of 100 steps."""
    one = cell(*kind, train__steps=2, diffusion__timesteps=100, diffusion__beta_end=0.08)
    run = train(tmp_path / kind[0], override(one, {"data.name": spec.data.name}), every=2)
    rows = 1 if kind[0] == "mu" else 2
    assert grid(run, 2).shape == (rows * 65 - 1, 8 * 65 - 1, 3)
    assert np.isfinite(history(run).total).all()


def test_large_images_are_shown_as_they_are_and_few_test_images_suffice(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "SHOWN_PIXELS", 8)
    run = train(tmp_path / "run", override(spec, {"evaluation.n_test_images": "5", "train.steps": "3"}))
    assert grid(run, 3).shape == (2 * 9 - 1, 8 * 9 - 1, 3) and len(history(run).image_id) == 5


def test_an_average_that_is_not_finite_is_shown_as_such_and_training_goes_on(
    spec, tmp_path, monkeypatch, caplog
):
    average = Trainer.averaged_network

    def broken(trainer):
        network = average(trainer)
        if trainer.step == 6:
            network.conv_out.bias = torch.nn.Parameter(torch.full_like(network.conv_out.bias, torch.nan))
        return network

    monkeypatch.setattr(Trainer, "averaged_network", broken)
    run = train(tmp_path / "run", spec)
    assert np.isnan(history(run).total).any(1).tolist() == [False, True, False]
    assert "no bound after 6 updates: the network's output is not finite at t = " in caplog.text
    assert "16 of 16 samples after 6 updates are not finite" in caplog.text
    assert history_table(history(run))["bits_per_dim"].isna().tolist() == [False, True, False]
    assert is_done(TrainingStage(), run) and (grid(run, 6) <= 255).all()


def test_a_place_that_cannot_be_written_is_named(spec, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "previews").write_text("a file where the folder should be")
    with pytest.raises(ValueError, match=r"cannot write .*step-00000003\.png"):
        train(tmp_path / "run", spec)


def test_a_missing_test_split_is_said_before_the_first_update(spec, tmp_path):
    np.savez(tmp_path / "only_train.npz", x_train=digits().array[:40])
    one = override(spec, {"data.name": f"npz:{tmp_path / 'only_train.npz'}"})
    with pytest.raises(ValueError, match=r"x_test.*--preview-steps 0 does without"):
        train(tmp_path / "run", one)
    assert not (tmp_path / "run").exists()
    assert is_done(TrainingStage(), train(tmp_path / "run", one, every=0))


def test_samples_and_bound_are_shown_on_the_board(spec, trained, tmp_path):
    run = train(tmp_path / "run", spec, tensorboard=True)
    assert_same_state(run.folder, trained.folder)
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    table = history_table(history(run))
    for name, column in {"total": "bits_per_dim", "total_low": "bits_per_dim_low", "rate": "rate"}.items():
        points = events.Scalars(f"bits_per_dim_of_19_test_images/{name}")
        assert [point.step for point in points] == [3, 6, 9]
        np.testing.assert_allclose([point.value for point in points], table[column], rtol=1e-6)
    images = events.Images("samples")
    assert [image.step for image in images] == [3, 6, 9]
    shown = torch.frombuffer(bytearray(images[1].encoded_image_string), dtype=torch.uint8)
    assert bytes(shown.numpy()[:8]) == b"\x89PNG\r\n\x1a\n" and images[1].width == grid(run, 6).shape[1]


def test_the_estimate_agrees_with_the_full_bound(trained, tmp_path):
    """Same images, same noise, 8 of 20 terms with weights: the interval covers the difference."""
    shutil.copytree(trained.folder, tmp_path / "run")
    (terms,) = measure_bound(open_run(tmp_path / "run", HERE), PAPER)
    full = terms.values()["total"]
    last = history_table(history(trained)).iloc[-1]
    spread = (last["bits_per_dim_high"] - last["bits_per_dim_low"]) / 2
    assert abs(last["bits_per_dim"] - full.mean()) < 2 * spread


@pytest.mark.slow
def test_two_processes_share_a_preview(tmp_path, monkeypatch):
    """None waits for another for ever; together they show what one process shows of their checkpoint."""
    monkeypatch.setattr(preview, "SAMPLES", ALL_SAMPLES)  # as in the processes
    small = {
        "network.base_channels": "8",
        "train.steps": "12",
        "train.batch_size": "16",
        "train.checkpoint_steps": "5",
    }
    small |= {"diffusion.timesteps": "20"}
    settings = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    folders = ["--runs", tmp_path / "runs"]
    torchrun(
        "train", *folders, "--device", "cpu", "--preview-steps", "4", "--logger", "tensorboard", *settings
    )
    spec = preset("digits", settings=small)
    both = Run(tmp_path / "runs" / "digits" / run_name(spec), spec, HERE)
    assert (
        history(both).update.tolist() == [4, 8, 12]
        and len(list((both.folder / "tensorboard").iterdir())) == 1
    )
    shutil.copytree(both.folder, tmp_path / "alone")
    (tmp_path / "alone" / "previews" / "step-00000012.png").unlink()
    alone = train(tmp_path / "alone", override(spec, {"train.steps": "13"}), every=4)
    np.testing.assert_allclose(history(alone).total, history(both).total, rtol=1e-5)
    assert np.abs(grid(alone, 12).astype(int) - grid(both, 12)).max() <= 1


def test_previews_look_at_their_own_updates_only(spec, tmp_path):
    previews = Previews(Run(tmp_path / "run", spec, HERE), 3)
    trainer = Trainer(spec, HERE)
    for step in (0, 1, 2, 4, 5):
        trainer.step = step
        previews(trainer)
    assert not (tmp_path / "run").exists()
