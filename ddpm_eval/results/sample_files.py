"""Sets of samples as files: any folder, npz or results file to be measured; samples handed on as PNG or npz.

Images are 8-bit, square, of one size and kind; nothing is converted, scaled or resized on the way (see
docs/data.md).
"""

from pathlib import Path

import numpy as np
from PIL import Image

from ddpm_eval.data import datasets
from ddpm_eval.data.image_set import ArrayImages, Images
from ddpm_eval.files import atomic_write
from ddpm_eval.results.records import Samples
from ddpm_eval.results.store import Store
from ddpm_eval.spec import DataSpec

HDF5_SUFFIXES = (".h5", ".hdf5")
BATCH_SIZE = 500
"""Images that are written at a time."""


def load_images(path: Path, name: str = "samples") -> Images:
    """Open a set of images, whoever made them.

    Args:
        path: a folder of images (read recursively, in the order of their paths), an npz file without splits
            (``arr_0``, as the ADM evaluator reads), or a results file of a run.
        name: which samples of a results file.

    Raises:
        ValueError: if it is none of these, is empty, its images are not 8-bit or not of one size and kind, or
            a sample of a results file is not finite.
    """
    if not path.exists():
        raise ValueError(f"there is no folder or file {path}")
    if path.is_dir():
        return _data_set(f"folder:{path}")
    if path.suffix == ".npz":
        return _data_set(f"npz:{path}")
    if path.suffix in HDF5_SUFFIXES:
        return ArrayImages(Store(path).get(name, Samples).finite_images())
    raise ValueError(f"{path} is neither a folder of images nor a .npz or {' or '.join(HDF5_SUFFIXES)} file")


def export_png(images: Images, folder: Path) -> None:
    """Write images as ``000000.png``, ``000001.png``, ... into a new folder.

    Raises:
        ValueError: if the folder exists and is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty (choose a new folder)")
    folder.mkdir(parents=True, exist_ok=True)
    for index in _batches(images):
        for i, image in zip(index, images.take(index), strict=True):
            Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(
                folder / f"{i:06d}.png"
            )


def export_npz(images: Images, path: Path) -> None:
    """Write images as ``arr_0``, uint8 ``[n, side, side, channels]``, as the ADM evaluator reads.

    Raises:
        ValueError: if the file exists, or cannot be written.
    """
    if path.exists():
        raise ValueError(f"{path} exists already (choose a new name)")
    pixels = images.take(np.arange(len(images))).transpose(0, 2, 3, 1)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, pixels)


def _data_set(name: str) -> Images:
    channels, side = datasets.inspect(name)
    return datasets.load(DataSpec(name=name, channels=1 if channels == 1 else 3, side=side), "all")


def _batches(images: Images) -> list[np.ndarray]:
    return [
        np.arange(first, min(first + BATCH_SIZE, len(images))) for first in range(0, len(images), BATCH_SIZE)
    ]
