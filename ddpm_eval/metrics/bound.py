"""The variational bound of each image at each step, Eq. 5: the atoms of every likelihood figure.

One network evaluation at (image, t) is read under any number of protocols. The noise at (image, t) is a
function of (seed, image id, t); the arithmetic around the network is float64. Batches run over pairs of image
and step, so that memory depends neither on T nor on the number of images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ddpm_eval.model.diffusion import (
    Network,
    ReverseProcess,
    ReverseStep,
    ReverseVariance,
    Schedule,
    decoder_term,
    kl_from_error,
    prior_kl,
    q_posterior_mean,
    q_sample,
)
from ddpm_eval.protocol import Decoder, Protocol
from ddpm_eval.randomness import Stream, normal
from ddpm_eval.results.records import Array
from ddpm_eval.spec import Prediction, Variance


@dataclass(frozen=True)
class Reading:
    """One way to read the network's outputs: a reverse process and a decoder."""

    process: ReverseProcess
    decoder: Decoder


@dataclass(frozen=True)
class Model:
    """A network with its chain and the variance it was trained with."""

    network: Network
    schedule: Schedule
    prediction: Prediction
    trained_variance: Variance

    def reading(self, protocol: Protocol, optimal: Array | None = None) -> Reading:
        """Return how ``protocol`` reads the network.

        Args:
            protocol: the choices.
            optimal: the table of sigma_t^2 indexed 0..T that ``optimal`` stands for.

        Raises:
            ValueError: if the protocol's variance does not exist for this model.
        """
        name = self.trained_variance if protocol.variance == "trained" else protocol.variance
        if name == "optimal":
            if optimal is None:
                raise ValueError(
                    "variance 'optimal' needs an estimate of the model's errors on training images first"
                )
            variance: ReverseVariance = torch.from_numpy(optimal).to(self.schedule.beta)
        elif name.startswith("learned") and name != self.trained_variance:
            raise ValueError(
                f"variance {name!r} asked for, but this model was trained with {self.trained_variance!r}"
            )
        else:
            variance = self.schedule.variance(name)
        process = ReverseProcess(self.network, self.schedule, self.prediction, variance, protocol.clip)
        return Reading(process, protocol.decoder)


class NotFinite(ValueError):
    """A network's output is not finite."""


@torch.inference_mode()
def evaluate(
    readings: Sequence[Reading], x_0: Tensor, ids: Tensor, t: Tensor, seed: int, draw: int = 0
) -> tuple[Tensor, Tensor]:
    """Evaluate L_{t-1} and the error of x0_hat for pairs of image and time, with one network evaluation each.

    Args:
        readings: of one network and chain.
        x_0: 8-bit images in [-1, 1], float64 ``[pair, channels, side, side]``.
        ids: int64 image ids ``[pair]``, which select the noise.
        t: int64 times ``[pair]``.
        seed: of the noise.
        draw: number of the noise draw.

    Returns:
        Terms in nats per image and squared errors (mean over elements, units of [-1, 1]), each ``[reading,
        pair]`` float64.

    Raises:
        NotFinite: naming the image and the time, if the network's output is not finite.
    """
    process = readings[0].process
    schedule = process.schedule
    stream = Stream.BOUND if draw == 0 else Stream.BOUND_EXTRA_DRAWS + draw
    eps = normal(
        seed, stream, ids, schedule.network_time.to(t.device)[t] + 1, tuple(x_0.shape[1:]), x_0.dtype
    )
    x_t = q_sample(schedule, x_0, t, eps)
    output = process.network(x_t, schedule.network_time.to(t.device)[t])
    finite = torch.isfinite(output).flatten(1).all(1)
    if not finite.all():
        bad = int((~finite).nonzero()[0])
        raise NotFinite(f"the network's output is not finite at t = {int(t[bad])} for image {int(ids[bad])}")
    last = (t == 1).nonzero()[:, 0]
    posterior_mean = q_posterior_mean(schedule, x_0, x_t, t)
    estimates: dict[
        bool, tuple[ReverseStep, Tensor]
    ] = {}  # readings that clip alike share all but the variance
    terms, errors = [], []
    for reading in readings:
        process = reading.process
        if process.clip not in estimates:
            step = process.read(output, x_t, t)
            estimates[process.clip] = step, (posterior_mean - step.mean).square()
        step, mean_error = estimates[process.clip]
        log_variance = (
            process.variance.log()[t] if isinstance(process.variance, Tensor) else step.log_variance
        )
        term = kl_from_error(schedule, mean_error, log_variance, t)
        if len(last):
            at_last = replace(step, mean=step.mean[last], log_variance=_per_element(log_variance, x_0)[last])
            term[last] = decoder_term(at_last, x_0[last], reading.decoder)
        terms.append(term)
        errors.append((step.x_0_hat - x_0).square().flatten(1).mean(1))
    return torch.stack(terms), torch.stack(errors)


def _per_element(log_variance: Tensor, like: Tensor) -> Tensor:
    return (
        log_variance if log_variance.ndim == like.ndim else log_variance.reshape(-1, *[1] * (like.ndim - 1))
    )


def evaluate_pairs(
    readings: Sequence[Reading],
    load: Callable[[Array], Tensor],
    ids: Array,
    pairs: Array,
    *,
    seed: int,
    draws: int,
    batch_size: int,
    progress: Callable[[int], None],
) -> tuple[Array, Array]:
    """Evaluate many pairs in batches, averaging over noise draws.

    Args:
        readings: of one network and chain.
        load: maps positions ``[k]`` to images in [-1, 1] on the device, float64 ``[k, channels, side,
            side]``.
        ids: ids by position.
        pairs: int64 ``[pair, 2]``: position of the image, time.
        seed: of the noise.
        draws: noise draws per pair.
        batch_size: pairs per network call.
        progress: called with the number of network evaluations just done.

    Returns:
        Terms and squared errors as in `evaluate`, each ``[reading, pair]``.
    """
    terms = np.zeros((len(readings), len(pairs)))
    errors = np.zeros_like(terms)
    for start in range(0, len(pairs), batch_size):
        part = slice(start, start + batch_size)
        position, inverse = np.unique(pairs[part, 0], return_inverse=True)
        x_0 = load(position)[torch.from_numpy(inverse)]
        t = torch.from_numpy(pairs[part, 1]).to(x_0.device)
        image = torch.from_numpy(ids[pairs[part, 0]]).to(x_0.device)
        for draw in range(draws):
            term, error = evaluate(readings, x_0, image, t, seed, draw)
            terms[:, part] += term.cpu().numpy() / draws
            errors[:, part] += error.cpu().numpy() / draws
            progress(len(t))
    return terms, errors


def prior_terms(schedule: Schedule, load: Callable[[Array], Tensor], positions: Array) -> Array:
    """Return L_T in nats for the images at ``positions``, float64 ``[len(positions)]``."""
    return prior_kl(schedule, load(positions)).cpu().numpy()
