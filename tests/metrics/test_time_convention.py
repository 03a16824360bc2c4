"""Networks that count times otherwise are noticed: by failing at an end, or by better estimates."""

import pytest
import torch
from tiny import digits
from torch import nn

from ddpm_eval.data.image_set import from_array
from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.metrics.measured_model import Model
from ddpm_eval.metrics.time_convention import check_ends, time_offset
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.model.gaussian import Gaussian
from ddpm_eval.model.respacing import evenly_spaced
from ddpm_eval.spec import DiffusionSpec

T = 50
SCHEDULE = make_schedule(DiffusionSpec(schedule="cosine", timesteps=T))


@pytest.fixture(scope="module")
def denoiser():
    """The best network for Gaussian images that resemble the digits."""
    images = to_model_range(torch.from_numpy(digits().array))
    return Gaussian.fit([images]).network(SCHEDULE, "eps")


class ByTable(nn.Module):
    """An eps network whose time enters through a table of ``size`` rows, the first for time ``first``."""

    def __init__(self, size, first):
        super().__init__()
        self.first = first
        self.embedding = nn.Embedding(size, 1)

    def forward(self, x_t, t):
        return 0.5 * x_t + 1e-3 * self.embedding(t - self.first)[..., None, None]


@pytest.mark.parametrize(
    ("told", "offset"),
    [(lambda t: t, 0), (lambda t: (t - 1).clamp(min=0), 1), (lambda t: (t + 1).clamp(max=T - 1), -1)],
)
def test_an_offset_of_one_is_noticed_by_better_estimates(denoiser, told, offset):
    model = Model(lambda x_t, t: denoiser(x_t.double(), told(t)), SCHEDULE)
    assert time_offset(model, digits("test")) == offset


def test_a_network_that_ignores_the_time_has_no_offset():
    assert time_offset(Model(lambda x_t, t: 0.5 * x_t, SCHEDULE), digits("test")) == 0


def test_a_perfect_network_has_no_offset():
    assert time_offset(Model(lambda x_t, t: torch.zeros_like(x_t), SCHEDULE, "x0"), _grey()) == 0


def test_a_chain_that_skips_times_is_not_examined(denoiser):
    chain = SCHEDULE.respaced(evenly_spaced(T, 10))
    model = Model(lambda x_t, t: denoiser(x_t.double(), (t - 1).clamp(min=0)), chain)
    assert time_offset(model, digits("test")) == 0


def test_networks_with_the_right_times_pass():
    check_ends(Model(ByTable(T, 0), SCHEDULE), digits("test"))


@pytest.mark.parametrize(
    ("network", "end", "given"), [(ByTable(T, 1), "1", 0), (ByTable(T - 1, 0), "T", T - 1)]
)
def test_a_network_that_fails_at_an_end_is_refused(network, end, given):
    with pytest.raises(
        ValueError, match=f"the network fails at t = {end}, where it is given {given} .*count from 1"
    ):
        check_ends(Model(network, SCHEDULE), digits("test"))


def test_a_network_that_fails_everywhere_is_refused_as_such():
    with pytest.raises(
        ValueError, match=r"cannot be evaluated on images of shape \[1, 1, 8, 8\].*expected.*3 channels"
    ):
        check_ends(Model(lambda x_t, t: nn.Conv2d(3, 3, 1)(x_t), SCHEDULE), digits("test"))
    with pytest.raises(ValueError, match="is it class-conditional"):
        check_ends(Model(lambda x_t, t, y: x_t, SCHEDULE), digits("test"))


def _grey():
    """Images all of whose levels are so near the middle that x0_hat = 0 is exact but for a half level."""
    array = digits("test").array.copy()
    array[:] = 127
    return from_array(array)
