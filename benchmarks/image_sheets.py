"""Colour images of an npz file as lossless WebP sheets, to carry CIFAR-10 in half as many bytes.

    python benchmarks/image_sheets.py pack cifar10.npz cifar10.sheets.zip
    python benchmarks/image_sheets.py unpack cifar10.sheets.zip cifar10.npz

Arrays of uint8 ``[n, 3, side, side]`` become sheets of many images, all others stay as they are. The arrays
that come out are those that went in, bit by bit.
"""

import io
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.generic]
PER_ROW = 50
PER_SHEET = 2500
SUFFIX = ".sheets.zip"


def pack(source: Path, target: Path) -> None:
    """Write the arrays of an npz file as sheets, and as arrays where they are no colour images."""
    with np.load(source) as arrays, zipfile.ZipFile(target, "w") as archive:
        for name in arrays.files:
            array = arrays[name]
            if array.ndim == 4 and array.dtype == np.uint8 and array.shape[1] == 3:
                for first in range(0, len(array), PER_SHEET):
                    sheet = _sheet(array[first : first + PER_SHEET])
                    archive.writestr(f"{name}/{first:07d}-{len(array)}-{array.shape[2]}.webp", sheet)
            else:
                content = io.BytesIO()
                np.save(content, array, allow_pickle=False)
                archive.writestr(f"{name}.npy", content.getvalue())


def unpack(source: Path, target: Path) -> None:
    """Write the npz file whose arrays were packed; it appears when it is complete."""
    arrays: dict[str, list[Array]] = {}
    with zipfile.ZipFile(source) as archive:
        for entry in sorted(archive.namelist()):
            content = io.BytesIO(archive.read(entry))
            if entry.endswith(".npy"):
                arrays[entry.removesuffix(".npy")] = [np.load(content, allow_pickle=False)]
                continue
            name, _, place = entry.partition("/")
            first, n, side = map(int, place.removesuffix(".webp").split("-"))
            images = _images(content, int(side))
            arrays.setdefault(name, []).append(images[: n - first])
    temporary = target.with_name(f".{target.name}.writing.npz")
    np.savez(temporary, **{name: np.concatenate(found) for name, found in arrays.items()})
    temporary.replace(target)


def unpack_all(paths: Iterable[Path]) -> list[Path]:
    """Unpack those of the files that are sheets beside them; return the paths of the data sets."""
    found = []
    for path in paths:
        target = path
        if path.name.endswith(SUFFIX):
            target = path.with_name(f"{path.name.removesuffix(SUFFIX)}.npz")
            if not target.exists():
                unpack(path, target)
        found.append(target)
    return found


def _sheet(images: Array) -> bytes:
    """Return one WebP file of images ``[n, 3, side, side]``, whose last row is filled with black."""
    n, channels, side, _ = images.shape
    rows = -(-n // PER_ROW)
    padded = np.zeros((rows * PER_ROW, channels, side, side), np.uint8)
    padded[:n] = images
    tiles = padded.reshape(rows, PER_ROW, channels, side, side).transpose(0, 3, 1, 4, 2)
    content = io.BytesIO()
    sheet = Image.fromarray(tiles.reshape(rows * side, PER_ROW * side, channels))
    sheet.save(content, "WEBP", lossless=True, quality=100, method=4, exact=True)
    return content.getvalue()


def _images(content: io.BytesIO, side: int) -> Array:
    """Return the images of a sheet, those that fill its last row included."""
    sheet = np.asarray(Image.open(content).convert("RGB"))
    tiles = sheet.reshape(len(sheet) // side, side, PER_ROW, side, 3).transpose(0, 2, 4, 1, 3)
    return tiles.reshape(-1, 3, side, side)


def main() -> None:
    """Pack or unpack, as the first argument says."""
    verbs = {"pack": pack, "unpack": unpack}
    if len(sys.argv) != 4 or sys.argv[1] not in verbs:
        raise SystemExit(__doc__)
    verbs[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))


if __name__ == "__main__":
    main()
