"""The trainer: every update is the literal one, and dropout is a function of seed, update and process."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny import HERE, TINY, batches, tiny

from ddpm_eval.model.diffusion import make_schedule, training_loss
from ddpm_eval.model.unet import UNet
from ddpm_eval.training import trainer as trainers
from ddpm_eval.training.trainer import Trainer


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
        training_loss(other.process, "mse", batch.x_0, batch.t, batch.eps).mean().backward()
        reference.step()
    for p, q in zip(trainer.parameters, other.parameters, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-3 * spec.train.learning_rate)


def test_training_on_l_takes_the_decoder_of_the_specification():
    """At t = 1 alone the two losses differ: an untrained mean lies in bins of probability below the floor."""
    on_l = {"diffusion__objective": "vlb", "diffusion__prediction": "mu"}
    trainers = {
        name: Trainer(tiny(**on_l, diffusion__training_decoder=name), HERE) for name in ("exact", "tanh")
    }
    (batch,) = batches(trainers["tanh"].spec, 0, 1)
    batch = dataclasses.replace(batch, t=torch.ones_like(batch.t))
    for name, trainer in trainers.items():
        expected = training_loss(trainer.process, "vlb", batch.x_0, batch.t, batch.eps, name).mean()
        trainer.update(batch)
        assert trainer.log[0, 0] == expected
    exact, tanh = (float(trainer.log[0, 0]) for trainer in trainers.values())
    assert tanh < -math.log2(1e-12) < exact


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
    logs, seeds, seeded = [], [], trainers.global_seed
    monkeypatch.setattr(
        trainers, "global_seed", lambda seed, device: seeds.append(seed) or seeded(seed, device)
    )
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
    # the blocks' last convolutions start at zero
    assert logs[0][0] == logs[1][0] and logs[0][5] != logs[1][5]


def test_the_loss_falls():
    spec = tiny(train__steps=40, train__batch_size=32, train__learning_rate=3e-3)
    trainer = Trainer(spec, HERE)
    for batch in batches(spec, 0, 40):
        trainer.seeded_update(batch)
    loss = trainer.log[0].numpy()
    # the last convolution starts at zero: the error of eps_hat = 0, a mean of 2048 squares of normal noise
    assert loss[0] == pytest.approx(1, abs=4 * math.sqrt(2 / 2048))
    assert loss[-10:].mean() < 0.6


def test_the_averaged_network_has_the_averaged_weights_and_follows_them():
    trainer = Trainer(TINY, HERE)
    network = trainer.averaged_network()
    assert not network.training
    before = network.conv_in.weight.clone()
    for batch in batches(TINY, 0, 2):
        trainer.seeded_update(batch)
    assert not torch.equal(network.conv_in.weight, before)
    for value, average in zip(network.parameters(), trainer.average, strict=True):
        assert torch.equal(value, average)


def test_a_snapshot_restores_the_trainer_bit_by_bit():
    first, both = Trainer(TINY, HERE), Trainer(TINY, HERE)
    drawn = batches(TINY, 0, 4)
    for batch in drawn:
        both.seeded_update(batch)
    for batch in drawn[:2]:
        first.seeded_update(batch)
    first.seconds = 1.5
    saved = first.snapshot("stopped", "after 1 minutes")
    assert (saved.metadata["status"], saved.metadata["reason"]) == ("stopped", "after 1 minutes")
    resumed = Trainer(TINY, HERE, saved)
    assert (resumed.step, resumed.seconds) == (2, 1.5)
    for batch in drawn[2:]:
        resumed.seeded_update(batch)
    assert torch.equal(resumed.log, both.log)
    expected = both.snapshot("ok", "").tensors
    found = resumed.snapshot("ok", "").tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize("row", [0, 1])
def test_the_first_update_that_is_not_finite_is_found(row):
    trainer = Trainer(TINY, HERE)
    trainer.step = 5
    trainer.log[0] = 1.0
    assert trainer.diverged_at(since=0) is None
    trainer.log[row, 2] = math.nan
    trainer.log[row, 4] = math.inf
    assert trainer.diverged_at(since=0) == 2 and trainer.diverged_at(since=3) == 4


def test_the_log_grows_with_the_updates_not_with_those_that_are_asked_for(monkeypatch):
    monkeypatch.setattr(trainers, "LOG_UPDATES", 2)
    spec = tiny(train__steps=10**9)
    growing = Trainer(spec, HERE)
    assert growing.log.shape == (2, 2)
    for batch in batches(spec, 0, 5):
        growing.seeded_update(batch)
    assert growing.log.shape == (2, 8)
    monkeypatch.undo()
    whole = Trainer(tiny(train__steps=5), HERE)
    for batch in batches(spec, 0, 5):
        whole.seeded_update(batch)
    assert torch.equal(growing.log[:, :5], whole.log) and Trainer(spec, HERE).log.numel() <= 2**21
