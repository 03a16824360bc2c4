"""The variational bound of each image at each step, Eq. 5: the atoms of every likelihood figure.

One network evaluation at (image, t) is read under any number of protocols. The noise at (image, t) is a function of (seed,
image id, t); the arithmetic around the network is float64. Batches run over pairs of image and step, so that memory depends
neither on T nor on the number of images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ddpm_eval.diffusion import Network, ReverseProcess, Schedule, decoder_term, kl_term, prior_kl, q_sample
from ddpm_eval.randomness import Stream, derive_seed, normal
from ddpm_eval.records import Array
from ddpm_eval.spec import Decoder, Prediction, Protocol


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
    trained_variance: str

    def reading(self, protocol: Protocol, optimal: Array | None = None) -> Reading:
        """Return how ``protocol`` reads the network.

        Args:
            protocol: the choices.
            optimal: the table of sigma_t^2 indexed 0..T that ``optimal`` stands for.

        Raises:
            ValueError: if the protocol's variance does not exist for this model.
        """
        name = self.trained_variance if protocol.variance == "trained" else protocol.variance
        learned = self.trained_variance.startswith("learned")
        variance: object = name
        if name == "optimal":
            if optimal is None:
                raise ValueError("variance 'optimal' needs an estimate of the model's errors on training images first")
            variance = torch.from_numpy(optimal).to(self.schedule.beta)
        elif name in ("fixed-large", "fixed-small"):
            variance = self.schedule.fixed_variance(name)  # type: ignore[arg-type]
        elif not learned or name != self.trained_variance:
            raise ValueError(f"variance {name!r} asked for, but this model was trained with {self.trained_variance!r}")
        process = ReverseProcess(self.network, self.schedule, self.prediction, variance, protocol.clip)  # type: ignore[arg-type]
        return Reading(process, protocol.decoder)


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
        Terms in nats per image and squared errors (mean over elements, units of [-1, 1]), each ``[reading, pair]`` float64.

    Raises:
        ValueError: if the network's output is not finite; the image and the time are named.
    """
    process = readings[0].process
    schedule = process.schedule
    stream = Stream.BOUND if draw == 0 else Stream.BOUND_EXTRA_DRAWS + draw
    eps = normal(seed, stream, ids, schedule.network_time.to(t.device)[t] + 1, tuple(x_0.shape[1:]), x_0.dtype)
    x_t = q_sample(schedule, x_0, t, eps)
    output = process.network(x_t, schedule.network_time.to(t.device)[t])
    finite = torch.isfinite(output).flatten(1).all(1)
    if not finite.all():
        bad = int((~finite).nonzero()[0])
        raise ValueError(f"the network's output is not finite at t = {int(t[bad])} for image {int(ids[bad])}")
    last = (t == 1).nonzero()[:, 0]
    terms, errors = [], []
    for reading in readings:
        step = reading.process.read(output, x_t, t)
        term = kl_term(schedule, step, x_0, x_t, t)
        if len(last):
            at_last = replace(step, mean=step.mean[last], log_variance=step.log_variance[last])
            term[last] = decoder_term(at_last, x_0[last], reading.decoder)
        terms.append(term)
        errors.append((step.x_0_hat - x_0).square().flatten(1).mean(1))
    return torch.stack(terms), torch.stack(errors)


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
        load: maps positions ``[k]`` to images in [-1, 1] on the device, float64 ``[k, channels, side, side]``.
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


# The stratified estimator


def inclusion_probabilities(importance: Array, evaluations: float) -> Array:
    """Turn importances into probabilities that a time is evaluated for an image.

    Probabilities are proportional to importance with their sum equal to ``evaluations``; those that would exceed one are set
    to one and the rest rescaled.

    Args:
        importance: positive, shape ``[T]``.
        evaluations: expected evaluations per image, at most T.

    Raises:
        ValueError: if there are fewer than two evaluations per image or more than T.
    """
    if not 2 <= evaluations <= len(importance):
        raise ValueError(f"{evaluations:g} evaluations per image asked for; the estimator needs 2 to T = {len(importance)}")
    certain = np.zeros(len(importance), dtype=bool)
    while True:
        left = evaluations - certain.sum()
        probability = np.where(certain, 1.0, importance * left / importance[~certain].sum())
        if (probability <= 1 + 1e-12).all():
            return np.minimum(probability, 1.0)
        certain |= probability >= 1


def systematic_times(inclusion: Array, offsets: Array) -> list[Array]:
    """Select times by systematic sampling, one offset in [0, 1) per image.

    Time t is selected when a tick ``offset + k`` falls into its interval of the cumulated probabilities, which happens with
    probability ``inclusion[t - 1]`` over a uniform offset; low and high times are selected in their proportions for every
    image, which is what makes the estimate precise.

    Returns:
        For each image the increasing times selected, int64.
    """
    edges = np.concatenate([[0.0], np.cumsum(inclusion)])
    edges[1:][inclusion == 1.0] = edges[:-1][inclusion == 1.0] + 1.0  # exact, whatever the rounding before
    counts = np.floor(edges[None, :] - offsets[:, None] + 1.0)
    return [np.flatnonzero(np.diff(row)) + 1 for row in counts]


def stratified_offsets(n: int, seed: int) -> Array:
    """Return one uniform offset per image, stratified: each interval of width 1/n holds exactly one."""
    rng = np.random.default_rng(derive_seed(seed, n))
    return (rng.permutation(n) + rng.random(n)) / n


def pilot_times(timesteps: int, count: int = 24) -> Array:
    """Return times for the pilot: all of the first few, then geometrically spaced up to T."""
    spaced = np.round(np.geomspace(1, timesteps, count)).astype(np.int64)
    return np.unique(np.concatenate([np.arange(1, min(4, timesteps) + 1), spaced]))


def importance_from_pilot(times: Array, terms: Array, timesteps: int, floor: float = 0.02) -> Array:
    """Interpolate the pilot's root mean square terms to every time (linearly in log t, log value).

    Args:
        times: of the pilot, increasing ``[k]``.
        terms: nats ``[image, k]``.
        timesteps: T.
        floor: share of the importance spread evenly over log t, so that every time can be selected.
    """
    rms = np.sqrt(np.mean(np.square(terms), axis=0)) + 1e-12
    t = np.arange(1, timesteps + 1)
    importance = np.exp(np.interp(np.log(t), np.log(times), np.log(rms)))
    importance[times - 1] = rms
    spread = 1 / t
    return (1 - floor) * importance / importance.sum() + floor * spread / spread.sum()


def expected_evaluations(n: int, per_image: float, pilot_images: int, timesteps: int) -> int:
    """Return how many network evaluations a stratified estimate takes, its pilot included."""
    return math.ceil(n * per_image) + pilot_images * len(pilot_times(timesteps))
