"""Patches of the two photographs that scikit-learn brings along: natural images of 256 levels.

The photographs (a Chinese palace and a flower, 427x640, JPEG) are halved to 213x320 by averaging 2x2 pixels,
which removes the grid of the JPEG blocks and most of what the compression left. Rows and columns count pixels
of the halved photographs from 0.

Test patches tile two bands of columns in each photograph and do not overlap. Training patches lie at every
second row and column outside these bands, so that no pixel is shared. An id is ``(photograph * 213 + row) *
320 + column`` of a patch's upper left corner, whatever its side; patches come in the order of a hash of their
ids, so that the first few are from everywhere. There are no labels.
"""

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from PIL import features

from ddpm_eval.data.image_set import Ids, ImageSet, Pixels, in_memory_set
from ddpm_eval.spec import DataSpec

PHOTOGRAPHS = (2, 427, 640, 3)
HEIGHT = 213
WIDTH = 320
BAND = 32
"""Columns of a band of test patches."""
TEST_BANDS = (64, 224)
"""First columns of the bands: each band lies in the middle of one half of the photograph."""
TRAIN_BANDS = ((0, 64), (96, 224), (256, 320))
"""First columns, and columns after the last, of what is left for training."""
STRIDE = 2
"""Distance of neighbouring training patches."""
SIDES = tuple(side for side in range(2, BAND + 1) if BAND % side == 0)


def read_photos(spec: DataSpec, split: str) -> ImageSet:
    """Read a split of the patches of ``spec.side`` pixels a side.

    Raises:
        ValueError: if the side does not divide a band, or Pillow cannot read JPEG files.
    """
    if spec.side not in SIDES:
        raise ValueError(
            f"{spec.name} has bands of {BAND} columns for its test patches, which a side of {spec.side} "
            f"pixels does not divide (set data.side to one of {', '.join(map(str, SIDES))})"
        )
    places = patch_places(split, spec.side)
    photo, row, column = places.T
    windows = sliding_window_view(halved_photographs(), (spec.side, spec.side), axis=(1, 2))
    return in_memory_set(spec.name, split, windows[photo, row, column], patch_ids(places))


def patch_places(split: str, side: int) -> npt.NDArray[np.int64]:
    """Return photograph, row and column of the patches' upper left corners, int64 ``[n, 3]``."""
    if split == "test":
        step = side
        bands = [(first, first + BAND) for first in TEST_BANDS]
    else:
        step = STRIDE
        bands = list(TRAIN_BANDS)
    columns = np.concatenate([np.arange(first, end - side + 1, step) for first, end in bands])
    rows = np.arange(0, HEIGHT - side + 1, step)
    grid = np.meshgrid(np.arange(PHOTOGRAPHS[0]), rows, columns, indexing="ij")
    places = np.stack(grid, axis=-1).reshape(-1, 3)
    return places[np.argsort(_hash(patch_ids(places)))]


def patch_ids(places: npt.NDArray[np.int64]) -> Ids:
    """Return the ids of patches by their places ``[n, 3]``; see the module's header."""
    photo, row, column = places.T
    return (photo * HEIGHT + row) * WIDTH + column


def halved_photographs() -> Pixels:
    """Return the photographs at half their size, uint8 ``[photograph, row, column, 3]``.

    A pixel is the mean of 2x2 pixels, rounded half up. The last row of the photographs is left out.

    Raises:
        ValueError: if Pillow cannot read JPEG files, or scikit-learn brings other photographs along.
    """
    if not features.check("jpg"):
        raise ValueError(
            "photos needs Pillow's JPEG reader, which the installed Pillow was built without "
            "(install Pillow from a wheel, or choose --data digits)"
        )
    from sklearn.datasets import load_sample_images  # here, because the import takes a second

    photographs = np.stack(load_sample_images().images)
    if photographs.shape != PHOTOGRAPHS:
        raise ValueError(
            f"scikit-learn's photographs have shape {photographs.shape}, but photos is made of {PHOTOGRAPHS} "
            "(has scikit-learn changed them?)"
        )
    whole = photographs[:, : 2 * HEIGHT].astype(np.uint16)
    sums = whole.reshape(-1, HEIGHT, 2, WIDTH, 2, 3).sum(axis=(2, 4), dtype=np.uint16)
    return ((sums + 2) // 4).astype(np.uint8)


def _hash(ids: Ids) -> npt.NDArray[np.uint64]:
    """Mix ids to 64 bits without pattern (SplitMix64: Steele, Lea, Flood, OOPSLA 2014); products wrap."""
    x = ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)
