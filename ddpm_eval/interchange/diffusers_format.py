"""The format of diffusers' DDPM folders: configurations and names of weights, read and written.

docs/interchange.md says what maps. A configuration that does not map exactly is refused with the field that
differs. diffusers itself is not needed.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from torch import Tensor

from ddpm_eval.interchange.model_description import ModelDescription
from ddpm_eval.interchange.weight_files import WEIGHTS_NAMES, read_tensors
from ddpm_eval.model.unet import NORM_EPSILON, UNet
from ddpm_eval.spec import DiffusionSpec, RunSpec

Document = dict[str, object]
"""A configuration as JSON."""
Required = Mapping[str, tuple[object, object]]

REQUIRED_OF_NETWORK: Required = {
    "_class_name": ("UNet2DModel", "UNet2DModel"),
    "act_fn": ("silu", "silu"),
    "center_input_sample": (False, False),
    "time_embedding_type": ("positional", "positional"),
    "flip_sin_to_cos": (False, True),
    "freq_shift": (1, 0),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "conv"),
    "upsample_type": ("conv", "conv"),
    "norm_eps": (NORM_EPSILON, 1e-5),
    "mid_block_type": ("UNetMidBlock2D", "UNetMidBlock2D"),
    "mid_block_scale_factor": (1, 1),
    "add_attention": (True, True),
    "attn_norm_num_groups": (None, None),
    "resnet_time_scale_shift": ("default", "default"),
    "time_embedding_dim": (None, None),
    "class_embed_type": (None, None),
    "num_class_embeds": (None, None),
}
"""What a UNet2DModel must say to be our network, and diffusers' default where it leaves the field out."""
REQUIRED_OF_SCHEDULER: Required = {
    "_class_name": ("DDPMScheduler", "DDPMScheduler"),
    "trained_betas": (None, None),
    "clip_sample": (True, True),
    "clip_sample_range": (1.0, 1.0),
    "thresholding": (False, False),
    "steps_offset": (0, 0),
    "rescale_betas_zero_snr": (False, False),
}
"""What a DDPMScheduler must say to be our chain, and diffusers' default where it leaves the field out."""

SCHEDULES = {"linear": "linear", "scaled_linear": "quadratic", "squaredcos_cap_v2": "cosine"}
VARIANCES = {
    "fixed_small": "fixed-small",
    "fixed_small_log": "fixed-small",
    "fixed_large": "fixed-large",
    "learned_range": "learned-range",
}
PREDICTIONS = {"epsilon": "eps", "sample": "x0"}
TRAINING_NAME = "training_config.json"
"""A file of ours beside the pipeline's: diffusers has no field that says what a network was trained on."""
TRAINING_FIELDS = ("objective", "training_decoder")
READ_ONLY = "fixed_small_log"  # one variance has two names; the other one is written

TO_DIFFUSERS = (
    (r"^temb\.dense\.0\.", "time_embedding.linear_1."),
    (r"^temb\.dense\.1\.", "time_embedding.linear_2."),
    (r"^norm_out\.", "conv_norm_out."),
    (r"^mid\.block_1\.", "mid_block.resnets.0."),
    (r"^mid\.block_2\.", "mid_block.resnets.1."),
    (r"^mid\.attn_1\.", "mid_block.attentions.0."),
    (r"^(down|up)\.(\d+)\.", r"\1_blocks.\2."),
    (r"\.block\.", ".resnets."),
    (r"\.attn\.", ".attentions."),
    (r"\.(down|up)sample\.", r".\1samplers.0."),
    (r"\.temb_proj\.", ".time_emb_proj."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
    (r"\.proj_out\.", ".to_out.0."),
)
"""The substitutions, in this order, that turn our weights' names into diffusers'."""
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""The names of attention's weights in diffusers before 0.15, and since."""


class NetworkConfig(BaseModel):
    """The fields of diffusers' UNet2DModel that may differ, with its defaults."""

    model_config = ConfigDict(strict=True, frozen=True)

    sample_size: PositiveInt
    block_out_channels: list[PositiveInt] = Field(min_length=1)
    down_block_types: list[str]
    up_block_types: list[str]
    in_channels: int = 3
    layers_per_block: int = 2
    norm_num_groups: int = 32
    dropout: float = 0.0
    attention_head_dim: int | None = None  # left out only by the authors' converted models: one head


def read_diffusers(folder: Path) -> tuple[dict[str, Tensor], ModelDescription]:
    """Read a pipeline's folder, with ``unet`` and ``scheduler`` inside, or flat as the first ones were.

    Returns:
        The weights under diffusers' names, and the description of the model.

    Raises:
        ValueError: if a file is missing or damaged, or a field says that the model is not one of ours.
    """
    weights = weights_of(folder)
    schedulers = (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
    scheduler = next((path for path in schedulers if path.exists()), None)
    if scheduler is None:
        raise ValueError(f"{folder} holds no scheduler_config.json, which says the noise schedule")
    network_path = weights.parent / "config.json"
    network = _read_network_config(network_path)
    description = ModelDescription(
        channels=network.in_channels,
        side=network.sample_size,
        network=_network_fields(network, network_path),
        diffusion=_diffusion_fields(scheduler) | _training_fields(folder / TRAINING_NAME),
    )
    return read_tensors(weights), description


def weights_of(folder: Path) -> Path:
    """Return the path of the weights in a pipeline's folder.

    Raises:
        ValueError: if it holds none.
    """
    inner = folder / "unet" if (folder / "unet").is_dir() else folder
    files = [inner / name for name in WEIGHTS_NAMES if (inner / name).exists()]
    if not files:
        raise ValueError(f"{inner} holds neither {' nor '.join(WEIGHTS_NAMES)}: it is no diffusers model")
    return files[0]


def pipeline_config() -> Document:
    """Return the configuration of diffusers' DDPMPipeline."""
    return {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": "0.30.0",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }


def network_config(spec: RunSpec) -> Document:
    """Return the configuration of the UNet2DModel that is the run's network."""
    network = spec.unet
    sides = (spec.data.side >> level for level in range(len(network.multipliers)))
    attention = [side in network.attention_sides for side in sides]
    return {
        **{key: needed for key, (needed, _) in REQUIRED_OF_NETWORK.items()},
        "sample_size": spec.data.side,
        "in_channels": spec.data.channels,
        "out_channels": spec.out_channels,
        "block_out_channels": [network.base_channels * m for m in network.multipliers],
        "down_block_types": ["AttnDownBlock2D" if has else "DownBlock2D" for has in attention],
        "up_block_types": ["AttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)],
        "layers_per_block": network.blocks,
        "attention_head_dim": None,
        "norm_num_groups": network.norm_groups,
        "dropout": network.dropout,
    }


def scheduler_config(diffusion: DiffusionSpec) -> Document:
    """Return the configuration of the DDPMScheduler that is the run's chain.

    Raises:
        ValueError: if diffusers has no such chain; the field is named.
    """
    constant = diffusion.schedule == "constant"  # a linear schedule from beta_end to beta_end
    return {
        **{key: needed for key, (needed, _) in REQUIRED_OF_SCHEDULER.items()},
        "num_train_timesteps": diffusion.timesteps,
        "beta_schedule": "linear"
        if constant
        else _diffusers_value("schedule", diffusion.schedule, SCHEDULES),
        "beta_start": diffusion.beta_end if constant else diffusion.beta_start,
        "beta_end": diffusion.beta_end,
        "prediction_type": _diffusers_value("prediction", diffusion.prediction, PREDICTIONS),
        "variance_type": _diffusers_value("variance", diffusion.variance, VARIANCES),
    }


def training_config(diffusion: DiffusionSpec) -> Document:
    """Return what the run was trained on, the content of `TRAINING_NAME`."""
    return {name: getattr(diffusion, name) for name in TRAINING_FIELDS}


def weights_for_diffusers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of our network for diffusers' UNet2DModel.

    The 1x1 convolutions of attention become matrices.
    """
    levels = len({name.split(".")[1] for name in weights if name.startswith("up.")})
    renamed = {_diffusers_name(name, levels): value for name, value in weights.items()}
    matrix = re.compile(r"attentions.*\.to_.*weight")
    return {name: value.flatten(1) if matrix.search(name) else value for name, value in renamed.items()}


def weights_from_diffusers(weights: Mapping[str, Tensor], network: UNet) -> dict[str, Tensor]:
    """Rename the weights of diffusers' UNet2DModel, in its old or new naming, for our network.

    Names that are not known stay as they are.
    """
    expected = network.state_dict()
    ours = {_diffusers_name(name, len(network.down)): name for name in expected}
    renamed = {}
    for name, value in weights.items():
        new = re.sub(
            r"(attentions\.\d+)\.(\w+)\.", lambda m: f"{m[1]}.{OLD_ATTENTION.get(m[2], m[2])}.", name
        )
        name = ours.get(new, name)
        matrix = name in expected and expected[name].ndim == 4 and value.ndim == 2
        renamed[name] = value[:, :, None, None] if matrix else value
    return renamed


def _diffusers_name(name: str, levels: int) -> str:
    # diffusers counts the levels of the way up in the order of their use
    name = re.sub(r"^up\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", name)
    for pattern, replacement in TO_DIFFUSERS:
        name = re.sub(pattern, replacement, name)
    return name


def _diffusers_value(field: str, value: str, names: Mapping[str, str]) -> str:
    """Return diffusers' name of one of our values."""
    found = {ours: theirs for theirs, ours in names.items() if theirs != READ_ONLY}
    if value not in found:
        raise ValueError(
            f"the run's diffusion.{field} is {value}, which diffusers does not have ({', '.join(found)})"
        )
    return found[value]


def _read_network_config(path: Path) -> NetworkConfig:
    config = _read_json(path)
    _require(config, REQUIRED_OF_NETWORK, path)
    try:
        return NetworkConfig.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        message = first["msg"][0].lower() + first["msg"][1:]
        raise ValueError(f"{path}: {key} is {config.get(key)}: {message}") from None


def _network_fields(config: NetworkConfig, path: Path) -> Document:
    """Return the fields of our network; raise ValueError where it has none for the configuration."""
    widths = config.block_out_channels
    if any(width % widths[0] for width in widths):
        raise ValueError(
            f"{path}: block_out_channels is {widths}, but this network's widths are multiples of the first"
        )
    attention = _attention(config, path)
    attending = {width for width, has in zip(widths, attention, strict=True) if has} | {widths[-1]}
    heads = config.attention_head_dim
    if heads is not None and attending != {heads}:
        raise ValueError(f"{path}: attention_head_dim is {heads}, but this network has one head (null)")
    return {
        "base_channels": widths[0],
        "multipliers": [width // widths[0] for width in widths],
        "blocks": config.layers_per_block,
        "attention_sides": [config.sample_size >> level for level, has in enumerate(attention) if has],
        "norm_groups": config.norm_num_groups,
        "dropout": config.dropout,
    }


def _attention(config: NetworkConfig, path: Path) -> list[bool]:
    """Return which levels have attention; raise ValueError unless it is the same on the way up."""
    down = config.down_block_types
    attention = [kind == "AttnDownBlock2D" for kind in down]
    mirrored = ["AttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)]
    if config.up_block_types != mirrored or not {*down} <= {"DownBlock2D", "AttnDownBlock2D"}:
        raise ValueError(
            f"{path}: up_block_types is {config.up_block_types}, but this network needs {mirrored}"
        )
    return attention


def _diffusion_fields(path: Path) -> Document:
    config = _read_json(path)
    _require(config, REQUIRED_OF_SCHEDULER, path)
    variance = _translate(config, "variance_type", "fixed_small", VARIANCES, path)
    return {
        "timesteps": config.get("num_train_timesteps", 1000),
        "schedule": _translate(config, "beta_schedule", "linear", SCHEDULES, path),
        "beta_start": config.get("beta_start", 1e-4),
        "beta_end": config.get("beta_end", 0.02),
        "prediction": _translate(config, "prediction_type", "epsilon", PREDICTIONS, path),
        "objective": "vlb" if variance == "learned-range" else "mse",
        "variance": variance,
    }


def _training_fields(path: Path) -> Document:
    """Return what a model that we exported was trained on; nothing is known of others."""
    config = _read_json(path) if path.exists() else {}
    return {name: config[name] for name in TRAINING_FIELDS if name in config}


def _require(config: Document, required: Required, path: Path) -> None:
    for key, (needed, default) in required.items():
        found = config.get(key, default)
        if found != needed:
            raise ValueError(f"{path}: {key} is {found}, but this project's models need {needed}")


def _translate(config: Document, key: str, default: str, names: Mapping[str, str], path: Path) -> str:
    """Return our name of one of diffusers' values."""
    found = config.get(key, default)
    if not isinstance(found, str) or found not in names:
        raise ValueError(f"{path}: {key} is {found}, which does not map (allowed: {', '.join(names)})")
    return names[found]


def _read_json(path: Path) -> Document:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is missing or not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds a {type(document).__name__}, not a configuration")
    return document
