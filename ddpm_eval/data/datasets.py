"""Data sets as 8-bit images with stable ids, and the only mapping between pixels and the model's range.

Conventions: images are uint8 ``[n, channels, side, side]`` with levels 0..255; the model sees float32 in [-1,
    1]. An id
names an image within its split (or, where the split is made here, within the whole set) and never changes; an
index is a position in an `ImageSet`. Sets of up to `MEMORY_LIMIT_BYTES` are held as one array, larger ones
are read from disk image by image. Nothing is converted unasked: images of another size, depth or number of
channels are refused with a sentence.

Names: ``digits``; ``mnist``, ``fashion-mnist``, ``cifar10``, ``cifar100``, ``celeba`` (through torchvision);
``lsun:bedroom``, ``lsun:church_outdoor``, ``lsun:cat`` (LMDB); ``npz:FILE``; ``folder:DIR``,
``folder@SIDE:DIR``. What each one's splits, ids and sizes are is in docs/data.md.
"""

import difflib
import fcntl
import hashlib
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ddpm_eval.data.image_files import (
    CHANNELS,
    Shape,
    check_headers,
    decode_all,
    decode_file,
    decode_lmdb,
    images_in,
    lmdb_keys,
    one_line,
    shape_of,
)
from ddpm_eval.data.image_set import Ids, ImageSet, Pixels
from ddpm_eval.data.torchvision_compatibility import import_torchvision
from ddpm_eval.results.records import Array
from ddpm_eval.spec import DataSpec

MEMORY_LIMIT_BYTES = 2**30
DIGITS_TEST_EVERY = 5
OWN_TEST_EVERY = 10  # of a folder or file that comes without a split
CAT_TEST_EVERY = 1000  # LSUN's objects come without a split
DEFAULT_ROOT = Path(".data")

# Channels and side in pixels; celeba and lsun are cropped to any side, theirs is the customary one.
NATIVE = {
    "digits": (1, 8),
    "mnist": (1, 28),
    "fashion-mnist": (1, 28),
    "cifar10": (3, 32),
    "cifar100": (3, 32),
    "celeba": (3, 64),
    "lsun:bedroom": (3, 256),
    "lsun:church_outdoor": (3, 256),
    "lsun:cat": (3, 256),
}
# The reader's name in torchvision.datasets, and what it looks for in the root.
TORCHVISION = {
    "mnist": ("MNIST", "MNIST/raw/*-ubyte"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw/*-ubyte"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py/"),
    "cifar100": ("CIFAR100", "cifar-100-python/"),
    "celeba": ("CelebA", "celeba/img_align_celeba/ and celeba/*.txt"),
}


def load(spec: DataSpec, split: str, root: Path | None = None) -> ImageSet:
    """Load a split of a data set; a set that torchvision can download is downloaded if it is absent.

    Args:
        spec: the data set's name and the shape that its images must have.
        split: ``train`` or ``test``; of a folder or an unsplit file also ``all``.
        root: folder of downloaded data sets, by default ``.data``; not used for digits, folders and files.

    Raises:
        ValueError: with one sentence, for anything that the user must change.
    """
    root = (root or DEFAULT_ROOT).expanduser()
    _check_split(spec.name, split)
    match kind(spec.name):
        case "digits":
            return _digits(spec, split)
        case "torchvision":
            return _torchvision(spec, split, root)
        case "celeba":
            return _celeba(spec, split, root)
        case "lsun":
            return _lsun(spec, split, root)
        case "npz":
            return _npz(spec, split, _path(spec.name))
        case "folder":
            return _folder(spec, split)


def inspect(name: str, root: Path | None = None) -> tuple[int, int]:
    """Return the channels and the side in pixels that a data set's images have, from its name or its first
    image.

    Raises:
        ValueError: with one sentence, if there is no such data set or its images cannot be used.
    """
    match kind(name):
        case "npz":
            return _inspect_npz(_path(name))
        case "folder":
            return _inspect_folder(name)
        case _:
            return NATIVE[name]


def kind(name: str) -> Literal["digits", "torchvision", "celeba", "lsun", "npz", "folder"]:
    """Tell how a data set is read.

    Raises:
        ValueError: if there is none of this name.
    """
    if name in ("digits", "celeba"):
        return "digits" if name == "digits" else "celeba"
    if name in NATIVE:
        return "lsun" if name.startswith("lsun:") else "torchvision"
    if re.fullmatch(r"npz:.+", name):
        return "npz"
    if re.fullmatch(r"folder(@[1-9]\d*)?:.+", name):
        return "folder"
    known = [*NATIVE, "npz:FILE", "folder:DIR", "folder@SIDE:DIR"]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"there is no data set {name!r} (there are {', '.join(known)}{hint})")


# Sets that are held from the start


def _digits(spec: DataSpec, split: str) -> ImageSet:
    """The 1,797 handwritten digits of scikit-learn, 8x8 with 17 levels, scaled to 8 bits; every fifth is a
    test image.
    """
    from sklearn.datasets import load_digits

    levels, labels = load_digits(return_X_y=True)
    images = np.round(levels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    ids = _every(len(images), DIGITS_TEST_EVERY, split)
    return _hold(spec, split, images[ids], ids, labels[ids].astype(np.int64))


def _torchvision(spec: DataSpec, split: str, root: Path) -> ImageSet:
    packed = root / f"{spec.name}.npz"
    if packed.is_file():
        return _npz(spec, split, packed)
    reader = getattr(import_torchvision().datasets, TORCHVISION[spec.name][0])
    dataset = _open_or_download(spec.name, partial(reader, root, train=split == "train"), root)
    images, labels = _nchw(np.asarray(dataset.data), spec.name), np.asarray(dataset.targets, np.int64)
    return _hold(spec, split, images, np.arange(len(images)), labels)


def _open_or_download(name: str, reader: Callable[..., Any], root: Path) -> Any:  # noqa: ANN401 - a torchvision data set
    try:
        return reader(download=False)
    except RuntimeError:
        pass  # absent, or of another checksum
    except Exception as error:
        raise ValueError(
            f"{name} in {root} cannot be read: {error} (a truncated file? delete it to download it again)"
        ) from error
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".download.lock").open(
            "w"
        ) as lock:  # one process downloads, the others wait and find it there
            fcntl.flock(lock, fcntl.LOCK_EX)
            return reader(download=True)
    except Exception as error:
        raise ValueError(
            f"{name} is not in {root} and could not be downloaded ({one_line(error)}): put {TORCHVISION[name][1]} or "
            f"{name}.npz there, or name the folder that holds it with --data-root"
        ) from error


def _npz(spec: DataSpec, split: str, path: Path) -> ImageSet:
    own = (f"x_{split}", f"y_{split}", f"inexact_{split}")
    arrays = _read_npz(path, [*own, "arr_0", "arr_1"])
    if own[0] not in arrays and "arr_0" not in arrays:
        raise ValueError(f"{path} has no array {own[0]} (an unsplit file would have arr_0)")
    x, y, listed = own if own[0] in arrays else ("arr_0", "arr_1", "")
    images = _nchw(arrays[x], f"{x} of {path}")
    n = len(images)
    ids = _every(n, OWN_TEST_EVERY, split) if x == "arr_0" else np.arange(n)
    labels = _integers(arrays[y], f"{y} of {path}", length=n)[ids] if y in arrays else None
    inexact = _integers(arrays[listed], f"{listed} of {path}", below=n) if listed in arrays else None
    return _hold(spec, split, images[ids], ids, labels, inexact)


def _inspect_npz(path: Path) -> tuple[int, int]:
    arrays = _read_npz(path, ["x_test", "arr_0"]) or _read_npz(path, ["x_train"])
    if not arrays:
        raise ValueError(f"{path} holds no images (x_train and x_test, or arr_0, are looked for)")
    name, images = next(iter(arrays.items()))
    return _nchw(images, f"{name} of {path}").shape[1:3]


def _read_npz(path: Path, names: Iterable[str]) -> dict[str, Array]:
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise TypeError("it holds one unnamed array")
            with arrays:
                return {name: arrays[name] for name in names if name in arrays.files}
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except Exception as error:
        raise ValueError(
            f"{path} is not a readable npz file of plain arrays: {one_line(error)} (truncated, or not saved by numpy.savez?)"
        ) from error


def _nchw(images: Array, what: str) -> Pixels:
    if images.dtype != np.uint8:
        raise ValueError(
            f"{what} must be 8-bit images (uint8), but are {images.dtype} (have they been scaled already?)"
        )
    if not len(images):
        raise ValueError(f"{what} is empty")
    match images.shape:
        case (_, height, width) if height == width:
            return images[:, None]
        case (_, 1 | 3, height, width) if height == width:
            return images
        case (_, height, width, 1 | 3) if height == width:
            return images.transpose(0, 3, 1, 2)
    raise ValueError(
        f"{what} has shape {images.shape}, but square images [n, 1 or 3, side, side], [n, side, side, 1 or 3] or "
        "[n, side, side] are read"
    )


def _integers(values: Array, what: str, *, length: int | None = None, below: int | None = None) -> Ids:
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(
            f"{what} must be a list of integers, but have shape {values.shape} of {values.dtype}"
        )
    if length is not None and len(values) != length:
        raise ValueError(f"{what} are {len(values)}, but there are {length} images")
    if below is not None and len(values) and not (0 <= values.min() and values.max() < below):
        raise ValueError(f"{what} are ids {values.min()} to {values.max()}, but there are {below} images")
    return values.astype(np.int64)


def _hold(
    spec: DataSpec,
    split: str,
    images: Pixels,
    ids: Ids,
    labels: Ids | None = None,
    inexact: Ids | None = None,
) -> ImageSet:
    _, channels, side, _ = images.shape
    _check_shape(spec, channels, side)
    inexact = np.array([], np.int64) if inexact is None else inexact
    images = np.ascontiguousarray(images)
    digest = _digest([images, ids, inexact, *([] if labels is None else [labels])])
    return ImageSet(spec.name, split, ids, labels, inexact, digest, channels, side, images)


# Sets of encoded images


def _folder(spec: DataSpec, split: str) -> ImageSet:
    directory, side = _path(spec.name), _folder_side(spec.name)
    if side not in (None, spec.side):
        raise ValueError(
            f"{spec.name} resizes to {side} pixels, but the run asks for {spec.side} (set data.side={side})"
        )
    if split != "all" and any((directory / part).is_dir() for part in ("train", "test")):
        files = images_in(directory / split)
        ids = np.arange(len(files))
    else:
        found = images_in(directory)
        ids = _every(len(found), OWN_TEST_EVERY, split)
        files = [found[i] for i in ids]
    return _from_files(spec, split, files, ids, directory, crop=side is not None)


def _inspect_folder(name: str) -> tuple[int, int]:
    first, side = images_in(_path(name))[0], _folder_side(name)
    mode, width, height = shape_of(first)
    if mode not in CHANNELS:
        raise ValueError(f"{first} is of mode {mode}, but 8-bit grayscale (L) and RGB are read (convert it)")
    if side is None and width != height:
        raise ValueError(
            f"{first} is {width}x{height} pixels, but images must be square (folder@SIDE:DIR crops and resizes)"
        )
    return CHANNELS[mode], side or width


def _folder_side(name: str) -> int | None:
    prefix = name.split(":", 1)[0]
    return int(prefix.removeprefix("folder@")) if "@" in prefix else None


def _celeba(spec: DataSpec, split: str, root: Path) -> ImageSet:
    """The aligned images, 178x218, cropped to their centre; ids are the numbers in their names; no labels."""
    _check_shape(spec, 3, spec.side)
    dataset = _open_or_download(
        spec.name, partial(import_torchvision().datasets.CelebA, root, split=split), root
    )
    directory = root / "celeba" / "img_align_celeba"
    files = [directory / name for name in dataset.filename]
    ids = np.array([int(file.stem) for file in files], np.int64)
    return _from_files(spec, split, files, ids, directory, crop=True)


def _from_files(
    spec: DataSpec, split: str, files: list[Path], ids: Ids, base: Path, *, crop: bool
) -> ImageSet:
    shape = Shape(spec.channels, spec.side, crop)
    read = partial(decode_file, files, shape)
    if _fits_in_memory(spec, len(files)):
        return _hold(spec, split, decode_all(read, shape, len(files)), ids)
    check_headers(files, shape)
    return _stream(
        spec, split, read, ids, [f"{file.relative_to(base)} {file.stat().st_size}" for file in files]
    )


# LSUN is read here: torchvision's reader keeps the keys as a pickle in the working directory, under a name
# that two databases can share, and then reads one with the keys of the other


def _lsun(spec: DataSpec, split: str, root: Path) -> ImageSet:
    """Scenes have the official splits (test is its 300 validation images); objects have none."""
    _check_shape(spec, 3, spec.side)
    category = spec.name.removeprefix("lsun:")
    unsplit = category == "cat"
    path = root / (category if unsplit else f"{category}_{'train' if split == 'train' else 'val'}_lmdb")
    if not (path / "data.mdb").is_file():
        raise ValueError(
            f"there is no LSUN database {path} (LSUN is not downloaded: unpack {path.name}.zip from http://dl.yf.io/lsun there)"
        )
    keys, size = lmdb_keys(path), (path / "data.mdb").stat().st_size
    ids = _every(len(keys), CAT_TEST_EVERY, split) if unsplit else np.arange(len(keys))
    shape = Shape(spec.channels, spec.side, crop=True)
    read = partial(decode_lmdb, path, keys[ids], shape)
    if _fits_in_memory(spec, len(ids)):
        return _hold(spec, split, decode_all(read, shape, len(ids)), ids)
    return _stream(spec, split, read, ids, [*(key.decode() for key in keys[ids]), f"data.mdb {size}"])


def _stream(
    spec: DataSpec, split: str, read: Callable[[int], Pixels], ids: Ids, content: list[str]
) -> ImageSet:
    digest = _digest(
        [np.frombuffer("\n".join(content).encode(), np.uint8), ids, np.array([spec.channels, spec.side])]
    )
    return ImageSet(
        spec.name, split, ids, None, np.array([], np.int64), digest, spec.channels, spec.side, read
    )


def _fits_in_memory(spec: DataSpec, n: int) -> bool:
    return n * spec.channels * spec.side**2 <= MEMORY_LIMIT_BYTES


# Common


def _every(n: int, step: int, split: str) -> Ids:
    """Return the ids of a split of n images in which every ``step``-th, from the first, is a test image."""
    ids = np.arange(n)
    if split == "all":
        return ids
    chosen = ids[(ids % step == 0) == (split == "test")]
    if not len(chosen):
        raise ValueError(f"{n} images leave none for the {split} split (every {step}th is a test image)")
    return chosen


def _check_split(name: str, split: str) -> None:
    if split not in ("train", "test", "all"):
        raise ValueError(f"there is no split {split!r} (train and test are)")
    if split == "all" and kind(name) not in ("npz", "folder"):
        raise ValueError(f"{name} has the splits train and test; all is for folders and files of one's own")


def _check_shape(spec: DataSpec, channels: int, side: int) -> None:
    if (channels, side) != (spec.channels, spec.side):
        raise ValueError(
            f"images of {spec.name} have {channels} channels and {side} pixels a side, but the run asks for {spec.channels} "
            f"and {spec.side} (set data.channels={channels} and data.side={side}, or choose another preset)"
        )


def _digest(arrays: Iterable[Array]) -> str:
    content = hashlib.sha256()
    for a in arrays:
        content.update(f"{a.dtype} {a.shape}".encode())
        content.update(np.ascontiguousarray(a).view(np.uint8).data)
    return content.hexdigest()[:12]


def _path(name: str) -> Path:
    return Path(name.split(":", 1)[1]).expanduser()
