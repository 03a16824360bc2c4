"""Batches: functions of (seed, number), complete epochs, uniform times, normal noise, even flips."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from tiny import HERE, TINY, batches, digits, tiny

from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.model.diffusion import training_loss
from ddpm_eval.runtime import Runtime
from ddpm_eval.training.batches import Batches
from ddpm_eval.training.trainer import Trainer


def assert_same_batch(a, b):
    for field in dataclasses.fields(a):
        assert torch.equal(getattr(a, field.name), getattr(b, field.name)), field.name


def on_l_by_importance(**settings):
    """Return the tiny run, trained on L with times drawn by importance."""
    return tiny(diffusion__objective="vlb", train__time_sampling="importance", **settings)


@pytest.mark.parametrize("make", [tiny, on_l_by_importance])
def test_a_batch_is_a_function_of_seed_and_number(make):
    spec = make(data__flips=True)
    whole = batches(spec, 0, 6)
    for number in (5, 0, 3):
        assert_same_batch(batches(spec, number, number + 1)[0], whole[number])
    late = Batches(spec, digits(), HERE)
    list(late.stream(300, 310))  # epochs later
    assert_same_batch(next(late.stream(2, 3)), whole[2])
    other = batches(make(data__flips=True, seed=4), 0, 6)
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
    three = dataclasses.replace(images, ids=images.ids[:3], source=images.array[:3])
    found = Batches(tiny(train__batch_size=8), three, HERE)
    order = np.concatenate([found.indices(step) for step in range(3)])
    for epoch in order.reshape(-1, 3):
        np.testing.assert_array_equal(np.sort(epoch), [0, 1, 2])


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_processes_shards_make_up_the_batch(world_size):
    spec = on_l_by_importance(data__flips=True)
    (whole,) = batches(spec, 2, 3)
    shards = [
        batches(spec, 2, 3, runtime=Runtime(torch.device("cpu"), rank=rank, world_size=world_size))[0]
        for rank in range(world_size)
    ]
    for field in dataclasses.fields(whole):
        joined = torch.cat([getattr(shard, field.name) for shard in shards])
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


def test_importance_draws_times_by_the_weights_of_L_and_divides_the_loss_by_their_probabilities():
    drawn = batches(on_l_by_importance(train__batch_size=128), 0, 100)
    t, weight = torch.cat([b.t for b in drawn]), torch.cat([b.weight for b in drawn])
    beta = np.linspace(1e-3, 0.5, 20)
    importance = beta / (1 - beta) / (1 - np.cumprod(1 - beta))  # Eq. 12 with sigma^2 = beta, up to a factor
    probability = importance / importance.sum()
    assert stats.chisquare(np.bincount(t, minlength=21)[1:], probability * len(t)).pvalue > 0.001
    np.testing.assert_allclose(weight, 1 / (20 * probability[t - 1]), rtol=1e-6)
    assert abs(float(weight.mean()) - 1) < 4.5 * float(weight.std()) / math.sqrt(len(t))
    uniform = batches(TINY, 0, 2)
    assert all(torch.equal(b.weight, torch.ones(len(b.t))) for b in uniform)


def test_with_importance_the_expected_loss_is_that_of_uniform_times():
    """On the paper's chain; the variance of an untrained network's loss falls."""
    spec = on_l_by_importance(diffusion__timesteps=1000, diffusion__beta_start=1e-4, diffusion__beta_end=0.02)
    (batch,) = batches(spec, 0, 1)
    process = Trainer(spec, HERE).process
    times = torch.arange(1, 1001)
    x_0, eps = batch.x_0[:1].expand(1000, -1, -1, -1), batch.eps[:1].expand(1000, -1, -1, -1)
    with torch.no_grad():
        losses = training_loss(process, "vlb", x_0, times, eps).double()
    probability = Batches(spec, digits(), HERE).time_probabilities
    weighted = losses / (1000 * probability)
    mean = losses.mean()
    torch.testing.assert_close((probability * weighted).sum(), mean)
    assert (probability * (weighted - mean).square()).sum() < 0.05 * (losses - mean).square().mean()


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


# Python 3.12 warns of locks; the loader's workers hold none
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_streamed_data_set_gives_the_batches_of_the_resident_one():
    images = digits()
    streamed = dataclasses.replace(images, source=lambda index: images.array[index])
    assert images.in_memory and not streamed.in_memory
    spec = tiny(data__flips=True)
    for a, b in zip(batches(spec, 3, 6), batches(spec, 3, 6, streamed), strict=True):
        assert_same_batch(a, b)
