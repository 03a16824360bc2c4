"""What is said of weights that are not those of a network."""

import pytest
import torch
from other_projects import SHAPES, network, run_spec

from ddpm_eval.training.weights import Architecture, architecture, check_weights

CHANGES = {
    "network.base_channels": ({"base_channels": 24}, "network.base_channels is 24 in the weights, but 16"),
    "network.multipliers": (
        {"multipliers": (1, 3)},
        r"network.multipliers is \(1, 3\) in the weights, but \(1, 2\)",
    ),
    "network.blocks": ({"blocks": 2}, "network.blocks is 2 in the weights, but 1"),
    "network.attention_sides": (
        {"attention_sides": (8,)},
        r"levels with attention .* is \(0,\) in the weights, but \(\)",
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_architecture_is_read_off_the_shapes(shape: str) -> None:
    spec = run_spec(shape)
    levels = range(len(spec.network.multipliers))
    assert architecture(network(spec).state_dict()) == Architecture(
        channels=spec.data.channels,
        out_channels=spec.out_channels,
        base_channels=spec.network.base_channels,
        multipliers=spec.network.multipliers,
        blocks=spec.network.blocks,
        attention_levels=tuple(
            level for level in levels if spec.data.side >> level in spec.network.attention_sides
        ),
    )
    assert architecture({"layer.weight": torch.zeros(3)}) is None


def test_a_networks_own_weights_are_accepted() -> None:
    ours = network(run_spec("digits"))
    check_weights(ours.state_dict(), ours, "file")


@pytest.mark.parametrize("field", CHANGES)
def test_weights_of_another_architecture_are_refused_with_the_field(field: str) -> None:
    change, message = CHANGES[field]
    spec = run_spec("digits")
    other = spec.model_copy(update={"network": spec.network.model_copy(update=change)})
    with pytest.raises(ValueError, match=f"^file: {message}"):
        check_weights(network(other).state_dict(), network(spec), "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label.weight": torch.zeros(3)}, "^file holds weights .* does not have: label.weight"),
        ({"mid.attn_1.q.weight": None}, "^file lacks weights of this network: mid.attn_1.q.weight"),
        (
            {"norm_out.bias": torch.zeros(3)},
            r"^file: norm_out.bias has shape \(3,\), but this network's is \(16,\)",
        ),
        (
            {"norm_out.bias": torch.full((16,), float("nan"))},
            "^file: weight norm_out.bias holds values that are not finite",
        ),
        ({"norm_out.bias": torch.zeros(16, dtype=torch.int8)}, "^file: weight norm_out.bias .* torch.int8"),
        ({"conv_in.weight": torch.zeros(())}, r"^file: conv_in.weight has shape \(\), but"),
        ({"conv_in.weight": torch.zeros(0, 1, 3, 3)}, r"^file: conv_in.weight has shape \(0, 1, 3, 3\), but"),
        (
            {"down.0.block.0.conv1.weight": torch.zeros(())},
            r"^file: network.multipliers is \(0, 2\) in the w",
        ),
    ],
)
def test_unknown_missing_misshapen_and_infinite_weights_are_named(
    change: dict[str, torch.Tensor | None], message: str
) -> None:
    ours = network(run_spec("digits"))
    weights = {name: value for name, value in (ours.state_dict() | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        check_weights(weights, ours, "file")
