"""Images to write to files, and what the readers are asked for."""

import os
import signal
from collections.abc import Callable, Iterator
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


@pytest.fixture
def special_file() -> Iterator[Callable[[Path, str], None]]:
    """Return a function that makes something that is no regular file; a test that opens it ends in time."""

    def make(path: Path, kind: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "loop":
                path.symlink_to(path.name)
            case "device":
                path.symlink_to("/dev/zero")

    before = signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(30)
    yield make
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _too_late(*_: object) -> None:
    raise TimeoutError("a file that is none was opened")
