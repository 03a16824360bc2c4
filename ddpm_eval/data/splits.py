"""The split into training and test images of a data set that comes without one."""

import numpy as np
import numpy.typing as npt

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
    return _chosen(ids, ids % step == 0, split, f"every {step}th is a test image")


def stratified_split(labels: Ids, every: int, split: str, seed: int = 0) -> Ids:
    """Return the ids of a split in which one of ``every`` images of each class, drawn by lot, is for testing.

    The images are shuffled within their classes, the classes are put one after the other, and every
    ``every``-th image of this list, from the first, is a test image. In all these are n / every images,
    rounded up, and of each class its share, rounded up or down.

    Args:
        labels: class of each image of the whole set, ``[n]``.
        every: images for each of which there is one test image.
        split: ``train``, ``test`` or ``all``.
        seed: of the order within the classes.

    Returns:
        The ids in increasing order.

    Raises:
        ValueError: if no image is left for the split.
    """
    ids = np.arange(len(labels))
    if split == "all":
        return ids
    lots = np.random.PCG64(seed).random_raw(len(labels))  # which, unlike permutations, numpy never changes
    test = np.lexsort((lots, labels))[::every]
    return _chosen(ids, np.isin(ids, test), split, f"one of {every} is a test image")


def _chosen(ids: Ids, is_test: npt.NDArray[np.bool_], split: str, rule: str) -> Ids:
    chosen = ids[is_test == (split == "test")]
    if not len(chosen):
        raise ValueError(f"{len(ids)} images leave none for the {split} split ({rule})")
    return chosen
