"""The network and the reverse process are those that the specification describes."""

import pytest
import torch
from tiny import CELLS, TINY, cell

from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.training.build import build_network, trained_process


def test_the_seed_of_the_initialisation_is_used():
    first, again, other = (build_network(TINY, seed).conv_in.weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(("prediction", "objective", "variance"), CELLS)
def test_the_process_is_of_the_runs_cell(prediction, objective, variance):
    spec = cell(prediction, objective, variance)
    process = trained_process(spec, build_network(spec), clip=True)
    assert process.prediction == prediction and process.clip
    assert process.schedule.timesteps == spec.diffusion.timesteps
    if variance.startswith("learned"):
        assert process.variance == variance
    else:
        expected = make_schedule(spec.diffusion).fixed_variance(variance)
        assert torch.equal(process.variance[1:], expected[1:])  # there is none at t = 0
    x, t = torch.zeros(2, 1, 8, 8), torch.tensor([1, 20])
    assert process(x, t).mean.shape == x.shape


def test_the_process_is_on_the_networks_device():
    with torch.device("meta"):
        network = build_network(TINY)
    assert trained_process(TINY, network, clip=False).schedule.beta.device.type == "meta"
