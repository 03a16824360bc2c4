"""LSUN: LMDB databases of encoded images, cropped and resized.

Scenes have the official splits (test is its 300 validation images); of objects every thousandth image is a
test image. torchvision's reader is not used: it keeps the keys as a pickle in the working directory, under
a name that two databases can share, and then reads one with the keys of the other.
"""

import io
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ddpm_eval.data.errors import one_line
from ddpm_eval.data.image_files import Shape, check_regular, decode, decode_all
from ddpm_eval.data.image_set import ImageSet, Pixels, fits_in_memory, in_memory_set, streamed_set
from ddpm_eval.data.splits import every_nth
from ddpm_eval.spec import DataSpec

if TYPE_CHECKING:
    import lmdb

TEST_EVERY = 1000
"""Of the images of a category without official splits."""
WITHOUT_SPLITS = ("cat",)

Keys = npt.NDArray[np.bytes_]

_databases: "dict[Path, tuple[int, lmdb.Environment]]" = {}
"""The open databases, with the process that opened them."""


def read_lsun(spec: DataSpec, split: str, root: Path) -> ImageSet:
    """Read a split of a category.

    Args:
        spec: the data set's name, ``lsun:CATEGORY``, and the side in pixels to which its images are resized.
        split: ``train`` or ``test``.
        root: folder that holds the databases under the names that LSUN gives them.

    Raises:
        ValueError: if the database is missing or unreadable, or the lmdb package is missing.
    """
    category = spec.name.removeprefix("lsun:")
    path = _database_path(category, split, root)
    keys = lmdb_keys(path)
    if category in WITHOUT_SPLITS:
        ids = every_nth(len(keys), TEST_EVERY, split)
    else:
        ids = np.arange(len(keys))
    shape = Shape(spec.channels, spec.side, crop=True)
    read = partial(decode_lmdb, path, keys[ids], shape)
    if fits_in_memory(len(ids), spec.channels, spec.side):
        return in_memory_set(spec.name, split, decode_all(read, shape, len(ids)), ids)
    content = [key.decode() for key in keys[ids]]
    content.append(f"data.mdb {(path / 'data.mdb').stat().st_size}")
    return streamed_set(spec.name, split, read, ids, (spec.channels, spec.side), content)


def lmdb_keys(path: Path) -> Keys:
    """List the keys of an LMDB database in their order, ``[n]``.

    Raises:
        ValueError: if the lmdb package is missing or the database is unreadable.
    """
    with _database(path).begin() as transaction:
        return np.array(list(transaction.cursor().iternext(keys=True, values=False)), np.bytes_)


def decode_lmdb(path: Path, keys: Keys, shape: Shape, index: int) -> Pixels:
    """Read the image stored under ``keys[index]``; see `image_files.decode`."""
    with _database(path).begin() as transaction:
        encoded = transaction.get(bytes(keys[index]))
    return decode(io.BytesIO(encoded), f"image {keys[index].decode()} of {path}", shape)


def _database_path(category: str, split: str, root: Path) -> Path:
    if category in WITHOUT_SPLITS:
        path = root / category
    else:
        path = root / f"{category}_{'train' if split == 'train' else 'val'}_lmdb"
    check_regular(path / "data.mdb")
    if not (path / "data.mdb").exists():
        raise ValueError(
            f"there is no LSUN database {path} "
            f"(LSUN is not downloaded: unpack {path.name}.zip from http://dl.yf.io/lsun there)"
        )
    return path


def _database(path: Path) -> "lmdb.Environment":
    """Return the database that this process has opened, or open it."""
    process, database = _databases.get(path, (0, None))
    if database is not None:
        if process == os.getpid():
            return database
        database.close()  # inherited through a fork, after which it must not be used
    _databases[path] = os.getpid(), _open(path)
    return _databases[path][1]


def _open(path: Path) -> "lmdb.Environment":
    try:
        import lmdb  # here, because the package is optional
    except ImportError:
        raise ValueError(f"{path} needs the lmdb package (pip install 'ddpm_eval[lmdb]')") from None
    try:
        return lmdb.open(str(path), readonly=True, create=False, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise ValueError(f"{path} is not a readable LMDB database: {one_line(error)} (truncated?)") from error
