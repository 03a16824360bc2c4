"""A description becomes the specification of a run of whose training nothing is known."""

import pytest

from ddpm_eval.interchange.model_description import ModelDescription

NETWORK = {"base_channels": 8, "multipliers": [1, 2], "norm_groups": 4}


@pytest.mark.parametrize(("side", "n_train_images"), [(8, 10_000), (32, 10_000), (64, 1_000)])
def test_what_is_described_is_in_the_specification(side: int, n_train_images: int) -> None:
    description = ModelDescription(3, side, NETWORK, {"variance": "fixed-small"})
    spec = description.specification("cifar10")
    assert (spec.preset, spec.data.name, spec.data.channels, spec.data.side) == (
        "imported",
        "cifar10",
        3,
        side,
    )
    assert (spec.network.base_channels, spec.network.multipliers) == (8, (1, 2))
    assert (spec.diffusion.variance, spec.diffusion.timesteps) == ("fixed-small", 1000)
    # as much is measured as of the published presets, of which those of large images measure less
    assert (spec.evaluation.n_samples, spec.evaluation.n_train_images) == (50_000, n_train_images)


def test_a_value_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="channels is 2"):
        ModelDescription(2, 8, NETWORK, {}).specification("cifar10")
