"""Files of weights: found on disk or on the hub, and read without executing anything.

Only tensors are read: safetensors files, and pickles that hold nothing but tensors.
"""

import pickle
import re
import warnings
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ddpm_eval.training.foreign_files import check_own_digests, check_weights_file

SAFETENSORS_NAME = "diffusion_pytorch_model.safetensors"
PICKLE_NAME = "diffusion_pytorch_model.bin"
WEIGHTS_NAMES = (SAFETENSORS_NAME, PICKLE_NAME)
"""The names of diffusers' files of weights, the preferred one first."""


def local_path(source: str | Path) -> Path:
    """Return the path of a source on disk, fetched from the hub if it is a model's id there.

    Args:
        source: a file, a folder, or an id such as ``google/ddpm-cifar10-32``.

    Raises:
        ValueError: if the source is neither, or cannot be fetched.
    """
    if Path(source).exists():
        return Path(source)
    if isinstance(source, Path) or not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ValueError(
            f"there is no file or folder {source}, nor is that the id of a model on the hub (owner/name)"
        )
    return _fetched(source)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or a pickle of nothing but tensors by name.

    Raises:
        ValueError: if the file is damaged, or holds other things than tensors.
    """
    check_weights_file(path)
    header: dict[str, str] = {}
    weights: object
    try:
        if path.suffix == ".safetensors":
            header, weights = _read_safetensors(path)
        else:
            weights = _read_pickle(path)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds other things than tensors (Python objects are never executed), or is damaged"
        ) from None
    except Exception as error:  # what damaged files raise has no base class in common
        raise ValueError(
            f"{path} is not a readable file of weights (truncated?): {_first_line(error)}"
        ) from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(
            f"{path} holds a {type(weights).__name__} of other things than tensors by name, not a state dict "
            "(a whole checkpoint?)"
        )
    check_own_digests(path, header, weights)
    return weights


def _fetched(name: str) -> Path:
    try:
        import huggingface_hub  # the package is optional
    except ImportError:
        raise ValueError(
            f"there is no folder {name}; to fetch it from the hub, pip install huggingface_hub"
        ) from None
    try:
        for weights in WEIGHTS_NAMES:  # pickled weights only where there are no others
            patterns = ["*config.json", f"*{weights}"]
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
            if any(folder.rglob(f"*{weights}")):
                break
    except Exception as error:  # the hub's errors share no base class between its versions
        raise ValueError(
            f"the hub could not deliver {name} (offline, or no such model?): {_first_line(error)}"
        ) from None
    return folder


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        return header, {name: file.get_tensor(name) for name in file.keys()}


def _read_pickle(path: Path) -> object:
    with warnings.catch_warnings(action="ignore"):  # of unusual pickle protocols
        return torch.load(path, map_location="cpu", weights_only=True)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
