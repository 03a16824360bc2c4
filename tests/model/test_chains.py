"""Chains from tables are those that the tables came from."""

import pytest
import torch

from ddpm_eval.model.chains import chain_of_alpha_bar, chain_of_beta, chain_of_sigma, chain_of_table
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.spec import DiffusionSpec

NAMES = ["linear", "quadratic", "constant", "cosine"]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_beta_gives_the_chain_back_exactly(name):
    schedule = make_schedule(DiffusionSpec(schedule=name, timesteps=50))
    for chain in (chain_of_beta(schedule.beta[1:]), chain_of_table(schedule.beta[1:])):
        assert torch.equal(chain.beta, schedule.beta)
        assert torch.equal(chain.alpha_bar, schedule.alpha_bar)
        assert torch.equal(chain.network_time, schedule.network_time)


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_alpha_bar_gives_the_chain_back(name):
    schedule = make_schedule(DiffusionSpec(schedule=name, timesteps=50))
    sigma = ((1 - schedule.alpha_bar) / schedule.alpha_bar).sqrt()[1:]
    for chain in (
        chain_of_alpha_bar(schedule.alpha_bar[1:]),
        chain_of_table(schedule.alpha_bar[1:]),
        chain_of_sigma(sigma),
    ):
        # beta = 1 - a ratio near 1 loses the digits of 1 / beta, here at most 1e4
        torch.testing.assert_close(chain.beta, schedule.beta, rtol=1e-11, atol=0)
        torch.testing.assert_close(chain.alpha_bar, schedule.alpha_bar, rtol=1e-14, atol=0)
        assert torch.equal(chain.network_time, schedule.network_time)


def test_single_precision_becomes_double_before_anything_is_computed():
    beta = torch.linspace(1e-4, 0.02, 1000)
    chain = chain_of_beta(beta)
    assert torch.equal(chain.alpha_bar[1:], (1 - beta.double()).cumprod(0))


def test_a_chain_may_end_in_pure_noise():
    chain = chain_of_alpha_bar(torch.tensor([0.9, 0.5, 0.0]))
    assert float(chain.beta[-1]) == 1.0
    assert torch.equal(chain_of_beta(chain.beta[1:]).alpha_bar[-1], torch.tensor(0.0, dtype=torch.float64))


@pytest.mark.parametrize(
    "table", [[0.5], [0.0, 0.1], [0.1, 1.0, 0.1], [0.1, 1.1], [-0.1, 0.2], [float("nan"), 0.1], [[0.1, 0.2]]]
)
def test_what_is_no_beta_is_refused(table):
    with pytest.raises(ValueError, match="beta must be a list"):
        chain_of_beta(torch.tensor(table))


@pytest.mark.parametrize("table", [[0.5], [1.0, 0.5], [0.5, 0.5], [0.5, -0.1], [float("nan"), 0.1]])
def test_what_is_no_alpha_bar_is_refused(table):
    with pytest.raises(ValueError, match="alpha_bar must be a list"):
        chain_of_alpha_bar(torch.tensor(table))


@pytest.mark.parametrize("table", [[0.5], [0.0, 0.5], [0.5, 0.5], [0.5, 0.1], [float("nan"), 0.1]])
def test_what_is_no_sigma_is_refused(table):
    with pytest.raises(ValueError, match="sigma must be a list"):
        chain_of_sigma(torch.tensor(table))
