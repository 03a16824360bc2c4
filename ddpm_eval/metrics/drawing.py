"""Samples of any reverse process as 8-bit images, with what is lost by clipping and rounding counted."""

from collections.abc import Sequence
from time import monotonic

import numpy as np
import torch

from ddpm_eval.data.pixels import to_pixels
from ddpm_eval.files import digest
from ddpm_eval.metrics.bound import NotFinite
from ddpm_eval.metrics.work import SERIAL, Work
from ddpm_eval.model import samplers
from ddpm_eval.model.samplers import Sampler
from ddpm_eval.results.fields import Array

BATCH_SIZE = 64


def draw_samples(
    sampler: Sampler,
    shape: tuple[int, int, int],
    ids: range,
    *,
    batch_size: int = BATCH_SIZE,
    times: Sequence[int] = (),
    work: Work = SERIAL,
    name: str = "sample",
    only_finite: bool = False,
) -> dict[str, Array] | None:
    """Draw samples and round them to 8 bits.

    Args:
        sampler: of the reverse process.
        shape: channels, rows and columns of an image.
        ids: of the samples; sample k is a function of (seed, k).
        batch_size: images per call of the network; it changes samples by rounding only.
        times: at which x0_hat is kept.
        work: how the work is carried out.
        name: of the work.
        only_finite: refuse a sample that is not finite, instead of marking it.

    Returns:
        images, uint8 ``[sample, channel, row, column]``; out_of_range, the share of elements outside [-1, 1],
        NaN for a sample that is not finite; seconds per sample; with ``times`` also x_0_hat, uint8 ``[sample,
        step, channel, row, column]``. None on processes other than the main one.

    Raises:
        NotFinite: if ``only_finite`` and a sample is not; it is named with the time of the chain.
    """
    items = ranges(ids.start, ids.stop, batch_size)

    def compute(item: range) -> dict[str, Array]:
        return _draw(sampler, shape, item, times, only_finite)

    costs = [len(item) * sampler.num_steps for item in items]
    return work.map(name, digest(ids.start, ids.stop, batch_size, list(times)), items, compute, costs)


def ranges(first: int, end: int, size: int) -> list[range]:
    """Cut ``first`` to ``end - 1`` into ranges of ``size``, the last one shorter."""
    return [range(start, min(start + size, end)) for start in range(first, end, size)]


def _draw(
    sampler: Sampler, shape: tuple[int, int, int], ids: range, times: Sequence[int], only_finite: bool
) -> dict[str, Array]:
    began = monotonic()
    device = sampler.process.schedule.beta.device
    places = torch.arange(ids.start, ids.stop, device=device)
    if times:
        estimates, x_0 = samplers.trajectory(sampler, places, shape, times)
    else:
        x_0 = samplers.draw(sampler, places, shape)
    finite = torch.isfinite(x_0).flatten(1).all(1)
    if only_finite and not finite.all():
        t, sample = samplers.first_not_finite(sampler, places, shape)
        raise NotFinite(f"the network's output is not finite at t = {t} for sample {sample}")
    outside = (x_0.abs() > 1).flatten(1).double().mean(1).masked_fill(~finite, torch.nan)
    broken = ~finite[:, None, None, None]
    drawn = {"images": to_pixels(x_0.masked_fill(broken, 0)), "out_of_range": outside}
    if times:
        drawn["x_0_hat"] = to_pixels(estimates.masked_fill(broken, 0)).transpose(0, 1)
    arrays = {name: value.cpu().numpy() for name, value in drawn.items()}
    return {**arrays, "seconds": np.full(len(ids), (monotonic() - began) / len(ids))}
