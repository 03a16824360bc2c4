"""The split into training and test images of a data set that comes without one."""

import numpy as np

from ddpm_eval.data.image_set import Ids


def every_nth(n: int, step: int, split: str) -> Ids:
    """Return the ids of a split of n images in which every ``step``-th, from the first, is a test image.

    Args:
        n: number of images in the whole set.
        step: distance between two test images.
        split: ``train``, ``test`` or ``all``.

    Raises:
        ValueError: if no image is left for the split.
    """
    ids = np.arange(n)
    if split == "all":
        return ids
    chosen = ids[(ids % step == 0) == (split == "test")]
    if not len(chosen):
        raise ValueError(f"{n} images leave none for the {split} split (every {step}th is a test image)")
    return chosen
