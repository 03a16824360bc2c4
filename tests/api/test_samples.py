"""Samples of any model: a function of seed and number, with classes, or refused."""

import numpy as np
import pytest
import torch

from ddpm_eval.api.network_model import Model
from ddpm_eval.api.samples import sample
from ddpm_eval.data.pixels import to_pixels
from ddpm_eval.model import samplers
from ddpm_eval.model.diffusion import ReverseProcess
from ddpm_eval.model.respacing import evenly_spaced

SHAPE = (1, 4, 4)


def eps(x_t, t):
    return torch.tanh(x_t) * (0.3 + 0.01 * t.reshape(-1, 1, 1, 1))


def model(**fields):
    return Model(**{"network": eps, "timesteps": 20, "shape": SHAPE, "dtype": torch.float64, **fields})


def quiet(model, n, **options):
    return sample(model, n, progress=False, **options)


@pytest.mark.parametrize("method", ["ancestral", "ddim"])
@pytest.mark.parametrize("num_steps", [None, 5])
@pytest.mark.parametrize("clip", [True, False])
def test_samples_are_those_of_the_sampler(method, num_steps, clip):
    found = quiet(model(clip_samples=clip), 3, method=method, num_steps=num_steps, seed=2)
    chain = model().chain
    chain = chain.respaced(evenly_spaced(20, num_steps)) if num_steps else chain
    process = ReverseProcess(
        lambda x, t: eps(x.double(), t), chain, "eps", chain.fixed_variance("fixed-large"), clip
    )
    sampler = samplers.make_sampler(process, 2, method)
    assert np.array_equal(found.images, to_pixels(samplers.draw(sampler, torch.arange(3), SHAPE)).numpy())
    assert (found.method, found.num_steps, found.seed) == (method, num_steps or 20, 2)


def test_a_sample_depends_on_seed_and_number_only():
    many = quiet(model(), 5, batch_size=2).images
    assert np.array_equal(quiet(model(), 2).images, many[:2])
    assert (quiet(model(), 2, seed=1).images != many[:2]).any()


@pytest.mark.parametrize("labels", [2, [2, 2, 2, 2], np.array([2, 2, 2, 2], np.uint8)])
def test_one_class_for_all_is_that_class_for_each(labels):
    conditional = model(network=lambda x, t, y: eps(x, t) * y.reshape(-1, 1, 1, 1), conditional=True)
    alone = model(network=lambda x, t: eps(x, t) * 2)
    assert np.array_equal(quiet(conditional, 4, labels=labels).images, quiet(alone, 4).images)


def test_each_sample_has_its_own_class():
    conditional = model(network=lambda x, t, y: eps(x, t) * y.reshape(-1, 1, 1, 1), conditional=True)
    mixed = quiet(conditional, 4, labels=[0, 1, 2, 1], batch_size=3).images
    for k, y in enumerate([0, 1, 2, 1]):
        assert np.array_equal(mixed[k], quiet(conditional, 4, labels=y).images[k])


def test_ddim_needs_no_variance_and_skips_steps_with_any_table():
    table = model(variance=torch.full((20,), 0.1))
    for num_steps in (None, 5):
        found = quiet(table, 2, method="ddim", num_steps=num_steps)
        assert np.array_equal(found.images, quiet(model(), 2, method="ddim", num_steps=num_steps).images)
    with pytest.raises(ValueError, match="the network knows the variance of its own chain only"):
        quiet(table, 2, num_steps=5)


@pytest.mark.parametrize(
    ("fields", "options", "sentence"),
    [
        ({"shape": None}, {}, "the shape of an image is not known"),
        ({}, {"labels": 1}, "labels are given, but the network is not class-conditional"),
        ({"conditional": True}, {}, "labels must say a class for each sample"),
        ({"conditional": True}, {"labels": [0, 1]}, "labels are 2, but there are 3 images"),
        ({"conditional": True}, {"labels": [0.5] * 3}, "labels must be a list of integers"),
        ({}, {"method": "euler"}, "no sampler 'euler'"),
        ({}, {"num_steps": 21}, "21 steps asked for, but a chain of 20"),
        ({"predicts": "mu"}, {"num_steps": 5}, "the network knows the mean of its own chain only"),
        ({"network": lambda x, t: x * torch.nan}, {}, "output is not finite at t = 20 for sample 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(fields, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        quiet(model(**fields), 3, **options)
