"""Whether weights are those of a network: their names and shapes, and what these say of its architecture."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

State = Mapping[str, Tensor]
"""The weights of a network by name."""

ENDS = ("conv_in.weight", "conv_out.weight")
"""The names of a ``UNet``'s first and last layer."""


@dataclass(frozen=True)
class Architecture:
    """What the shapes of a network's weights say of it.

    Attributes:
        channels: the number of channels of the images.
        out_channels: the number of channels of the output.
        base_channels: the width of the first level.
        multipliers: the widths of all levels, in units of the first.
        blocks: the number of residual blocks per level.
        attention_levels: the levels with attention; level 0 has the largest side.
    """

    channels: int
    out_channels: int
    base_channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention_levels: tuple[int, ...]

    def by_field(self) -> dict[str, object]:
        """Return the values by the names that messages use: those of the specification's fields, if any."""
        return {
            "data.channels": self.channels,
            "out_channels": self.out_channels,
            "network.base_channels": self.base_channels,
            "network.multipliers": self.multipliers,
            "network.blocks": self.blocks,
            "levels with attention (the largest side is 0)": self.attention_levels,
        }


def architecture(weights: State) -> Architecture | None:
    """Read off the weights of a ``UNet`` what their shapes say, None if they lack its first or last layer."""
    ends = [weights[name] for name in ENDS if name in weights]
    if [end.dim() for end in ends] != [4, 4]:
        return None
    base_channels, channels = weights[ENDS[0]].shape[:2]
    if base_channels == 0:
        return None
    widths: list[int] = []
    while (name := f"down.{len(widths)}.block.0.conv1.weight") in weights:
        widths.append(sum(weights[name].shape[:1]))
    blocks = 0
    while f"down.0.block.{blocks}.conv1.weight" in weights:
        blocks += 1
    attention = (level for level in range(len(widths)) if f"down.{level}.attn.0.q.weight" in weights)
    return Architecture(
        channels=channels,
        out_channels=len(weights[ENDS[1]]),
        base_channels=base_channels,
        multipliers=tuple(width // base_channels for width in widths),
        blocks=blocks,
        attention_levels=tuple(attention),
    )


def check_weights(weights: State, network: nn.Module, source: object) -> None:
    """Check that ``weights`` have the names, shapes and kinds of numbers of ``network``, and are finite.

    Args:
        weights: the weights by name.
        network: a network of the expected architecture; it may be on the meta device.
        source: where the weights came from, for the message.

    Raises:
        ValueError: if they differ (the first field that differs is named), or a weight is not finite or of
            another kind (such as integers).
    """
    expected = network.state_dict()
    if _shapes(weights) != _shapes(expected):
        raise ValueError(_difference(weights, expected, source))
    for name, value in weights.items():
        if value.is_floating_point() != expected[name].is_floating_point():
            raise ValueError(f"{source}: weight {name} holds numbers of type {value.dtype}")
        if not bool(value.isfinite().all()):
            raise ValueError(
                f"{source}: weight {name} holds values that are not finite (did the training diverge?)"
            )


def _shapes(weights: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


def _difference(weights: State, expected: State, source: object) -> str:
    """Say in which field of the architecture, or else in which names or shapes, weights differ."""
    found, wanted = architecture(weights), architecture(expected)
    if found is not None and wanted is not None:
        values = found.by_field()
        for name, value in wanted.by_field().items():
            if values[name] != value:
                return f"{source}: {name} is {values[name]} in the weights, but {value} in the specification"
    unknown = weights.keys() - expected.keys()
    if unknown:
        return f"{source} holds weights that this network does not have: {_some(unknown)}"
    missing = expected.keys() - weights.keys()
    if missing:
        return f"{source} lacks weights of this network: {_some(missing)}"
    shapes, needed = _shapes(weights), _shapes(expected)
    name = next(name for name in needed if shapes[name] != needed[name])
    return f"{source}: {name} has shape {shapes[name]}, but this network's is {needed[name]}"


def _some(names: Iterable[str]) -> str:
    first, *rest = sorted(names)
    return f"{first} and {len(rest)} more" if rest else first
