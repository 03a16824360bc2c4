"""What a run is: every choice that shapes its numbers, validated, frozen, and identified by a digest.

A `RunSpec` nests one frozen model per stage. It survives JSON unchanged and refuses unknown fields. Its
training digest covers exactly what the weights after n updates depend on: the seed, data, network, diffusion
and training but for its length. Nothing that belongs to a machine (device, paths, batch size of an
evaluation) is part of it. How a specification is read from text is in `ddpm_eval.spec_text`.

Counts and sizes have upper limits, the constants below. They lie far above all that has been published, and
refuse what no machine could hold or finish before anything is allocated.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

Prediction = Literal["eps", "mu", "x0"]
"""What networks that are trained here may predict."""
Predicted = Literal[Prediction, "v", "score"]
"""What any network may predict."""
Objective = Literal["vlb", "mse"]
Variance = Literal["fixed-large", "fixed-small", "learned", "learned-range"]
ScheduleName = Literal["linear", "quadratic", "constant", "cosine"]
Table = Literal["table"]
"""Stands for a schedule or a reverse variance that a named network brings as a table of its own."""
Method = Literal["ancestral", "ddim"]
Decoder = Literal["exact", "tanh"]
TimeSampling = Literal["uniform", "importance"]
"""How the times of a training batch are drawn."""
Spacing = Literal["trailing", "leading", "linspace"]
"""How the times of a shorter chain are spaced; the names are diffusers'."""

LARGEST_SIDE = 4096
"""Pixels."""
WIDEST_LEVEL = 2**14
"""Channels of a level, and of the first one."""
MOST_LEVELS = 12
MOST_BLOCKS = 64
MOST_TIMESTEPS = 10**6
MOST_UPDATES = 10**9
LARGEST_BATCH = 2**20
MOST_IMAGES = 10**9
MOST_SAMPLES = 10**7
MOST_SHOWN = 10**4
"""Samples of which the whole reverse process is kept."""
LONGEST_NAME = 4096
"""Characters of a name, as of a path."""

Multiplier = Annotated[int, Field(ge=1, le=WIDEST_LEVEL)]
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


class Frozen(BaseModel):
    """The base of all specifications: immutable, without unknown fields, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def digest(self) -> str:
        """Return 12 hexadecimal digits that identify the content."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class DataSpec(Frozen):
    """The images: a data set's name and the shape the network sees."""

    name: str = Field(
        max_length=LONGEST_NAME,
        description="digits, mnist, cifar10, ..., npz:FILE, folder:DIR, lsun:CATEGORY",
    )
    channels: Literal[1, 3]
    side: int = Field(ge=2, le=LARGEST_SIDE, description="pixels")
    flips: bool = Field(default=False, description="random horizontal flips in training")

    @property
    def folder_name(self) -> str:
        """The name of the folder of all runs on these images, such as ``npz-faces``."""
        kind, _, place = self.name.rpartition(":")
        return "-".join(re.findall(r"[\w.+]+", f"{kind} {PurePath(place).stem}"))


class NetworkSpec(Frozen):
    """The U-Net: widths, depth, attention."""

    base_channels: int = Field(ge=4, le=WIDEST_LEVEL)
    multipliers: tuple[Multiplier, ...] = Field(min_length=1, max_length=MOST_LEVELS)
    blocks: int = Field(default=2, ge=1, le=MOST_BLOCKS, description="residual blocks per level")
    attention_sides: tuple[Side, ...] = Field(
        default=(16,), max_length=MOST_LEVELS, description="sides in pixels of the levels with attention"
    )
    norm_groups: int = Field(default=32, ge=1, le=WIDEST_LEVEL)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _widths_divisible_by_groups(self) -> Self:
        if self.base_channels % 2:
            raise ValueError(
                f"base_channels is {self.base_channels}, but the time embedding needs an even number"
            )
        for width in {self.base_channels * m for m in self.multipliers} | {self.base_channels}:
            if width > WIDEST_LEVEL:
                raise ValueError(f"a level has {width} channels, but {WIDEST_LEVEL} are the most")
            if width % self.norm_groups:
                raise ValueError(
                    f"a level has {width} channels, which {self.norm_groups} normalisation groups do not "
                    "divide (set network.norm_groups)"
                )
        return self

    @property
    def downsampling(self) -> int:
        """The factor by which the side shrinks from the first to the last level."""
        return 2 ** (len(self.multipliers) - 1)

    def check_side(self, side: int) -> None:
        """Raise ValueError unless ``side`` (pixels) can be halved at each level."""
        if side % self.downsampling:
            raise ValueError(
                f"images are {side} pixels wide, but a network with {len(self.multipliers)} levels needs a "
                f"side divisible by {self.downsampling} (did you mean another preset, or fewer "
                "network.multipliers?)"
            )


class NamedNetwork(Frozen):
    """A network of any kind that a function returns, and what is known of it without calling the function."""

    reference: str = Field(max_length=LONGEST_NAME, description="package.module:function")
    arguments: tuple[tuple[str, str], ...] = Field(
        description="of the function: names and values, these as JSON or plain text"
    )
    weights: str = Field(
        pattern=r"^[0-9a-f]{12}$",
        description="digest of its parameters and buffers, and of all else that its output depends on",
    )
    parameters: int = Field(ge=0, description="their number")
    conditional: bool = Field(description="whether it takes classes")
    clip_samples: bool = Field(description="whether samples are drawn with x_0 estimates clipped")


class DiffusionSpec(Frozen):
    """The forward process and what the network is trained to predict."""

    timesteps: int = Field(default=1000, ge=2, le=MOST_TIMESTEPS)
    schedule: ScheduleName | Table = "linear"
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    prediction: Predicted = "eps"
    objective: Objective = "mse"
    variance: Variance | Table = "fixed-large"
    training_decoder: Decoder = Field(
        default="exact",
        description="the decoder in the loss of objective vlb: the exact normal CDF, or the authors' tanh "
        "approximation with its floor of 1e-12; objective mse has no decoder",
    )

    @model_serializer(mode="wrap")
    def _without_the_exact_decoder(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave the exact decoder out, so that the digests and keys of runs from before the field hold."""
        document: dict[str, object] = handler(self)
        if self.training_decoder == "exact":
            document.pop("training_decoder", None)
        return document

    @model_validator(mode="after")
    def _learned_variance_needs_the_bound(self) -> Self:
        if self.learns_variance and self.objective == "mse":
            raise ValueError(
                "a learned variance needs objective vlb: the mean squared error does not train a variance"
            )
        return self

    @property
    def variance_name(self) -> Variance:
        """The name of the reverse variance.

        Raises:
            ValueError: if it is a table of a named network.
        """
        if self.variance == "table":
            raise ValueError("the reverse variance is a table that only the network's own model has")
        return self.variance

    @property
    def learns_variance(self) -> bool:
        """Whether the network has a second head for the reverse variance."""
        return self.variance.startswith("learned")

    @property
    def decides_the_weights(self) -> "DiffusionSpec":
        """The same without what training does not depend on: objective mse has no decoder."""
        return self if self.objective == "vlb" else self.model_copy(update={"training_decoder": "exact"})


class TrainSpec(Frozen):
    """Optimisation."""

    steps: int = Field(ge=1, le=MOST_UPDATES, description="parameter updates")
    batch_size: int = Field(
        default=128, ge=1, le=LARGEST_BATCH, description="images per update, over all processes"
    )
    learning_rate: float = Field(default=2e-4, gt=0)
    warmup_steps: int = Field(
        default=5000, ge=0, le=MOST_UPDATES, description="linear warm-up of the learning rate"
    )
    clip_norm: float = Field(default=1.0, gt=0, description="global gradient norm")
    ema_decay: float = Field(default=0.9999, ge=0, lt=1)
    checkpoint_steps: int = Field(
        default=5000, ge=1, le=MOST_UPDATES, description="updates between checkpoints"
    )
    time_sampling: TimeSampling = Field(
        default="uniform",
        description="of the times of a batch; importance, for objective vlb: in proportion to the weight of "
        "the squared error of eps in L, with the loss divided by that probability",
    )

    @model_serializer(mode="wrap")
    def _without_uniform_times(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave uniform times out, so that the digests and keys of runs from before the field hold."""
        document: dict[str, object] = handler(self)
        if self.time_sampling == "uniform":
            document.pop("time_sampling", None)
        return document


class EvaluationSpec(Frozen):
    """How much is measured: part of each stored result, but not of the training digest."""

    n_samples: int = Field(ge=2, le=MOST_SAMPLES)
    n_train_images: int = Field(
        ge=2,
        le=MOST_IMAGES,
        description="training images, at most, whose bound is evaluated beside the test set's",
    )
    n_test_images: int | None = Field(
        default=None, ge=2, le=MOST_IMAGES, description="test images whose bound is evaluated; null: all"
    )
    n_full_images: int | None = Field(
        default=None,
        ge=2,
        le=MOST_IMAGES,
        description="of these, images of either split of which all T terms are evaluated; null: all",
    )
    n_progressive: int = Field(
        default=8,
        ge=1,
        le=MOST_SHOWN,
        description="samples whose x0_hat is kept over the reverse process",
    )
    n_curve: int = Field(
        default=0,
        ge=0,
        le=MOST_SAMPLES,
        description="samples (n_samples at most) behind quality over the reverse process and over sampling "
        "steps, and behind nearest neighbours; 0: none of these",
    )
    spacing: Spacing = Field(
        default="trailing", description="of the times that samples of fewer steps visit, see docs/quality.md"
    )
    n_score_splits: int = Field(default=10, ge=1, le=MOST_SAMPLES)
    evaluations_per_image: int = Field(
        default=20, ge=2, le=MOST_TIMESTEPS, description="of the stratified estimator"
    )

    @property
    def curve_samples(self) -> int:
        """The number of samples behind the quality curves."""
        return min(self.n_curve, self.n_samples)


def _kind_of_network(value: object) -> str:
    named = "reference" in value if isinstance(value, dict) else isinstance(value, NamedNetwork)
    return NAMED if named else UNET


UNET, NAMED = NETWORK_KINDS = ("unet", "named")
AnyNetwork = Annotated[
    Annotated[NetworkSpec, Tag(UNET)] | Annotated[NamedNetwork, Tag(NAMED)], Discriminator(_kind_of_network)
]
TRAINED_HERE: Mapping[str, tuple[str, ...]] = {
    "prediction": get_args(Prediction),
    "schedule": get_args(ScheduleName),
    "variance": get_args(Variance),
}
"""What the diffusion of a network that is trained here may be."""


class RunSpec(Frozen):
    """One run: one trained model and all that is measured of it."""

    preset: str = Field(max_length=LONGEST_NAME)
    seed: int = Field(default=0, ge=0, lt=2**63)
    data: DataSpec
    network: AnyNetwork
    diffusion: DiffusionSpec
    train: TrainSpec
    evaluation: EvaluationSpec

    @model_validator(mode="after")
    def _importance_sampling_is_of_the_bound(self) -> Self:
        if self.train.time_sampling == "importance" and self.diffusion.objective == "mse":
            raise ValueError(
                "importance sampling of the times needs objective vlb: L_simple weights all times alike"
            )
        return self

    @model_validator(mode="after")
    def _side_and_chain_fit_the_network(self) -> Self:
        if isinstance(self.network, NamedNetwork):
            return self
        self.network.check_side(self.data.side)
        for name, allowed in TRAINED_HERE.items():
            value = getattr(self.diffusion, name)
            if value not in allowed:
                raise ValueError(
                    f"diffusion.{name} is {value!r}, but networks that are trained here have one of "
                    f"{', '.join(allowed)} (any other network can be measured by --network)"
                )
        return self

    @property
    def is_conditional(self) -> bool:
        """Whether the network takes classes, which no network does that is trained here."""
        return isinstance(self.network, NamedNetwork) and self.network.conditional

    @property
    def unet(self) -> NetworkSpec:
        """The sizes of the network, which is a U-Net of this project.

        Raises:
            ValueError: if it is another one, that was named.
        """
        if isinstance(self.network, NamedNetwork):
            raise ValueError(
                f"{self.network.reference} is no U-Net of this project: it is measured, but neither trained "
                "nor exported"
            )
        return self.network

    @property
    def out_channels(self) -> int:
        """The number of channels of the network's output."""
        return self.data.channels * (2 if self.diffusion.learns_variance else 1)

    @property
    def cell(self) -> str:
        """The name of its ablation cell, such as ``eps-mse-fixed-large``."""
        return f"{self.diffusion.prediction}-{self.diffusion.objective}-{self.diffusion.variance}"

    def training_digest(self) -> str:
        """Return the digest of everything that training depends on, but for its number of updates."""
        return _TrainingChoices(
            seed=self.seed,
            data=self.data,
            network=self.network,
            diffusion=self.diffusion.decides_the_weights,
            train=self.train.model_copy(update={"steps": 1, "checkpoint_steps": 1}),
        ).digest()


class _TrainingChoices(Frozen):
    seed: int
    data: DataSpec
    network: AnyNetwork
    diffusion: DiffusionSpec
    train: TrainSpec
