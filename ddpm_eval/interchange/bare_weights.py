"""Bare weights named as in pesser/pytorch_diffusion, whose names are this project's.

They come without a configuration: the network is read off their shapes, and the rest is what the authors
published, unless it is set.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ddpm_eval.interchange.model_description import ModelDescription
from ddpm_eval.training.weights import Architecture, architecture

ATTENTION_SIDE = 16
"""The side in pixels of the level with attention in the authors' networks."""
FIXED_LARGE_SIDE = 32
"""The side of the images whose model the authors published with the variance fixed-large (CIFAR-10)."""
NORM_GROUPS = 32


def describe_bare_weights(
    weights: Mapping[str, Tensor], settings: Mapping[str, str], source: Path
) -> ModelDescription:
    """Describe the model that bare weights belong to.

    Args:
        weights: the weights by name.
        settings: fields of the specification, of which ``data.side`` and ``network.norm_groups`` replace what
            the weights do not say.
        source: where the weights came from, for messages.

    Raises:
        ValueError: if the weights are named in another way, or the side of the images is unknown.
    """
    found = _architecture(weights, source)
    side = _side(found, settings.get("data.side", ""), source)
    groups = settings.get("network.norm_groups", "")
    return ModelDescription(
        channels=found.channels,
        side=side,
        network={
            "base_channels": found.base_channels,
            "multipliers": found.multipliers,
            "blocks": found.blocks,
            "attention_sides": [side >> level for level in found.attention_levels],
            "norm_groups": int(groups) if groups.isdigit() else NORM_GROUPS,
        },
        diffusion={"variance": "fixed-large" if side == FIXED_LARGE_SIDE else "fixed-small"},
    )


def _architecture(weights: Mapping[str, Tensor], source: Path) -> Architecture:
    if "time_embed.0.weight" in weights:
        raise ValueError(
            f"{source} is a model of openai/improved-diffusion, whose network differs from the paper's in "
            "its time embedding (cos before sin, other frequencies), padding and normalisation epsilon: it "
            "cannot be imported"
        )
    found = architecture(weights)
    if "temb.dense.0.weight" not in weights or found is None:
        raise ValueError(
            f"{source} is not named as pesser/pytorch_diffusion's weights (of diffusers' give the folder)"
        )
    return found


def _side(found: Architecture, setting: str, source: Path) -> int:
    """Return the side of the images: as set, or else from the level with attention."""
    if setting.isdigit():
        return int(setting)
    if len(found.attention_levels) != 1:
        raise ValueError(f"{source} does not say how large its images are: set data.side")
    return ATTENTION_SIDE << found.attention_levels[0]
