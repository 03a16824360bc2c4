"""Whether a network counts times as it is asked: from 0, for t = 1, to T - 1, for t = T.

Two checks: the network is evaluated at both ends of the chain, where one with another number of steps or
another first time fails; and its estimates of x_0 are compared with those that it makes when it is given the
time before or after. A network that counts otherwise is better then, most of all at the first times, between
which the noise grows by the largest factor.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.metrics.measured_model import Model
from ddpm_eval.model.diffusion import ReverseProcess, q_sample
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.randomness import Stream, normal
from ddpm_eval.results.fields import Array

FAILURES = (RuntimeError, TypeError, IndexError, AssertionError)
"""What networks raise when their input does not suit them."""
COMPARED_TIMES = (1, 2, 3, 5, 8)
COMPARED_IMAGES = 16
STANDARD_ERRORS = 6.0
"""How sure the comparison must be, in standard errors of the mean logarithm of the errors' ratio."""
SMALLEST_GAIN = 0.01
"""A smaller share of the squared error says nothing: an untrained network has such differences, too."""


@torch.inference_mode()
def check_ends(model: Model, images: ImageSet) -> None:
    """Evaluate the network on one image in the middle of the chain, at t = 1 and at t = T.

    Raises:
        ValueError: if it fails; the time is named, and whether it fails everywhere or at the end only.
    """
    last = model.schedule.timesteps
    process = model.given_labels(images.ids, images.labels).under(PROTOCOLS["exact"]).process
    x_0, ids = _first_images(process, images, 1)
    try:
        _squared_errors(process, x_0, ids, (last + 1) // 2)
    except FAILURES as error:
        hint = "" if model.conditional else " (or is it class-conditional?)"
        raise ValueError(
            f"the network cannot be evaluated on images of shape {list(x_0.shape)}{hint}: {first_line(error)}"
        ) from error
    for t in (1, last):
        try:
            _squared_errors(process, x_0, ids, t)
        except FAILURES as error:
            time = "T" if t == last else "1"
            raise ValueError(
                f"the network fails at t = {time}, where it is given {int(process.schedule.network_time[t])} "
                "(times are 0 to T - 1: does it count from 1, or has it another number of steps?): "
                f"{first_line(error)}"
            ) from error


@torch.inference_mode()
def time_offset(model: Model, images: ImageSet) -> int:
    """Return by how much the network counts times otherwise than it is asked to: 0, or -1 or 1.

    It is 1 for a network that counts from 1: its estimates of x_0 are better with the time after. A chain
    that skips times is not examined: 0 is returned.
    """
    schedule = model.schedule
    if not torch.equal(schedule.network_time.cpu(), torch.arange(schedule.timesteps + 1) - 1):
        return 0
    process = model.given_labels(images.ids, images.labels).under(PROTOCOLS["exact"]).process
    x_0, ids = _first_images(process, images, COMPARED_IMAGES)
    return next((shift for shift in (-1, 1) if _is_better(process, x_0, ids, shift)), 0)


def doubt_of_times(offset: int) -> str:
    """Return the sentence about a network whose `time_offset` this is, "" if it is 0."""
    if offset == 0:
        return ""
    later, sign = ("after", "+") if offset > 0 else ("before", "-")
    return (
        f"the network's estimates of x_0 are better with the time {later} the one that it is given: is its "
        f"count of times off by one? (times are 0 to T - 1; lambda x, t: network(x, t {sign} 1) shifts them, "
        "verify_times=False measures it as it is)"
    )


def _is_better(process: ReverseProcess, x_0: Tensor, ids: Tensor, shift: int) -> bool:
    """Tell whether estimates with times that are shifted are better beyond doubt."""
    times = [t for t in COMPARED_TIMES if 1 <= t + shift and t + max(shift, 0) <= process.schedule.timesteps]
    if not times:
        return False
    ratios = np.concatenate(
        [_squared_errors(process, x_0, ids, t, shift) / _squared_errors(process, x_0, ids, t) for t in times]
    )
    gain = -np.log(ratios)
    if not np.isfinite(gain).all() or len(gain) < 2:
        return False
    standard_error = gain.std(ddof=1) / np.sqrt(len(gain))
    return bool(gain.mean() > max(SMALLEST_GAIN, STANDARD_ERRORS * standard_error))


def _squared_errors(process: ReverseProcess, x_0: Tensor, ids: Tensor, t: int, shift: int = 0) -> Array:
    """Return the squared error of x0_hat of each image, where the network is told another time."""
    schedule = process.schedule
    time = torch.full_like(ids, t)
    eps = normal(
        0, Stream.BOUND, ids, schedule.network_time.to(ids.device)[time] + 1, x_0.shape[1:], x_0.dtype
    )
    x_t = q_sample(schedule, x_0, time, eps)
    told = replace(process, schedule=replace(schedule, network_time=schedule.network_time + shift))
    step = told(x_t, time, ids)
    errors: Array = (step.x_0_hat - x_0).square().flatten(1).mean(1).cpu().numpy()
    return errors


def _first_images(process: ReverseProcess, images: ImageSet, count: int) -> tuple[Tensor, Tensor]:
    """Return the first images in [-1, 1], float64, and their ids."""
    device = process.schedule.beta.device
    index = np.arange(min(count, len(images)))
    x_0 = to_model_range(torch.from_numpy(images.take(index)).to(device)).double()
    return x_0, torch.from_numpy(images.ids[index]).to(device)


def first_line(error: Exception) -> str:
    """Return the type of an error and the first line of what it says."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
