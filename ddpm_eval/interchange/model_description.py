"""What another project's model says of itself, in the terms of our specification."""

from dataclasses import dataclass

from ddpm_eval.spec import RunSpec
from ddpm_eval.spec_text import parse

PRESET = "imported"
"""The preset that an imported run's specification names."""

SMALL_SIDE = 32
SMALL_EVALUATION = {"n_samples": 50_000, "n_train_images": 10_000, "n_curve": 2_560}
"""How much of a model of images up to `SMALL_SIDE` is measured unless set: as of the published presets."""
LARGE_EVALUATION = {"n_samples": 50_000, "n_train_images": 1_000}
"""How much of a model of larger images is measured unless set: as of the published presets."""


@dataclass(frozen=True)
class ModelDescription:
    """What another project's model says of itself.

    Attributes:
        channels: the number of channels of its images.
        side: the side of its images in pixels.
        network: fields of `ddpm_eval.spec.NetworkSpec`.
        diffusion: fields of `ddpm_eval.spec.DiffusionSpec`.
    """

    channels: int
    side: int
    network: dict[str, object]
    diffusion: dict[str, object]

    def specification(self, data: str, preset: str = PRESET) -> RunSpec:
        """Return the specification of a run with this model, of whose training nothing is known.

        Args:
            data: the name of the data set that it models.
            preset: what stands in the place of a preset's name.

        Raises:
            ValueError: if a field has a value that ours cannot have.
        """
        document = {
            "preset": preset,
            "data": {"name": data, "channels": self.channels, "side": self.side},
            "network": self.network,
            "diffusion": self.diffusion,
            "train": {"steps": 1, "batch_size": 1},
            "evaluation": SMALL_EVALUATION if self.side <= SMALL_SIDE else LARGE_EVALUATION,
        }
        return parse(document)
