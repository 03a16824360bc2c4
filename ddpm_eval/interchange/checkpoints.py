"""Other projects' models: import as runs, export to diffusers.

Read are diffusers' DDPM folders (from disk or the hub) and bare weights named as in pesser/pytorch_diffusion,
whose names are this project's; written are diffusers' folders. docs/interchange.md says what maps. A model
that does not map exactly is refused, never approximated. Only tensors are read: no pickled code is executed.
diffusers itself is not needed.
"""

import json
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ddpm_eval.data.datasets import NATIVE
from ddpm_eval.model.unet import NORM_EPSILON, UNet
from ddpm_eval.spec import DiffusionSpec, RunSpec
from ddpm_eval.spec_text import override, parse
from ddpm_eval.training.checkpoint import (
    FILE_NAME,
    RESULTS_NAME,
    Checkpoint,
    architecture,
    check_weights,
    load_network,
    save,
    write_tensors,
)

# What diffusers' UNet2DModel and DDPMScheduler must say for their model to be ours: the value,
# and diffusers' default where a configuration leaves the field out.
_REQUIRED_OF_NETWORK: dict[str, tuple[Any, Any]] = {
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
_REQUIRED_OF_SCHEDULER: dict[str, tuple[Any, Any]] = {
    "_class_name": ("DDPMScheduler", "DDPMScheduler"),
    "trained_betas": (None, None),
    "clip_sample": (True, True),
    "clip_sample_range": (1.0, 1.0),
    "thresholding": (False, False),
    "steps_offset": (0, 0),
    "rescale_betas_zero_snr": (False, False),
}
_SCHEDULES = {"linear": "linear", "scaled_linear": "quadratic", "squaredcos_cap_v2": "cosine"}
_VARIANCES = {
    "fixed_small": "fixed-small",
    "fixed_small_log": "fixed-small",
    "fixed_large": "fixed-large",
    "learned_range": "learned-range",
}
_PREDICTIONS = {"epsilon": "eps", "sample": "x0"}
_TO_DIFFUSERS = (  # our weights' names become diffusers' by these substitutions, in this order
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
_OLD_ATTENTION = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}  # diffusers before 0.15
SMALL_EVALUATION = {"n_samples": 50_000, "n_train_images": 10_000, "n_curve": 2_560}
LARGE_EVALUATION = {"n_samples": 50_000, "n_train_images": 1_000}
"""How much of an imported model is measured unless set: as of the published presets up to 32x32 and above."""
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_LAYOUT = {"sample_size": int, "block_out_channels": list, "down_block_types": list, "up_block_types": list}


def import_checkpoint(
    source: str | Path, out: Path, *, data: str, settings: Mapping[str, str] | None = None
) -> RunSpec:
    """Turn another project's model into a run that every command can measure.

    Args:
        source: a diffusers DDPM folder (UNet2DModel and DDPMScheduler), a hub id such as
            ``google/ddpm-cifar10-32``, or a file of bare weights named as in pesser/pytorch_diffusion (linear
            schedule and T = 1000 unless set).
        out: the run's folder.
        data: name of the data set it models, such as ``cifar10``.
        settings: fields of the specification that replace what was read, as for `spec.override`. Bare weights
            do not say the reverse variance: fixed-large at 32x32 and fixed-small above, as the authors
            published them, unless set.

    Returns:
        The specification of the run; its weights are both ``model/`` and ``ema/``. Of its ``train`` part
        nothing is known: the checkpoint has the status ``imported``, no updates and no optimiser state, and
        is never trained further.

    Raises:
        ValueError: if the source cannot be reached or read, its network or schedule is not one of ours (the
            field is named), its weights are incomplete or unknown, or ``out`` already holds a checkpoint or
            results.
    """
    for path in (out / FILE_NAME, out / RESULTS_NAME):
        if path.exists():
            raise ValueError(f"{path} exists already (name another folder with --out, or delete it)")
    path = _local(source)
    settings = dict(settings or {})
    if path.is_dir():
        weights, read = _read_diffusers(path)
    else:
        weights = _read_tensors(path)
        read = _bare_document(weights, settings, path)
    document = {
        "preset": "imported",
        "train": {"steps": 1, "batch_size": 1},
        "evaluation": SMALL_EVALUATION if read["data"]["side"] <= 32 else LARGE_EVALUATION,
        **read,
    }
    document["data"] = {**read["data"], "name": data}
    spec = override(parse(document), settings)
    _check_data(data, spec, path)
    with torch.device("meta"):
        network = UNet(spec.network, spec.data.channels, spec.data.side, spec.out_channels)
    weights = _named_as_ours(weights, network) if path.is_dir() else weights
    check_weights(weights, network, path)
    tensors = {
        f"{part}/{name}": value.float() for part in ("model", "ema") for name, value in weights.items()
    }
    tensors |= {"log/loss": torch.zeros(0), "log/gradient_norm": torch.zeros(0)}
    facts = {
        "status": "imported",
        "reason": f"imported from {source}",
        "seconds": 0.0,
        "threads": 0,
        "device": "unknown",
    }
    save(out / FILE_NAME, Checkpoint(spec, 0, tensors, facts))
    return spec


def _check_data(data: str, spec: RunSpec, source: Path) -> None:
    """Raise ValueError if a named data set has images of another shape than the model's."""
    found = (spec.data.channels, spec.data.side)
    if data in NATIVE and NATIVE[data] != found:
        ours, theirs = (f"{channels}x{side}x{side}" for channels, side in (found, NATIVE[data]))
        raise ValueError(
            f"{source} models images of {ours}, but {data} has {theirs} (name its data set with --data)"
        )


def export_checkpoint(run: Path, out: Path, *, format: Literal["diffusers"] = "diffusers") -> None:
    """Write a run's averaged weights as a folder that diffusers' ``DDPMPipeline.from_pretrained`` loads and
    samples.

    Args:
        run: the run's folder, or its checkpoint's file.
        out: the folder to write; it must not exist, or be empty.
        format: only ``diffusers``.

    Raises:
        ValueError: if diffusers has no such model (mu prediction, the learned diagonal variance), the run
            cannot be read, or ``out`` is not empty or cannot be written.
    """
    if format != "diffusers":
        raise ValueError(f"there is no export format {format!r} (only diffusers)")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder (name another one with --out)")
    spec, network = load_network(run)
    scheduler = scheduler_config(spec.diffusion)
    temporary = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    try:
        _write_json(temporary / "model_index.json", _pipeline_config())
        _write_json(temporary / "scheduler" / "scheduler_config.json", scheduler)
        _write_json(temporary / "unet" / "config.json", network_config(spec))
        tensors = weights_for_diffusers(network.state_dict())
        write_tensors(temporary / "unet" / "diffusion_pytorch_model.safetensors", tensors, {"format": "pt"})
        temporary.replace(out)
    except OSError as error:
        raise ValueError(f"cannot write {out} (disk full, or no permission?): {error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def weights_for_diffusers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of our network for diffusers' UNet2DModel, its 1x1 convolutions of attention as
    matrices.
    """
    levels = len({name.split(".")[1] for name in weights if name.startswith("up.")})
    renamed = {_diffusers_name(name, levels): value for name, value in weights.items()}
    matrix = re.compile(r"attentions.*\.to_.*weight")
    return {name: value.flatten(1) if matrix.search(name) else value for name, value in renamed.items()}


def _local(source: str | Path) -> Path:
    """Return the path of a source, fetched from the hub if it is an id."""
    if Path(source).exists():
        return Path(source)
    if isinstance(source, Path) or not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ValueError(
            f"there is no file or folder {source}, nor is that the id of a model on the hub (owner/name)"
        )
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(
            f"there is no folder {source}; to fetch it from the hub, pip install huggingface_hub"
        ) from None
    configs, safetensors, pickled = "*config.json", f"*{_WEIGHTS[0]}", f"*{_WEIGHTS[1]}"
    try:
        folder = Path(huggingface_hub.snapshot_download(source, allow_patterns=[configs, safetensors]))
        if not any(folder.rglob(safetensors)):
            folder = Path(huggingface_hub.snapshot_download(source, allow_patterns=[configs, pickled]))
    except Exception as error:  # the hub's errors share no base class between its versions
        raise ValueError(
            f"the hub could not deliver {source} (offline, or no such model?): {_first_line(error)}"
        ) from None
    return folder


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file or a pickle of nothing but tensors."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}
        with warnings.catch_warnings(action="ignore"):  # of unusual pickle protocols
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds other things than tensors (Python objects are never executed), or is damaged"
        ) from None
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is not a readable file of weights (truncated?): {_first_line(error)}"
        ) from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(
            f"{path} holds a {type(weights).__name__} of other things than tensors by name, not a state dict"
        )
    return weights


def _bare_document(weights: Mapping[str, Tensor], settings: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Describe bare weights by their shapes; the authors attend at 16x16, which gives the side."""
    if "time_embed.0.weight" in weights:
        raise ValueError(
            f"{path} is a model of openai/improved-diffusion, whose network differs from the paper's in its time embedding "
            "(cos before sin, other frequencies), padding and normalisation epsilon: it cannot be imported"
        )
    shape = architecture(weights)
    if "temb.dense.0.weight" not in weights or not shape:
        raise ValueError(
            f"{path} is not named as pesser/pytorch_diffusion's weights (of diffusers' give the folder)"
        )
    *_, levels = shape.values()
    text = settings.get("data.side", "")
    if not text.isdigit() and len(levels) != 1:
        raise ValueError(f"{path} does not say how large its images are: set data.side")
    side = int(text) if text.isdigit() else 16 << levels[0]
    network = {
        key.removeprefix("network."): value for key, value in shape.items() if key.startswith("network.")
    }
    if (groups := settings.get("network.norm_groups", "32")).isdigit():
        network["norm_groups"] = int(groups)
    return {
        "data": {"channels": shape["data.channels"], "side": side},
        "network": network | {"attention_sides": [side >> level for level in levels]},
        "diffusion": {"variance": "fixed-large" if side == 32 else "fixed-small"},
    }


def _read_diffusers(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a pipeline's folder, with ``unet`` and ``scheduler`` inside or flat as the first ones were."""
    inner = folder / "unet" if (folder / "unet").is_dir() else folder
    files = [inner / name for name in _WEIGHTS if (inner / name).exists()]
    if not files:
        raise ValueError(f"{inner} holds neither {' nor '.join(_WEIGHTS)}: it is no diffusers model")
    schedulers = (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
    scheduler = next((path for path in schedulers if path.exists()), None)
    if scheduler is None:
        raise ValueError(f"{folder} holds no scheduler_config.json, which says the noise schedule")
    document = _network_document(inner / "config.json") | {"diffusion": _diffusion_document(scheduler)}
    return _read_tensors(files[0]), document


def _network_document(path: Path) -> dict[str, Any]:
    config = _read_json(path)
    _require(config, _REQUIRED_OF_NETWORK, path)
    for key, kind in _LAYOUT.items():
        if not isinstance(config.get(key), kind):
            raise ValueError(f"{path}: {key} is {config.get(key)}, but must be of type {kind.__name__}")
    widths, side = config["block_out_channels"], config["sample_size"]
    if any(width % widths[0] for width in widths):
        raise ValueError(
            f"{path}: block_out_channels is {widths}, but this network's widths are multiples of the first"
        )
    attention = [kind == "AttnDownBlock2D" for kind in config["down_block_types"]]
    mirrored = ["AttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)]
    if config["up_block_types"] != mirrored or not {*config["down_block_types"]} <= {
        "DownBlock2D",
        "AttnDownBlock2D",
    }:
        raise ValueError(
            f"{path}: up_block_types is {config['up_block_types']}, but this network needs {mirrored}"
        )
    attending = {width for width, has in zip(widths, attention, strict=True) if has} | {widths[-1]}
    heads = config.get(
        "attention_head_dim"
    )  # left out only by the authors' converted models, which have one head
    if heads is not None and attending != {heads}:
        raise ValueError(f"{path}: attention_head_dim is {heads}, but this network has one head (null)")
    return {
        "data": {"channels": config.get("in_channels", 3), "side": side},
        "network": {
            "base_channels": widths[0],
            "multipliers": [width // widths[0] for width in widths],
            "blocks": config.get("layers_per_block", 2),
            "attention_sides": [side >> level for level, has in enumerate(attention) if has],
            "norm_groups": config.get("norm_num_groups", 32),
            "dropout": config.get("dropout", 0.0),
        },
    }


def _diffusion_document(path: Path) -> dict[str, Any]:
    config = _read_json(path)
    _require(config, _REQUIRED_OF_SCHEDULER, path)
    variance = _translate(config, "variance_type", "fixed_small", _VARIANCES, path)
    return {
        "timesteps": config.get("num_train_timesteps", 1000),
        "schedule": _translate(config, "beta_schedule", "linear", _SCHEDULES, path),
        "beta_start": config.get("beta_start", 1e-4),
        "beta_end": config.get("beta_end", 0.02),
        "prediction": _translate(config, "prediction_type", "epsilon", _PREDICTIONS, path),
        "objective": "vlb" if variance == "learned-range" else "mse",
        "variance": variance,
    }


def _require(config: Mapping[str, Any], required: Mapping[str, tuple[Any, Any]], path: Path) -> None:
    for key, (needed, default) in required.items():
        if (found := config.get(key, default)) != needed:
            raise ValueError(f"{path}: {key} is {found}, but this project's models need {needed}")


def _translate(
    config: Mapping[str, Any], key: str, default: str, names: Mapping[str, str], path: Path
) -> str:
    if (found := config.get(key, default)) not in names:
        raise ValueError(f"{path}: {key} is {found}, which does not map (allowed: {', '.join(names)})")
    return names[found]


def _named_as_ours(weights: Mapping[str, Tensor], network: UNet) -> dict[str, Tensor]:
    """Rename diffusers' weights, old or new naming; names that are not known stay as they are."""
    expected = network.state_dict()
    ours = {_diffusers_name(name, len(network.down)): name for name in expected}
    renamed = {}
    for name, value in weights.items():
        new = re.sub(
            r"(attentions\.\d+)\.(\w+)\.", lambda m: f"{m[1]}.{_OLD_ATTENTION.get(m[2], m[2])}.", name
        )
        name = ours.get(new, name)
        linear = name in expected and expected[name].ndim == 4 and value.ndim == 2
        renamed[name] = value[:, :, None, None] if linear else value
    return renamed


def _diffusers_name(name: str, levels: int) -> str:
    name = re.sub(
        r"^up\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", name
    )  # diffusers counts in order of use
    for pattern, replacement in _TO_DIFFUSERS:
        name = re.sub(pattern, replacement, name)
    return name


def _pipeline_config() -> dict[str, Any]:
    parts = {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    return {"_class_name": "DDPMPipeline", "_diffusers_version": "0.30.0", **parts}


def network_config(spec: RunSpec) -> dict[str, Any]:
    """Return the configuration of diffusers' UNet2DModel that is the run's network."""
    network = spec.network
    attention = [
        spec.data.side >> level in network.attention_sides for level in range(len(network.multipliers))
    ]
    return {
        **{key: needed for key, (needed, _) in _REQUIRED_OF_NETWORK.items()},
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


def scheduler_config(diffusion: DiffusionSpec) -> dict[str, Any]:
    """Return the configuration of diffusers' DDPMScheduler; raise ValueError, naming the field, where it has
    none.
    """
    predictions, schedules, variances = (
        {ours: theirs for theirs, ours in names.items() if theirs != "fixed_small_log"}
        for names in (_PREDICTIONS, _SCHEDULES, _VARIANCES)
    )
    for name, value, names in (
        ("prediction", diffusion.prediction, predictions),
        ("variance", diffusion.variance, variances),
    ):
        if value not in names:
            raise ValueError(
                f"the run's diffusion.{name} is {value}, which diffusers does not have ({', '.join(names)})"
            )
    constant = diffusion.schedule == "constant"  # a linear schedule from beta_end to beta_end
    return {
        **{key: needed for key, (needed, _) in _REQUIRED_OF_SCHEDULER.items()},
        "num_train_timesteps": diffusion.timesteps,
        "beta_schedule": "linear" if constant else schedules[diffusion.schedule],
        "beta_start": diffusion.beta_end if constant else diffusion.beta_start,
        "beta_end": diffusion.beta_end,
        "prediction_type": predictions[diffusion.prediction],
        "variance_type": variances[diffusion.variance],
    }


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is missing or not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds a {type(document).__name__}, not a configuration")
    return document


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
