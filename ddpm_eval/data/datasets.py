"""The names of data sets, and what reads them.

Names: ``digits``, ``photos`` (both come with scikit-learn); ``mnist``, ``fashion-mnist``, ``cifar10``,
``cifar100``, ``celeba`` (through torchvision); ``lsun:bedroom``, ``lsun:church_outdoor``, ``lsun:cat``
(LMDB); ``npz:FILE``; ``folder:DIR``, ``folder@SIDE:DIR``. The splits, ids and sizes of each are in
docs/data.md.

Images are 8-bit, ``[n, channels, side, side]``. Nothing is converted unasked: images of another size, depth
or number of channels are refused with a sentence.
"""

import difflib
import re
from pathlib import Path
from typing import Literal

from ddpm_eval.data.array_files import inspect_npz, read_npz
from ddpm_eval.data.digits import read_digits
from ddpm_eval.data.image_folders import inspect_folder, read_folder
from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.data.lsun import read_lsun
from ddpm_eval.data.photos import read_photos
from ddpm_eval.data.torchvision_sets import read_celeba, read_torchvision
from ddpm_eval.spec import DataSpec

Kind = Literal["digits", "photos", "torchvision", "celeba", "lsun", "npz", "folder"]

DEFAULT_ROOT = Path(".data")

NATIVE = {
    "digits": (1, 8),
    "photos": (3, 8),
    "mnist": (1, 28),
    "fashion-mnist": (1, 28),
    "cifar10": (3, 32),
    "cifar100": (3, 32),
    "celeba": (3, 64),
    "lsun:bedroom": (3, 256),
    "lsun:church_outdoor": (3, 256),
    "lsun:cat": (3, 256),
}
"""Channels and side in pixels; celeba and lsun are cropped to any side, theirs is the customary one, and
photos are cut into patches of the side that is asked for."""

OWN_READER: dict[str, Kind] = {"digits": "digits", "photos": "photos", "celeba": "celeba"}
"""The data sets that have a reader for themselves."""


def load(spec: DataSpec, split: str, root: Path | None = None) -> ImageSet:
    """Load a split of a data set; a set that torchvision can download is downloaded if it is absent.

    Args:
        spec: the data set's name and the shape that its images must have.
        split: ``train`` or ``test``; of a folder or an unsplit file also ``all``.
        root: folder of downloaded data sets, by default ``.data``; not used for embedded sets and files.

    Raises:
        ValueError: with one sentence, for anything that the user must change.
    """
    _check_split(spec.name, split)
    if kind(spec.name) in ("photos", "celeba", "lsun"):
        _check_shape(spec, 3, spec.side)  # before anything is downloaded or decoded
    images = _read(spec, split, (root or DEFAULT_ROOT).expanduser())
    _check_shape(spec, images.channels, images.side)
    return images


def inspect(name: str) -> tuple[int, int]:
    """Return the channels and the side in pixels of a data set, from its name or its first image.

    Raises:
        ValueError: with one sentence, if there is no such data set or its images cannot be used.
    """
    match kind(name):
        case "npz":
            return inspect_npz(_path(name))
        case "folder":
            return inspect_folder(_path(name), _folder_side(name))
        case _:
            return NATIVE[name]


def check_number(images: ImageSet, asked: int | None) -> None:
    """Check that a split has as many images as are asked for; None asks for all that there are.

    Raises:
        ValueError: if it has fewer.
    """
    if asked is not None and asked > len(images):
        raise ValueError(
            f"{images.name} has {len(images)} {images.split} images of {images.side}x{images.side} pixels, "
            f"but {asked} are asked for (set evaluation.n_{images.split}_images={len(images)} or less)"
        )


def kind(name: str) -> Kind:
    """Tell how a data set is read.

    Raises:
        ValueError: if there is none of this name.
    """
    if name in OWN_READER:
        return OWN_READER[name]
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


def _read(spec: DataSpec, split: str, root: Path) -> ImageSet:
    match kind(spec.name):
        case "digits":
            return read_digits(split)
        case "photos":
            return read_photos(spec, split)
        case "torchvision":
            return read_torchvision(spec.name, split, root)
        case "celeba":
            return read_celeba(spec, split, root)
        case "lsun":
            return read_lsun(spec, split, root)
        case "npz":
            return read_npz(spec.name, split, _path(spec.name))
        case "folder":
            return read_folder(spec, split, _path(spec.name), _folder_side(spec.name))


def _check_split(name: str, split: str) -> None:
    if split not in ("train", "test", "all"):
        raise ValueError(f"there is no split {split!r} (train and test are)")
    if split == "all" and kind(name) not in ("npz", "folder"):
        raise ValueError(f"{name} has the splits train and test; all is for folders and files of one's own")


def _check_shape(spec: DataSpec, channels: int, side: int) -> None:
    if (channels, side) != (spec.channels, spec.side):
        raise ValueError(
            f"images of {spec.name} have {channels} channels and {side} pixels a side, but the run asks for "
            f"{spec.channels} and {spec.side} (set data.channels={channels} and data.side={side}, "
            "or choose another preset)"
        )


def _path(name: str) -> Path:
    return Path(name.split(":", 1)[1]).expanduser()


def _folder_side(name: str) -> int | None:
    prefix = name.split(":", 1)[0]
    return int(prefix.removeprefix("folder@")) if "@" in prefix else None
