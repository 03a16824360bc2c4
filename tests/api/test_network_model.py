"""Any network as a model: its choices, its device and dtype, and what is refused of its output."""

import numpy as np
import pytest
import torch
from torch import nn

from ddpm_eval.api.network_model import CheckedNetwork, Model
from ddpm_eval.model.chains import chain_of_alpha_bar
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.protocol import PROTOCOLS, combine
from ddpm_eval.spec import DiffusionSpec

CPU = torch.device("cpu")


def eps(x_t, t):
    return 0.5 * x_t


class Scale(nn.Module):
    """A bare module with one parameter and a dropout that would be seen."""

    def __init__(self, value=0.5):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(value))
        self.dropout = nn.Dropout(0.5)
        self.seen = []

    def forward(self, x_t, t):
        self.seen.append((x_t.dtype, t.dtype, tuple(t.shape), self.training))
        return self.scale * self.dropout(x_t)


# The schedule


@pytest.mark.parametrize("name", ["linear", "quadratic", "constant", "cosine"])
def test_a_schedule_by_name_by_tables_and_as_itself_is_the_same_chain(name):
    expected = make_schedule(DiffusionSpec(schedule=name, timesteps=30))
    tables = {
        "name": Model(eps, schedule=name, timesteps=30),
        "beta": Model(eps, schedule=expected.beta[1:]),
        "beta in numpy": Model(eps, schedule=expected.beta[1:].numpy()),
        "alpha_bar": Model(eps, schedule=expected.alpha_bar[1:]),
        "itself": Model(eps, schedule=expected),
    }
    for model in tables.values():
        torch.testing.assert_close(model.chain.beta, expected.beta, rtol=1e-11, atol=0)
        torch.testing.assert_close(model.chain.alpha_bar, expected.alpha_bar, rtol=1e-14, atol=0)
        assert model.timesteps == 30


def test_a_named_schedule_has_1000_steps_unless_it_is_told():
    assert Model(eps).timesteps == 1000


def test_respaced_chains_keep_the_networks_times():
    model = Model(eps, timesteps=100, shape=(1, 4, 4))
    assert model.respaced(4).chain.network_time.tolist() == [-1, 24, 49, 74, 99]
    assert model.respaced([3, 50, 100]).chain.network_time.tolist() == [-1, 2, 49, 99]
    assert model.respaced(4).shape == (1, 4, 4)
    assert (model.timesteps, model.respaced(4).timesteps) == (100, 4)
    assert model.respaced(4, "leading").chain.network_time.tolist() == [-1, 0, 25, 50, 75]
    with pytest.raises(
        ValueError, match=r"spacing is 'even', but must be one of trailing, leading, linspace"
    ):
        model.respaced(4, "even")
    twice = model.respaced(10).respaced(5)
    assert torch.equal(twice.chain.alpha_bar[1:], model.chain.alpha_bar[[20, 40, 60, 80, 100]])


@pytest.mark.parametrize(
    "fields",
    [
        {"predicts": "mu"},
        {"variance": "learned"},
        {"variance": torch.full((10,), 0.1)},
        {"variance": np.full(10, 0.1)},
    ],
)
def test_what_is_of_the_own_chain_only_cannot_be_respaced(fields):
    with pytest.raises(ValueError, match="of its own chain only"):
        Model(eps, timesteps=10, **fields).respaced(5)


# The variance


def test_a_table_of_variances_begins_at_t_1():
    table = np.linspace(0.01, 0.2, 10)
    with Model(eps, timesteps=10, variance=table).evaluating() as measured:
        process = measured.under(PROTOCOLS["exact"]).process
    assert torch.isnan(process.variance[0])
    assert process.variance[1:].tolist() == table.tolist()
    assert measured.variance_name(PROTOCOLS["exact"]) == "table"


@pytest.mark.parametrize("name", ["fixed-large", "fixed-small", "learned", "learned-range"])
def test_variances_by_name_are_those_of_protocols(name):
    with Model(eps, variance=name, timesteps=10).evaluating() as measured:
        assert measured.variance_name(PROTOCOLS["paper"]) == name
        over = measured.under(combine(PROTOCOLS["paper"], variance="fixed-small")).process.variance
    assert torch.equal(over[1:], measured.schedule.fixed_variance("fixed-small")[1:])


# Device, dtype and mode


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_network_is_given_images_of_its_own_dtype_and_one_time_for_each(dtype):
    network = Scale().to(dtype)
    with Model(network, timesteps=10).evaluating() as measured:
        x_t = torch.randn(3, 1, 4, 4, dtype=torch.float64)
        step = measured.under(PROTOCOLS["exact"]).process(x_t, torch.tensor([5]))
    assert network.seen == [(dtype, torch.int64, (3,), False)]
    assert step.prediction.dtype == torch.float64
    torch.testing.assert_close(step.prediction, 0.5 * x_t.to(dtype).double(), rtol=0, atol=0)


def test_a_function_is_given_float32_unless_it_is_told():
    seen = []

    def network(x_t, t):
        seen.append(x_t.dtype)
        return x_t

    for dtype in (None, torch.float64):
        with Model(network, timesteps=10, dtype=dtype).evaluating() as measured:
            measured.evaluate(torch.zeros(1, 1, 2, 2, dtype=torch.float64), torch.tensor([0]))
    assert seen == [torch.float32, torch.float64]


def test_a_device_without_float64_gets_its_images_from_the_cpu():
    model = Model(eps, timesteps=10, device="mps")
    assert model.chain.beta.device == CPU
    assert model.device.type == "mps"


def test_modules_are_in_evaluation_mode_and_as_they_were_afterwards():
    network = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5), nn.Identity()))
    network[1].eval()
    before = [module.training for module in network.modules()]
    with pytest.raises(RuntimeError), Model(lambda x, t: network(x)).evaluating():
        raise RuntimeError
    with pytest.raises(RuntimeError), Model(network).evaluating():
        assert not any(module.training for module in network.modules())
        raise RuntimeError
    assert [module.training for module in network.modules()] == before == [True, True, False, False, False]


# What is refused


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"predicts": "epsilon"}, "predicts is 'epsilon', but must be one of eps, mu, x0, v, score"),
        ({"variance": "beta"}, "variance is 'beta', but must be one of fixed-large, fixed-small, learned, "),
        (
            {"schedule": "sigmoid"},
            "schedule is 'sigmoid', but must be one of linear, quadratic, constant, cos",
        ),
        ({"schedule": [0.1, 0.2], "timesteps": 5}, "timesteps is 5, but the schedule has 2"),
        ({"schedule": [0.1, 1.2]}, "beta must be a list of two or more numbers"),
        ({"timesteps": 10, "variance": torch.ones(9)}, r"10 positive numbers, .* has shape \[9\]"),
        ({"timesteps": 2, "variance": torch.tensor([0.0, 1.0])}, "2 positive numbers"),
        ({"schedule": [0.5, 0.0]}, "alpha_bar is 0 at t = T, where eps says nothing of x_0"),
        ({"schedule": [0.5, 0.0], "predicts": "score"}, "one of x0, mu, v"),
    ],
)
def test_choices_that_do_not_exist_or_suit_each_other_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Model(eps, **fields)


def test_a_chain_to_pure_noise_suits_v():
    schedule = chain_of_alpha_bar(torch.tensor([0.5, 0.0]))
    with Model(eps, "v", schedule=schedule).evaluating() as measured:
        step = measured.under(PROTOCOLS["exact"]).process(torch.ones(1, 1, 2, 2), torch.tensor([2]))
    assert torch.equal(step.x_0_hat, torch.full((1, 1, 2, 2), -0.5))  # x_0 = -v


@pytest.mark.parametrize(
    ("output", "learned", "sentence"),
    [
        (lambda x: (x,), False, "the network returned a tuple, not a tensor"),
        (lambda x: x.repeat(1, 2, 1, 1), False, r"say variance='learned-range' or 'learned'"),
        (lambda x: x, True, r"need \[2, 6, 4, 4\] \(a learned variance is the second half of the channels"),
        (lambda x: x[:, :1], False, r"shape \[2, 1, 4, 4\], but images of shape \[2, 3, 4, 4\] need"),
        (lambda x: x[..., :2], False, "a network for other images"),
        (lambda x: x[:1], False, r"shape \[1, 3, 4, 4\]"),
    ],
)
def test_outputs_of_another_shape_are_refused(output, learned, sentence):
    network = CheckedNetwork(lambda x, t: output(x), CPU, torch.float32, learned)
    with pytest.raises(ValueError, match=sentence):
        network(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]))
