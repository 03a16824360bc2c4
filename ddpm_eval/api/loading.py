"""Images to be measured, a split of a data set by its name or an array; and the network of a run."""

from pathlib import Path

import numpy as np

from ddpm_eval.api.network_model import Model
from ddpm_eval.data import datasets
from ddpm_eval.data.image_set import ImageSet, from_array
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.results.fields import Array
from ddpm_eval.spec import DataSpec
from ddpm_eval.training.checkpoint import load_network

SUBSET_SEED = 0
"""Seed of the random subset of images where their number is limited."""


def load_run(folder: Path | str) -> Model:
    """Load the network of a run that was trained here or imported, with its averaged weights.

    Example:
        >>> ddpm_eval.load_run("models/cifar10-tiny").shape
        (3, 32, 32)

    Args:
        folder: of the run.

    Raises:
        ValueError: with one sentence, if the folder holds no checkpoint, or a damaged one.
    """
    spec, network = load_network(Path(folder))
    diffusion = spec.diffusion
    shape = (spec.data.channels, spec.data.side, spec.data.side)
    return Model(
        network,
        predicts=diffusion.prediction,
        variance=diffusion.variance_name,
        schedule=make_schedule(diffusion),
        shape=shape,
    )


def load_images(
    source: str | Array,
    split: str = "test",
    *,
    labels: Array | None = None,
    limit: int | None = None,
    side: int | None = None,
    root: Path | str | None = None,
) -> ImageSet:
    """Load a split of a data set, or make an image set of an array.

    Example:
        >>> len(ddpm_eval.load_images("digits", "test"))
        360

    Args:
        source: a data set's name (``digits``, ``cifar10``, ..., ``npz:FILE``, ``folder:DIR``), or an array,
            uint8 ``[n, channels, side, side]`` with 1 or 3 channels.
        split: ``train`` or ``test``; of a folder or an unsplit file also ``all``.
        labels: class of each image of an array, integers ``[n]``.
        limit: the most images; of more a fixed random subset is taken.
        side: in pixels, of data sets that are cropped to any side (celeba, lsun).
        root: folder of downloaded data sets, by default ``.data``.

    Raises:
        ValueError: with one sentence, if there is no such data set or the images cannot be used.
    """
    if isinstance(source, str):
        if labels is not None:
            raise ValueError(f"labels are given for {source!r}, which has its own (they are for arrays)")
        channels, native = datasets.inspect(source)
        spec = DataSpec(name=source, channels=channels, side=side or native)  # type: ignore[arg-type] # 1 or 3
        images = datasets.load(spec, split, None if root is None else Path(root))
    else:
        images = from_array(np.asarray(source), split=split, labels=labels)
    if limit is None or limit >= len(images):
        return images
    chosen = np.random.default_rng(SUBSET_SEED).permutation(len(images))[:limit]
    return images.subset(np.sort(chosen))
