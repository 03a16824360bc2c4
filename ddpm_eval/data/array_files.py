"""Images in npz files, which are held in memory.

A file holds uint8 images in one of three layouts: ``[n, channels, side, side]``, ``[n, side, side,
channels]`` or ``[n, side, side]``. With splits, its arrays are ``x_train``, ``y_train``, ``inexact_train``
and the same of ``test``; without, ``arr_0`` and ``arr_1`` (images and labels). Labels and inexact ids may
be missing. A file is read only if its arrays, expanded, take at most half of the memory that is available.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ddpm_eval.data.errors import one_line
from ddpm_eval.data.image_set import ImageSet, Pixels, in_memory_set, integer_list
from ddpm_eval.data.splits import every_nth
from ddpm_eval.host_memory import available_bytes, readable

TEST_EVERY = 10
"""Of the images of a file without splits."""
COPIES = 2
"""Of its images that are in memory at once while a split is taken out."""


def read_npz(name: str, split: str, path: Path) -> ImageSet:
    """Read a split of a file under the data set's name.

    Raises:
        ValueError: if the file or its arrays are unusable.
    """
    own = (f"x_{split}", f"y_{split}", f"inexact_{split}")
    arrays = _arrays(path, [*own, "arr_0", "arr_1"])
    if own[0] not in arrays and "arr_0" not in arrays:
        raise ValueError(f"{path} has no array {own[0]} (an unsplit file would have arr_0)")
    x, y, listed = own if own[0] in arrays else ("arr_0", "arr_1", "")
    images = nchw(arrays[x], f"{x} of {path}")
    n = len(images)
    ids = every_nth(n, TEST_EVERY, split) if x == "arr_0" else np.arange(n)
    labels = integer_list(arrays[y], f"{y} of {path}", length=n)[ids] if y in arrays else None
    inexact = integer_list(arrays[listed], f"{listed} of {path}", below=n) if listed in arrays else None
    return in_memory_set(name, split, images[ids], ids, labels, inexact)


def inspect_npz(path: Path) -> tuple[int, int]:
    """Return the channels and the side in pixels of a file's images.

    Raises:
        ValueError: if the file is unusable.
    """
    arrays = _arrays(path, ["x_test", "arr_0"]) or _arrays(path, ["x_train"])
    if not arrays:
        raise ValueError(f"{path} holds no images (x_train and x_test, or arr_0, are looked for)")
    name, images = next(iter(arrays.items()))
    return nchw(images, f"{name} of {path}").shape[1:3]


def nchw(images: npt.NDArray[np.generic], what: str) -> Pixels:
    """Return images of any of the three layouts as ``[n, channels, side, side]``.

    Raises:
        ValueError: with the images called ``what``, if they are not uint8, not square, or none.
    """
    if images.dtype != np.uint8:
        raise ValueError(
            f"{what} must be 8-bit images (uint8), but are {images.dtype} (have they been scaled already?)"
        )
    if not len(images):
        raise ValueError(f"{what} is empty")
    pixels = images.astype(np.uint8, copy=False)
    match pixels.shape:
        case (_, height, width) if height == width:
            return pixels[:, None]
        case (_, 1 | 3, height, width) if height == width:
            return pixels
        case (_, height, width, 1 | 3) if height == width:
            return pixels.transpose(0, 3, 1, 2)
    raise ValueError(
        f"{what} has shape {pixels.shape}, but square images [n, 1 or 3, side, side], "
        "[n, side, side, 1 or 3] or [n, side, side] are read"
    )


def _arrays(path: Path, names: Iterable[str]) -> dict[str, npt.NDArray[np.generic]]:
    """Read those of the named arrays that a file has."""
    names = list(names)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file")  # a named pipe would be waited for without end
    try:
        with path.open("rb") as file:
            shortage = _shortage(file, names)
            if shortage:
                raise MemoryError(shortage)
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise TypeError("it holds one unnamed array")
            with arrays:
                return {name: arrays[name] for name in names if name in arrays.files}
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except MemoryError as error:
        raise ValueError(f"{path} does not fit in memory: {one_line(error)}") from None
    except Exception as error:
        raise ValueError(
            f"{path} is not a readable npz file of plain arrays: {one_line(error)} "
            "(truncated, or not saved by numpy.savez?)"
        ) from error


def _shortage(file: BinaryIO, names: Iterable[str]) -> str:
    """Say that arrays would take more memory than there is, judging by the archive's list; "" if they fit.

    A member never expands to more than the list says: zipfile stops reading there.
    """
    is_archive = zipfile.is_zipfile(file)
    file.seek(0)
    if not is_archive:
        return ""
    with zipfile.ZipFile(file) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
    file.seek(0)
    needed = COPIES * sum(sizes.get(f"{name}.npy", 0) for name in names)
    available = available_bytes()
    if available is None or needed <= available:
        return ""
    return f"its arrays need {readable(needed)} when they are read, but {readable(available)} are available"
