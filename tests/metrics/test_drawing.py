"""Samples as 8-bit images: the sampler's own, rounded once, with what is lost counted."""

import numpy as np
import pytest
import torch

from ddpm_eval.data.pixels import to_pixels
from ddpm_eval.metrics import drawing
from ddpm_eval.metrics.bound import NotFinite
from ddpm_eval.metrics.drawing import draw_samples, ranges
from ddpm_eval.metrics.measured_model import Model
from ddpm_eval.metrics.work import SerialWork
from ddpm_eval.model import samplers
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.model.samplers import make_sampler
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.spec import DiffusionSpec

SHAPE, T = (1, 4, 4), 12
SCHEDULE = make_schedule(DiffusionSpec(timesteps=T, beta_start=1e-3, beta_end=0.6))


def sampler(network=lambda x_t, timestep: 0.5 * x_t, method="ancestral"):
    return make_sampler(Model(network, SCHEDULE).under(PROTOCOLS["exact"]).process, 3, method)


@pytest.mark.parametrize("method", ["ancestral", "ddim"])
def test_samples_are_the_samplers_rounded_to_8_bits(method):
    drawn = draw_samples(sampler(method=method), SHAPE, range(10), batch_size=4)
    x_0 = samplers.draw(sampler(method=method), torch.arange(10), SHAPE)
    np.testing.assert_array_equal(drawn["images"], to_pixels(x_0).numpy())
    assert drawn["images"].dtype == np.uint8
    outside = (x_0.abs() > 1).flatten(1).double().mean(1)
    assert outside.max() > 0
    np.testing.assert_allclose(drawn["out_of_range"], outside.numpy())


def test_a_sample_depends_neither_on_the_others_nor_on_the_batches():
    """The network works on each element, so that batches of another size change nothing at all."""
    every = draw_samples(sampler(), SHAPE, range(13), batch_size=64)["images"]
    for first, last, size in [(0, 13, 3), (5, 13, 4), (12, 13, 1)]:
        some = draw_samples(sampler(), SHAPE, range(first, last), batch_size=size)["images"]
        np.testing.assert_array_equal(some, every[first:last])


def test_estimates_are_kept_at_the_times_that_are_asked_for():
    drawn = draw_samples(sampler(), SHAPE, range(5), batch_size=2, times=[T, 3, 1])
    assert drawn["x_0_hat"].shape == (5, 3, *SHAPE) and drawn["x_0_hat"].dtype == np.uint8
    estimates, x_0 = samplers.trajectory(sampler(), torch.arange(5), SHAPE, [T, 3, 1])
    np.testing.assert_array_equal(drawn["x_0_hat"], to_pixels(estimates).transpose(0, 1).numpy())
    np.testing.assert_array_equal(drawn["images"], to_pixels(x_0).numpy())
    # at t = 1 the mean, which the exact reverse step takes without noise, is the sample
    np.testing.assert_array_equal(drawn["x_0_hat"][:, -1], drawn["images"])


def test_a_sample_that_is_not_finite_is_marked_and_grey():
    def network(x_t, timestep):
        output = 0.5 * x_t
        output[-1] = torch.nan  # of the last sample of each batch
        return output

    drawn = draw_samples(sampler(network), SHAPE, range(4), batch_size=2, times=[1])
    np.testing.assert_array_equal(np.isnan(drawn["out_of_range"]), [False, True, False, True])
    assert len(np.unique(drawn["images"][1])) == 1 and drawn["images"][1, 0, 0, 0] in (127, 128)
    assert len(np.unique(drawn["x_0_hat"][3])) == 1
    assert len(np.unique(drawn["images"][0])) > 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_an_overflow_at_one_time_is_refused_with_the_sample_and_the_time(value):
    """Clipping would make an infinite estimate an edge, and the sample a finite one of a broken network."""

    def network(x_t, timestep):
        output = 0.5 * x_t
        if int(timestep[0]) == 6 and len(x_t) == 2:  # t = 7, of the second batch
            output[1, 0, 2, 2] = value
        return output

    clipped = make_sampler(Model(network, SCHEDULE).under(PROTOCOLS["paper"]).process, 3, "ancestral")
    with pytest.raises(NotFinite, match="the network's output is not finite at t = 7 for sample 4"):
        draw_samples(clipped, SHAPE, range(5), batch_size=3, only_finite=True)
    drawn = draw_samples(clipped, SHAPE, range(5), batch_size=3)
    assert np.isnan(drawn["out_of_range"]).tolist() == [False, False, False, False, True]


def test_the_time_of_a_sample_is_its_share_of_its_batchs(monkeypatch):
    """A clock that stands still but for one hour while each batch is drawn."""
    now = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(drawing, "monotonic", lambda: float(next(now)))
    drawn = draw_samples(sampler(), SHAPE, range(7), batch_size=4)
    np.testing.assert_array_equal(drawn["seconds"], [3600 / 4] * 4 + [3600 / 3] * 3)


def test_progress_counts_network_evaluations():
    seen = []
    work = SerialWork(lambda *event: seen.append(event))
    draw_samples(sampler(), SHAPE, range(7), batch_size=4, work=work, name="draw")
    assert seen == [("draw", 4 * T, 7 * T), ("draw", 7 * T, 7 * T)]


def test_ranges_cover_all_numbers_once():
    assert ranges(3, 10, 3) == [range(3, 6), range(6, 9), range(9, 10)]
    assert ranges(3, 3, 3) == [] and ranges(0, 2, 5) == [range(0, 2)]
