"""Images to write to files, and what the readers are asked for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddpm_eval.data import image_set
from ddpm_eval.data.datasets import inspect
from ddpm_eval.data.image_set import Pixels
from ddpm_eval.spec import DataSpec


@pytest.fixture
def images() -> Pixels:
    """23 random RGB images of 8x8 pixels."""
    return np.random.default_rng(0).integers(0, 256, (23, 3, 8, 8), np.uint8)


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No set is small enough for memory."""
    monkeypatch.setattr(image_set, "MEMORY_LIMIT_BYTES", 0)


@pytest.fixture(scope="session")
def spec_of() -> Callable[[str | Path], DataSpec]:
    """A function that returns the specification of a data set in its own shape."""

    def spec(name: str | Path) -> DataSpec:
        channels, side = inspect(str(name))
        return DataSpec(name=str(name), channels=channels, side=side)

    return spec
