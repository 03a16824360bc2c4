"""Other packages' samplers with this project's noise, and other packages where they are installed."""

import importlib
import importlib.util
import sys
import warnings
from types import ModuleType

import pytest
import torch

from ddpm_eval.data.torchvision_compatibility import import_torchvision
from ddpm_eval.randomness import Stream, normal


def other_package(name: str, install: str) -> ModuleType:
    """Import a package that only the tests use; skip the tests of a file where it is not installed."""
    if importlib.util.find_spec(name.split(".")[0]) is None:
        pytest.skip(f"parity is tested against {name}: pip install {install}", allow_module_level=True)
    import_torchvision()  # they import it, too
    with warnings.catch_warnings(action="ignore"):  # of their own syntax and imports
        return importlib.import_module(name)


def without_init(package: str, module: str, install: str) -> ModuleType:
    """Import a module of a package whose own ``__init__`` needs far more packages than the module."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"parity is tested against {package}: {install}", allow_module_level=True)
    if package not in sys.modules:
        bare = ModuleType(package)
        bare.__path__ = list(spec.submodule_search_locations)
        bare.__spec__ = spec
        sys.modules[package] = bare
    return other_package(f"{package}.{module}", install)


def start_noise(seed, n, shape, dtype=torch.float32):
    """The x_T of this project's samples 0..n-1."""
    return normal(seed, Stream.SAMPLE, torch.arange(n), torch.tensor([0]), shape, dtype)


class StepNoise:
    """A stand-in for ``torch.randn_like`` that gives the noise of this project's steps, one after the other.

    Args:
        seed: of the noise.
        network_times: 0-based time of the full chain of each call.
        stream: sampling or the bound.
    """

    def __init__(self, seed, network_times, stream=Stream.SAMPLE):
        self.seed = seed
        self.times = iter(network_times)
        self.stream = stream

    def __call__(self, like, **_):
        ids = torch.arange(len(like))
        time = torch.tensor([next(self.times) + 1])
        return normal(self.seed, self.stream, ids, time, tuple(like.shape[1:]), like.dtype)
