"""Training: batches are functions of (seed, number), every update is the literal one, a resumed run is
bit-identical.
"""

import dataclasses
import math
import time

import numpy as np
import pytest
import torch
from scipy import stats
from tiny import CELLS, HERE, TINY, cell, digits, tiny

from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.model.unet import UNet
from ddpm_eval.runtime import Runtime
from ddpm_eval.training import checkpoint, loop
from ddpm_eval.training.loop import Batches, Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def run(spec, path, **options):
    return loop.train(spec, digits(), HERE, path / checkpoint.FILE_NAME, **options)


def batches(spec, first, last, images=None, runtime=HERE):
    return list(Batches(spec, images or digits(), runtime).stream(first, last))


def assert_same_batch(a, b):
    for field in dataclasses.fields(a):
        assert torch.equal(getattr(a, field.name), getattr(b, field.name)), field.name


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


# Batches


def test_a_batch_is_a_function_of_seed_and_number():
    spec = tiny(data__flips=True)
    whole = batches(spec, 0, 6)
    for number in (5, 0, 3):
        assert_same_batch(batches(spec, number, number + 1)[0], whole[number])
    late = Batches(spec, digits(), HERE)
    list(late.stream(300, 310))  # epochs later
    assert_same_batch(next(late.stream(2, 3)), whole[2])
    other = batches(tiny(data__flips=True, seed=4), 0, 6)
    for a, b in zip(whole, other, strict=True):
        assert not torch.equal(a.eps, b.eps) and not torch.equal(a.x_0, b.x_0)
    assert not torch.equal(whole[0].eps, whole[1].eps)


def test_an_epoch_visits_every_image_once_and_every_epoch_in_another_order():
    n = len(digits())
    found = Batches(tiny(train__batch_size=16), digits(), HERE)
    order = np.concatenate([found.indices(step) for step in range(2 * n // 16 + 1)])
    first, second = order[:n], order[n : 2 * n]
    for epoch in (first, second):  # one that ends in the middle of a batch, one that starts there
        np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
    assert (first == second).mean() < 0.02


def test_a_batch_larger_than_the_data_set_spans_epochs():
    images = digits()
    few = dataclasses.replace(images, ids=images.ids[:3], source=images.array[:3])
    found = Batches(tiny(train__batch_size=8), few, HERE)
    order = np.concatenate([found.indices(step) for step in range(3)])
    for epoch in order.reshape(-1, 3):
        np.testing.assert_array_equal(np.sort(epoch), [0, 1, 2])


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_processes_shares_make_up_the_batch(world_size):
    spec = tiny(data__flips=True)
    (whole,) = batches(spec, 2, 3)
    shares = [
        batches(spec, 2, 3, runtime=Runtime(torch.device("cpu"), rank=rank, world_size=world_size))[0]
        for rank in range(world_size)
    ]
    for field in dataclasses.fields(whole):
        joined = torch.cat([getattr(share, field.name) for share in shares])
        assert torch.equal(joined, getattr(whole, field.name))


def test_a_batch_that_does_not_divide_among_the_processes_is_refused():
    with pytest.raises(ValueError, match=r"train\.batch_size is 8, which 3 processes do not divide"):
        Batches(TINY, digits(), Runtime(torch.device("cpu"), rank=0, world_size=3))


def test_times_are_uniform_on_1_to_T_and_noise_is_standard_normal():
    drawn = batches(tiny(train__batch_size=128), 0, 100)
    t, eps = torch.cat([b.t for b in drawn]), torch.cat([b.eps for b in drawn])
    counts = torch.bincount(t, minlength=21)
    assert counts[0] == 0 and len(counts) == 21
    assert stats.chisquare(counts[1:].numpy()).pvalue > 0.001
    assert stats.kstest(eps.flatten()[:200_000].numpy(), "norm").pvalue > 0.001
    assert abs(np.corrcoef(t[:-1], t[1:])[0, 1]) < 4.5 / math.sqrt(len(t))


@pytest.mark.parametrize("flips", [False, True])
def test_half_of_the_images_are_mirrored_where_the_run_says_so(flips):
    spec = tiny(data__flips=flips, train__batch_size=128)
    found = Batches(spec, digits(), HERE)
    mirrored = straight = 0
    for step, batch in enumerate(found.stream(0, 8)):
        plain = to_model_range(torch.from_numpy(digits().array[found.indices(step)]))
        as_is, flipped = ((batch.x_0 == x).flatten(1).all(1) for x in (plain, plain.flip(-1)))
        assert (as_is | flipped).all()
        mirrored += int((flipped & ~as_is).sum())  # a symmetric image is both
        straight += int((as_is & ~flipped).sum())
    n = mirrored + straight
    if flips:
        assert abs(mirrored - n / 2) < 4 * math.sqrt(n) / 2  # binomial
    else:
        assert mirrored == 0 and n > 1000


@pytest.mark.filterwarnings(
    "ignore:.*use of fork:DeprecationWarning"
)  # Python 3.12: the loader's workers hold no locks
def test_a_streamed_data_set_gives_the_batches_of_the_resident_one():
    images = digits()
    streamed = dataclasses.replace(images, source=lambda index: images.array[index])
    assert images.in_memory and not streamed.in_memory
    spec = tiny(data__flips=True)
    for a, b in zip(batches(spec, 3, 6), batches(spec, 3, 6, streamed), strict=True):
        assert_same_batch(a, b)


# The update


def literal_training(spec, updates):
    """Eq. 14 with Adam (Kingma and Ba, Algorithm 1), written out; returns weights, averages, moments and the
    log.
    """
    network = UNet(spec.network, spec.data.channels, spec.data.side, spec.out_channels, seed=spec.seed)
    parameters = list(network.parameters())
    average = [p.detach().clone() for p in parameters]
    m, v = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    alpha_bar, options, log = make_schedule(spec.diffusion).alpha_bar.float(), spec.train, []
    for n, batch in enumerate(batches(spec, 0, updates), start=1):
        a = alpha_bar[batch.t].reshape(-1, 1, 1, 1)
        output = network(a.sqrt() * batch.x_0 + (1 - a).sqrt() * batch.eps, batch.t - 1)
        loss = ((batch.eps - output) ** 2).mean()
        gradients = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
        rate = options.learning_rate * min(1, n / options.warmup_steps)
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
                g = g * min(1, options.clip_norm / norm)
                m[i] = 0.9 * m[i] + 0.1 * g
                v[i] = 0.999 * v[i] + 0.001 * g**2
                p -= rate * (m[i] / (1 - 0.9**n)) / ((v[i] / (1 - 0.999**n)).sqrt() + 1e-8)
                average[i] = options.ema_decay * average[i] + (1 - options.ema_decay) * p
        log.append((loss.item(), norm))
    return parameters, average, m, v, np.array(log)


def test_updates_are_the_literal_ones():
    """Warm-up over three of five updates, clipping active, EMA: against the formulas, with other orders of
    rounding.

    Adam divides by the gradient's own size, so a rounding error of 1e-6 of a gradient moves a weight by 1e-6
    of the learning rate, 1e-9; where the gradient is itself of rounding size the step is off by up to the
    learning rate times its relative error. 1e-3 of the learning rate is allowed.
    """
    spec = tiny(train__clip_norm=0.05, train__steps=5)
    trainer = Trainer(spec, HERE)
    for batch in batches(spec, 0, 5):
        trainer.seeded_update(batch)
    parameters, average, m, v, log = literal_training(spec, 5)
    np.testing.assert_allclose(trainer.log.numpy().T, log, rtol=1e-4)
    assert (log[:, 1] > spec.train.clip_norm).all()  # what is logged is the norm before clipping
    close = {"rtol": 1e-4, "atol": 1e-3 * spec.train.learning_rate}
    for i, p in enumerate(trainer.parameters):
        torch.testing.assert_close(p, parameters[i], **close)
        torch.testing.assert_close(trainer.average[i], average[i], **close)
        state = trainer.optimizer.state[p]
        # a gradient that is zero in exact arithmetic (of the keys' bias, which the softmax ignores) is
        # rounding of others
        torch.testing.assert_close(state["exp_avg"], m[i], rtol=1e-3, atol=1e-6 * spec.train.clip_norm)
        torch.testing.assert_close(state["exp_avg_sq"], v[i], rtol=1e-3, atol=1e-6 * spec.train.clip_norm**2)
        assert state["step"] == 5
    moved = torch.cat(
        [(p - q).abs().flatten() for p, q in zip(trainer.parameters, trainer.average, strict=True)]
    )
    assert moved.max() > 0.1 * spec.train.learning_rate  # the average is another thing than the weights


def test_updates_are_those_of_torchs_plain_adam():
    """The fused optimiser against the unfused one, on the trainer's own loss, at a learning rate without
    warm-up.
    """
    spec = tiny(train__warmup_steps=0, train__clip_norm=1e9, train__steps=4)
    trainer = Trainer(spec, HERE)
    other = Trainer(spec, HERE)
    reference = torch.optim.Adam(other.parameters, lr=spec.train.learning_rate, foreach=False, fused=False)
    for batch in batches(spec, 0, 4):
        trainer.seeded_update(batch)
        reference.zero_grad()
        loop.training_loss(other.process, "mse", batch.x_0, batch.t, batch.eps).mean().backward()
        reference.step()
    for p, q in zip(trainer.parameters, other.parameters, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-3 * spec.train.learning_rate)


def test_the_learning_rate_warms_up_linearly_from_the_first_update():
    spec = tiny(train__warmup_steps=4, train__steps=6)
    trainer, rates = Trainer(spec, HERE), []
    for batch in batches(spec, 0, 6):
        trainer.seeded_update(batch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(
        rates, spec.train.learning_rate * np.array([0.25, 0.5, 0.75, 1, 1, 1]), rtol=1e-12
    )


def test_a_norm_below_the_limit_is_not_clipped():
    """Twice the limit leaves everything as it is, once the norm is below both."""
    states = []
    for limit in (1e3, 2e3):
        trainer = Trainer(tiny(train__clip_norm=limit), HERE)
        for batch in batches(TINY, 0, 3):
            trainer.seeded_update(batch)
        assert trainer.log[1, :3].max() < limit
        states.append(torch.cat([p.flatten() for p in trainer.parameters]))
    assert torch.equal(*states)


def test_dropout_is_a_function_of_seed_and_update_and_leaves_the_global_generator_alone(monkeypatch):
    spec = tiny(network__dropout=0.5)
    before = torch.get_rng_state()
    logs, seeds, seeded = [], [], loop.global_seed
    monkeypatch.setattr(loop, "global_seed", lambda seed, device: seeds.append(seed) or seeded(seed, device))
    for disturbance in range(2):
        trainer = Trainer(spec, HERE)
        for batch in batches(spec, 0, 4):
            torch.rand(disturbance)  # what other code draws must not matter
            trainer.seeded_update(batch)
        logs.append(trainer.log.clone())
    assert torch.equal(*logs)
    assert len(set(seeds[:4])) == 4 and seeds[4:] == seeds[:4]  # every update drops others
    torch.set_rng_state(before)
    plain = Trainer(TINY, HERE)
    for batch in batches(TINY, 0, 4):
        plain.seeded_update(batch)
    assert not torch.equal(plain.log, logs[0])  # it did drop something
    assert torch.equal(torch.get_rng_state(), before)


def test_processes_drop_different_units():
    spec = tiny(network__dropout=0.5)
    logs = []
    for rank in (0, 1):
        trainer = Trainer(spec, HERE)
        trainer.runtime = dataclasses.replace(HERE, rank=rank)
        for batch in batches(spec, 0, 6):
            trainer.seeded_update(batch)
        logs.append(trainer.log[0])
    assert (
        logs[0][0] == logs[1][0] and logs[0][5] != logs[1][5]
    )  # the blocks' last convolutions start at zero


def test_the_loss_falls():
    spec = tiny(train__steps=40, train__batch_size=32, train__learning_rate=3e-3)
    trainer = Trainer(spec, HERE)
    for batch in batches(spec, 0, 40):
        trainer.seeded_update(batch)
    loss = trainer.log[0].numpy()
    # the last convolution starts at zero: the error of eps_hat = 0, a mean of 2048 squares of normal noise
    assert loss[0] == pytest.approx(1, abs=4 * math.sqrt(2 / 2048))
    assert loss[-10:].mean() < 0.6


# Resuming


@pytest.mark.parametrize(("prediction", "objective", "variance"), CELLS)
def test_a_killed_run_continues_bit_identically(tmp_path, prediction, objective, variance):
    """Kill between checkpoints: two updates are lost and taken again."""
    spec = cell(prediction, objective, variance, data__flips=True, network__dropout=0.1)
    whole = run(spec, tmp_path / "whole")
    with pytest.raises(Killed):
        run(spec, tmp_path / "killed", progress=kill_at(4))
    saved = checkpoint.load(tmp_path / "killed")
    assert saved.step == 2 and saved.facts["status"] == "running"
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


def test_what_is_no_part_of_the_runs_identity_may_change(tmp_path):
    run(tiny(train__steps=2), tmp_path)
    spec = tiny(train__steps=3, train__checkpoint_steps=7, evaluation__n_samples=99)
    assert run(spec, tmp_path).steps == 3


# Stopping


def test_a_time_limit_stops_with_a_checkpoint_and_the_run_continues_bit_identically(tmp_path):
    stopped = run(TINY, tmp_path / "stopped", max_minutes=1e-9)
    assert (stopped.status, stopped.steps) == (
        "stopped",
        2,
    )  # at the first look at the clock, a checkpoint's update
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


# Watching


class Witness:
    """Notes when it is called, and takes its time."""

    def __init__(self, every, pause=0.0):
        self.every, self.pause, self.steps, self.seconds = every, pause, [], []

    def __call__(self, trainer):
        self.steps.append(trainer.step)
        self.seconds.append(trainer.seconds)
        time.sleep(self.pause)


def test_watchers_look_before_the_first_update_and_at_each_look_of_any(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECK_STEPS", 5)
    spec = tiny(train__steps=13, train__checkpoint_steps=6)
    first, second = Witness(4), Witness(100)
    run(spec, tmp_path, callbacks=[first, second])
    assert first.steps == second.steps == [0, 4, 5, 6, 8, 10, 12, 13]
    late = Witness(7)
    run(tiny(train__steps=15, train__checkpoint_steps=6), tmp_path, callbacks=[late])
    assert late.steps == [13, 14, 15]


def test_the_watchers_time_is_no_part_of_the_trainings_but_of_the_limits(tmp_path):
    slow = Witness(1, pause=0.2)
    log = run(TINY, tmp_path, callbacks=[slow])
    assert len(slow.steps) == 7 and log.seconds < 0.7 < 7 * 0.2
    assert slow.seconds == sorted(slow.seconds) and slow.seconds[-1] == log.seconds
    limited = run(tiny(seed=5), tmp_path / "limited", callbacks=[Witness(1, pause=0.2)], max_minutes=0.1 / 60)
    assert (limited.status, limited.steps) == ("stopped", 1)


def test_nothing_looks_at_a_run_that_is_over_or_diverged(tmp_path, monkeypatch):
    witness = Witness(1)
    run(TINY, tmp_path)
    run(TINY, tmp_path, callbacks=[witness])
    assert witness.steps == []
    monkeypatch.setattr(loop, "training_loss", breaking(3, "loss"))
    assert run(TINY, tmp_path / "diverged", callbacks=[witness]).diverged
    assert witness.steps == [0, 1, 2]


# Divergence


def breaking(at, what):
    """Return a training loss which in call ``at`` is infinite, or has a gradient that is not a number."""
    calls = 0
    original = loop.training_loss

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
    monkeypatch.setattr(loop, "training_loss", breaking(at, what))
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


def test_divergence_stops_at_the_next_look(tmp_path, monkeypatch):
    """The loss is looked at with every checkpoint (and every 50 updates): later ones are not taken."""
    monkeypatch.setattr(loop, "training_loss", breaking(3, "loss"))
    log = run(TINY, tmp_path)
    assert log.steps == 4 and log.reason.endswith("at update 3 (seed 3)")


def test_an_absurd_learning_rate_diverges(tmp_path):
    spec = cell("eps", "vlb", "learned", train__learning_rate=1e6, train__warmup_steps=0, train__steps=50)
    log = run(spec, tmp_path)
    assert log.diverged and "at update" in log.reason
