"""The data sets that torchvision reads, and downloads where they are absent.

A file ``NAME.npz`` in the root is read in place of torchvision's files (see `array_files`), CelebA's
excepted.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from ddpm_eval.data.array_files import nchw, read_npz
from ddpm_eval.data.errors import one_line
from ddpm_eval.data.image_files import check_regular
from ddpm_eval.data.image_folders import set_of_files
from ddpm_eval.data.image_set import ImageSet, in_memory_set
from ddpm_eval.data.torchvision_compatibility import import_torchvision
from ddpm_eval.files import file_lock
from ddpm_eval.spec import DataSpec

TORCHVISION = {
    "mnist": ("MNIST", "MNIST/raw/*-ubyte"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw/*-ubyte"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py/"),
    "cifar100": ("CIFAR100", "cifar-100-python/"),
    "celeba": ("CelebA", "celeba/img_align_celeba/ and celeba/*.txt"),
}
"""The reader's name in torchvision.datasets, and what it looks for in the root."""

FILES = {
    "mnist": "MNIST/raw/*-ubyte*",
    "fashion-mnist": "FashionMNIST/raw/*-ubyte*",
    "cifar10": "cifar-10-batches-py/*",
    "cifar100": "cifar-100-python/*",
    "celeba": "celeba/*.*",
}
"""The files that the reader opens, or writes where they are absent."""

Opened = TypeVar("Opened")


def read_torchvision(name: str, split: str, root: Path) -> ImageSet:
    """Read a split of a set that torchvision holds as an array; an id is a position in the split.

    Raises:
        ValueError: if the files are unreadable, or absent and cannot be downloaded.
    """
    packed = root / f"{name}.npz"
    check_regular(packed)
    if packed.exists():
        return read_npz(name, split, packed)
    reader = getattr(import_torchvision().datasets, TORCHVISION[name][0])
    dataset = _open_or_download(
        name, root, lambda download: reader(root, train=split == "train", download=download)
    )
    images = nchw(np.asarray(dataset.data), name)
    return in_memory_set(name, split, images, np.arange(len(images)), np.asarray(dataset.targets, np.int64))


def read_celeba(spec: DataSpec, split: str, root: Path) -> ImageSet:
    """Read a split of CelebA's aligned images, 178x218, cropped to their centre and resized.

    An id is the number in a file's name. There are no labels.

    Raises:
        ValueError: if the files are unreadable, or absent and cannot be downloaded.
    """
    reader = import_torchvision().datasets.CelebA
    dataset = _open_or_download(
        spec.name, root, lambda download: reader(root, split=split, download=download)
    )
    directory = root / "celeba" / "img_align_celeba"
    files = [directory / name for name in dataset.filename]
    for file in files:
        check_regular(file)
    ids = np.array([int(file.stem) for file in files], np.int64)
    return set_of_files(spec, split, files, ids, directory, crop=True)


def _open_or_download(name: str, root: Path, open_set: Callable[[bool], Opened]) -> Opened:
    """Open a set without a download, or else with one: ``open_set`` is told whether to."""
    for file in root.glob(FILES[name]):
        check_regular(file)
    try:
        return open_set(False)
    except RuntimeError:
        pass  # absent, or of another checksum
    except Exception as error:
        raise ValueError(
            f"{name} in {root} cannot be read: {error} (a truncated file? delete it to download it again)"
        ) from error
    try:
        with file_lock(root / "download"):  # one process downloads, the others wait and find it there
            return open_set(True)
    except Exception as error:
        packed = "" if name == "celeba" else f" or {name}.npz"
        raise ValueError(
            f"{name} is not in {root} and could not be downloaded ({one_line(error)}): put "
            f"{TORCHVISION[name][1]}{packed} there, or name the folder that holds it with --data-root"
        ) from error
