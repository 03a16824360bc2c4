"""The 1,797 handwritten digits that scikit-learn brings along: 8x8 with 17 levels, scaled to 8 bits.

One of five images of each class, drawn by lot, is a test image.
"""

import numpy as np

from ddpm_eval.data.image_set import ImageSet, in_memory_set
from ddpm_eval.data.splits import stratified_split

TEST_EVERY = 5


def read_digits(split: str) -> ImageSet:
    """Read a split of the digits."""
    from sklearn.datasets import load_digits  # here, because it takes a second and only this set needs it

    levels, labels = load_digits(return_X_y=True)
    images = np.round(levels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    ids = stratified_split(labels, TEST_EVERY, split)
    return in_memory_set("digits", split, images[ids], ids, labels[ids].astype(np.int64))
