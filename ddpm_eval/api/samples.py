"""Samples of any model as 8-bit images."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ddpm_eval.api.network_model import Model
from ddpm_eval.api.progress_bars import shown
from ddpm_eval.data.image_set import integer_list
from ddpm_eval.metrics.drawing import draw_samples
from ddpm_eval.metrics.work import SerialWork
from ddpm_eval.model.samplers import make_sampler
from ddpm_eval.protocol import Protocol
from ddpm_eval.results.fields import Array
from ddpm_eval.results.records import Samples
from ddpm_eval.runtime import Progress
from ddpm_eval.spec import Method

BATCH_SIZE = 64


def sample(
    model: Model,
    n: int,
    *,
    method: Method = "ancestral",
    num_steps: int | None = None,
    labels: int | Sequence[int] | Array | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: bool | Progress = True,
) -> Samples:
    """Draw samples, rounded to 8 bits.

    Example:
        >>> model.shape = (1, 8, 8)
        >>> ddpm_eval.sample(model, 3, method="ddim", num_steps=5, progress=False).images.shape
        (3, 1, 8, 8)

    Args:
        model: the network with its schedule and ``shape``.
        n: number of samples; sample k is a function of (seed, k).
        method: ``ancestral`` (Algorithm 2) or ``ddim`` (Song et al., 2021, with eta = 0).
        num_steps: steps of the chain, evenly spaced up to T; None takes all T. Other spacings are those of
            `Model.respaced`: ``sample(model.respaced(50, "leading"), 1000, method="ddim")``.
        labels: of a conditional network: a class for each sample, or one for all.
        seed: of all noise.
        batch_size: images per call of the network; it changes samples by rounding only.
        progress: whether a bar is shown, or a function of stage, done and total.

    Returns:
        images, uint8 ``[n, channels, rows, columns]``; out_of_range, the share of each sample's elements that
        were outside [-1, 1] before they were clipped; seconds per sample.

    Raises:
        ValueError: if the shape of an image is unknown, labels are missing, the chain cannot be shortened, or
            a sample is not finite.

    Source: Ho, Jain, Abbeel (2020), Algorithm 2; Song, Meng, Ermon (2021), Eq. 12.
    """
    shape = model.shape
    if shape is None:
        raise ValueError("the shape of an image is not known (set model.shape = channels, rows, columns)")
    if method == "ddim" and not isinstance(model.variance, str):
        model = replace(model, variance="fixed-small")  # DDIM uses no variance
    chain = model if num_steps in (None, model.timesteps) else model.respaced(num_steps)
    clipped = Protocol(name="sampling", clip=model.clip_samples, decoder="exact")
    with chain.evaluating() as measured, shown(progress) as report:
        given = measured.given_labels(np.arange(n), _classes(model, labels, n))
        sampler = make_sampler(given.under(clipped).process, seed, method)
        drawn = draw_samples(
            sampler, shape, range(n), batch_size=batch_size, work=SerialWork(report), only_finite=True
        )
    assert drawn is not None
    return Samples(**drawn, method=method, num_steps=sampler.num_steps, seed=seed)


def _classes(model: Model, labels: int | Sequence[int] | Array | None, n: int) -> Array | None:
    """Return the class of each sample, int64 ``[n]``."""
    if model.conditional != (labels is not None):
        raise ValueError(
            "the network is class-conditional: labels must say a class for each sample, or one for all"
            if model.conditional
            else "labels are given, but the network is not class-conditional"
        )
    if labels is None:
        return None
    return integer_list(
        np.full(n, labels) if isinstance(labels, int) else np.asarray(labels), "labels", length=n
    )
