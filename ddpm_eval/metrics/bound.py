"""The variational bound of any network on any images, Eq. 5, term by term.

`evaluate_bound` needs a network, a noise schedule and 8-bit images. One network evaluation at (image, t)
serves any number of protocols. The noise at (image, t) is a function of (seed, image id, t); the arithmetic
around the network is float64. Batches run over pairs of image and step, so that the memory depends neither on
T nor on the number of images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

import numpy as np
import torch
from torch import Tensor

from ddpm_eval.data.image_set import ImageSet, from_array
from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.files import content_digest, digest
from ddpm_eval.metrics import timestep_sampling
from ddpm_eval.metrics.measured_model import Model, ModelUnderProtocol
from ddpm_eval.metrics.work import SERIAL, Work
from ddpm_eval.model.diffusion import (
    ReverseStep,
    Schedule,
    decoder_term,
    kl_from_error,
    prior_kl,
    q_posterior_mean,
    q_sample,
)
from ddpm_eval.protocol import PROTOCOLS, Protocol
from ddpm_eval.randomness import Stream, normal
from ddpm_eval.results.bound_terms import BoundTerms, FullBoundTerms, StratifiedBoundTerms
from ddpm_eval.results.fields import Array

ITEM_IMAGES = 32
"""Images whose bound is one work item."""
PILOT_ITEM_IMAGES = 2
BATCH_SIZE = 64
EstimatorName = Literal["full", "stratified"]


@dataclass(frozen=True)
class Estimator:
    """How many terms of the bound are evaluated.

    Example:
        >>> ddpm_eval.Estimator("stratified", evaluations_per_image=40).inclusion is None
        True

    Attributes:
        name: ``full`` evaluates all T terms of each image, ``stratified`` a few importance-sampled ones.
        evaluations_per_image: expected network evaluations per image of the stratified estimator.
        inclusion: probability that each time is evaluated for an image, of T times; None lets a pilot of the
            model decide. Two models that share them are evaluated at the same times of each image.
    """

    name: EstimatorName
    evaluations_per_image: int = 20
    inclusion: tuple[float, ...] | None = None


FULL = Estimator("full")


class NotFinite(ValueError):
    """A network's output is not finite."""


def evaluate_bound(
    model: Model,
    images: ImageSet | Array,
    protocols: Sequence[Protocol] = (PROTOCOLS["paper"],),
    *,
    positions: Array | None = None,
    estimator: EstimatorName | Estimator = "full",
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    work: Work = SERIAL,
) -> list[BoundTerms]:
    """Evaluate the variational bound of images under one or more protocols.

    Args:
        model: the network and its schedule.
        images: 8-bit images, uint8 ``[n, channels, side, side]`` or a set of them.
        protocols: how the bound is computed; they share their network evaluations and noise.
        positions: int64 positions of the images to evaluate; None evaluates all that are bit-exact.
        estimator: ``full`` or ``stratified``, or either with its number of evaluations.
        seed: of the noise.
        batch_size: images per call of the network; it changes results by rounding only.
        work: how the work is carried out.

    Returns:
        The terms under each protocol, in nats per image; on processes other than the main one an empty list.

    Raises:
        ValueError: if a protocol does not suit the model, the images are not uint8 or there are none, or a
            class-conditional model meets images without labels.
        NotFinite: if the network's output is not finite; image and time are named.
    """
    chosen = Estimator(estimator) if isinstance(estimator, str) else estimator
    image_set = images if isinstance(images, ImageSet) else from_array(images)
    where = exact_positions(image_set) if positions is None else np.asarray(positions)
    if len(where) == 0:
        raise ValueError("there are no images to evaluate (none is given, or none is bit-exact)")
    model = model.given_labels(image_set.ids, image_set.labels)
    results: dict[int, BoundTerms] = {}
    for draws in sorted({protocol.draws for protocol in protocols}):
        group = [i for i, protocol in enumerate(protocols) if protocol.draws == draws]
        same = [protocols[i] for i in group]
        task = _Evaluation(model, image_set, where, same, seed, batch_size, work)
        found = task.full() if chosen.name == "full" else task.stratified(chosen)
        results |= dict(zip(group, found, strict=False))
    return [results[i] for i in sorted(results)]


def exact_positions(images: ImageSet) -> Array:
    """Return the positions of the images that are bit-exact, int64 ``[n]``."""
    return np.flatnonzero(~np.isin(images.ids, images.inexact))


def optimal_variance(terms: FullBoundTerms, full: Schedule, schedule: Schedule | None = None) -> Array:
    """Return the isotropic sigma_t^2 that minimises the bound of the images behind ``terms``, indexed 0..T.

    sigma_t^2 = beta_tilde_t + E||mu_tilde - mu_theta||^2 / D, from the measured errors of x0_hat. Source: Bao
    et al., "Analytic-DPM", ICLR 2022, Theorem 1, with the errors in place of the model's own score.

    Args:
        terms: of all steps, with x_0 estimates clipped or not as the variance is to be used.
        full: schedule of all steps.
        schedule: of a shorter chain, float64 on the CPU; None is that of all steps.
    """
    chain = (full if schedule is None else schedule).to("cpu")
    errors = terms.x_0_squared_error.mean(axis=0, dtype=np.float64)
    times = chain.network_time.numpy()[1:]  # 0-based, of the full chain
    error = torch.from_numpy(np.concatenate([[np.nan], errors[times]]))
    return (chain.beta_tilde + chain.mean_weight_x_0**2 * error).numpy()


class _Metadata(TypedDict):
    """What the terms of both estimators say of the evaluation."""

    split: str
    protocol: Protocol
    variance: str
    dimensions: int
    inexact_left_out: int


@dataclass(frozen=True)
class _Evaluation:
    """One call of `evaluate_bound` for protocols with equal numbers of noise draws."""

    model: Model
    images: ImageSet
    positions: Array
    protocols: Sequence[Protocol]
    seed: int
    batch_size: int
    work: Work

    @property
    def schedule(self) -> Schedule:
        return self.model.schedule

    @property
    def draws(self) -> int:
        return self.protocols[0].draws

    def full(self) -> list[BoundTerms]:
        """Evaluate all T terms of each image."""
        steps = self.schedule.timesteps
        models = [self.model.under(protocol) for protocol in self.protocols]
        items = self._items(self.positions, steps)

        def compute(item: Array) -> dict[str, Array]:
            terms, errors = self._pairs(models, _all_pairs(item, np.arange(1, steps + 1)))
            shape = (len(models), len(item), steps)
            with np.errstate(over="ignore"):  # what is too large for float32 is refused as not finite
                return {
                    "image_id": self.images.ids[item],
                    "terms": terms.reshape(shape).swapaxes(0, 1).astype(np.float32),
                    "x_0_squared_error": errors.reshape(shape).swapaxes(0, 1).astype(np.float32),
                    "prior": prior_terms(self.schedule, self._load, item),
                }

        name = f"bound {self.images.split}"
        costs = [len(item) * steps * self.draws for item in items]
        arrays = self.work.map(name, self._key("full", len(items[0])), items, compute, costs)
        if arrays is None:
            return []
        return [
            FullBoundTerms(
                image_id=arrays["image_id"],
                terms=arrays["terms"][:, i],
                x_0_squared_error=arrays["x_0_squared_error"][:, i],
                prior=arrays["prior"],
                network_evaluations=len(self.positions) * steps * self.draws,
                **self._metadata(protocol),
            )
            for i, protocol in enumerate(self.protocols)
        ]

    def stratified(self, estimator: Estimator) -> list[BoundTerms]:
        """Evaluate a few importance-sampled terms of each image."""
        n = len(self.positions)
        per_image = min(estimator.evaluations_per_image, self.schedule.timesteps)
        models = [self.model.under(protocol) for protocol in self.protocols]
        inclusion, offset, chosen, pilot_evaluations = self._design(estimator.inclusion, per_image)
        items = self._items(np.arange(n), per_image)

        def compute(item: Array) -> dict[str, Array]:
            row, column = np.nonzero(chosen[item])
            pairs = np.stack([self.positions[item[row]], chosen[item[row], column]], axis=1)
            terms, errors = self._pairs(models, pairs)
            return {
                "terms": _scatter(chosen[item].shape, row, column, terms),
                "errors": _scatter(chosen[item].shape, row, column, errors),
                "prior": prior_terms(self.schedule, self._load, self.positions[item]),
            }

        costs = [len(item) * per_image * self.draws for item in items]
        # the times follow the pilot, which another device rounds in another way
        key = self._key("stratified", len(items[0]), content_digest([chosen]))
        arrays = self.work.map(f"bound {self.images.split}", key, items, compute, costs)
        if arrays is None:
            return []
        return [
            StratifiedBoundTerms(
                image_id=self.images.ids[self.positions],
                t=chosen,
                terms=arrays["terms"][:, i],
                x_0_squared_error=arrays["errors"][:, i],
                prior=arrays["prior"],
                inclusion=inclusion,
                offset=offset,
                network_evaluations=(int((chosen > 0).sum()) + pilot_evaluations) * self.draws,
                **self._metadata(protocol),
            )
            for i, protocol in enumerate(self.protocols)
        ]

    def _design(self, given: tuple[float, ...] | None, per_image: int) -> tuple[Array, Array, Array, int]:
        """Return the probabilities of times, the offsets and times of the images, and the pilot's cost."""
        steps = self.schedule.timesteps
        n = len(self.positions)
        if given is None:
            pilot = self._pilot()
            times = timestep_sampling.pilot_times(steps)
            return *timestep_sampling.select(pilot, times, steps, n, per_image, self.seed), pilot.size
        if len(given) != steps:
            raise ValueError(f"probabilities of {len(given)} times do not fit a chain of T = {steps} steps")
        inclusion = np.array(given)
        return inclusion, *timestep_sampling.times_table(inclusion, n, self.seed), 0

    def _pilot(self) -> Array:
        """Return the pilot's terms, ``[image, time]``, on every process.

        They are always evaluated under one protocol, so that no result depends on which others were measured
        with it.
        """
        first = self.positions[: timestep_sampling.PILOT_IMAGES]
        models = [self.model.under(PROTOCOLS["paper"])]
        times = timestep_sampling.pilot_times(self.schedule.timesteps)
        starts = range(0, len(first), PILOT_ITEM_IMAGES)
        items = [first[start : start + PILOT_ITEM_IMAGES] for start in starts]

        def compute(item: Array) -> dict[str, Array]:
            terms, _ = self._pairs(models, _all_pairs(item, times))
            return {"terms": terms.reshape(len(item), len(times))}

        name = f"bound {self.images.split} pilot"
        costs = [len(item) * len(times) * self.draws for item in items]
        arrays = self.work.map(name, self._key("pilot"), items, compute, costs, everywhere=True)
        assert arrays is not None
        terms = arrays["terms"]
        bad = np.argwhere(~np.isfinite(terms))
        if len(bad):
            raise NotFinite(
                f"the term of the bound at t = {times[bad[0][1]]} is not finite for image "
                f"{self.images.ids[first[bad[0][0]]]} (did the training diverge?)"
            )
        return terms

    def _items(self, images: Array, evaluations: int) -> list[Array]:
        """Cut images into items that fill a few batches, however many processes share them."""
        size = max(ITEM_IMAGES, -(-4 * self.batch_size // evaluations))
        return [images[start : start + size] for start in range(0, len(images), size)]

    def _key(self, *parts: object) -> str:
        """Return the digest of what items depend on: images, protocols and ``parts``."""
        images = (self.images.digest, content_digest([self.positions]))
        return digest(*images, [protocol.model_dump_json() for protocol in self.protocols], *parts)

    def _metadata(self, protocol: Protocol) -> "_Metadata":
        return {
            "split": self.images.split,
            "protocol": protocol,
            "variance": self.model.variance_name(protocol),
            "dimensions": self.images.channels * self.images.side**2,
            "inexact_left_out": int(np.isin(self.images.ids, self.images.inexact).sum()),
        }

    def _pairs(self, models: Sequence[ModelUnderProtocol], pairs: Array) -> tuple[Array, Array]:
        return evaluate_pairs(
            models,
            self._load,
            self.images.ids,
            pairs,
            seed=self.seed,
            draws=self.draws,
            batch_size=self.batch_size,
            progress=self.work.advance,
        )

    def _load(self, positions: Array) -> Tensor:
        pixels = torch.from_numpy(self.images.take(positions)).to(self.schedule.beta.device)
        return to_model_range(pixels).double()


@torch.inference_mode()
def evaluate_terms(
    models: Sequence[ModelUnderProtocol], x_0: Tensor, ids: Tensor, t: Tensor, seed: int, draw: int = 0
) -> tuple[Tensor, Tensor]:
    """Evaluate L_{t-1} and the error of x0_hat for pairs of image and time, with one network evaluation each.

    Args:
        models: of one network and chain.
        x_0: 8-bit images in [-1, 1], float64 ``[pair, channels, side, side]``.
        ids: int64 image ids ``[pair]``, which select the noise.
        t: int64 times ``[pair]``.
        seed: of the noise.
        draw: number of the noise draw.

    Returns:
        Terms in nats per image and squared errors (mean over elements, units of [-1, 1]), each ``[model,
        pair]`` float64.

    Raises:
        NotFinite: naming the image and the time, if the network's output is not finite.
    """
    process = models[0].process
    schedule = process.schedule
    stream = Stream.BOUND if draw == 0 else Stream.BOUND_EXTRA_DRAWS + draw
    timestep = schedule.network_time.to(t.device)[t]
    eps = normal(seed, stream, ids, timestep + 1, tuple(x_0.shape[1:]), x_0.dtype)
    x_t = q_sample(schedule, x_0, t, eps)
    output = process.evaluate(x_t, t, ids)
    _check_output(output, ids, t)
    posterior_mean = q_posterior_mean(schedule, x_0, x_t, t)
    estimates: dict[tuple[bool, str], tuple[ReverseStep, Tensor]] = {}  # alike but for a fixed variance
    terms = []
    errors = []
    for model in models:
        process = model.process
        shared = process.clip, process.variance if isinstance(process.variance, str) else ""
        if shared not in estimates:
            step = process.p_mean_variance(output, x_t, t)
            estimates[shared] = step, (posterior_mean - step.mean).square()
        step, mean_error = estimates[shared]
        terms.append(_term(model, step, mean_error, x_0, t))
        errors.append((step.x_0_hat - x_0).square().flatten(1).mean(1))
    return torch.stack(terms), torch.stack(errors)


def _check_output(output: Tensor, ids: Tensor, t: Tensor) -> None:
    finite = torch.isfinite(output).flatten(1).all(1)
    if not finite.all():
        bad = int((~finite).nonzero()[0])
        raise NotFinite(f"the network's output is not finite at t = {int(t[bad])} for image {int(ids[bad])}")


def _term(model: ModelUnderProtocol, step: ReverseStep, mean_error: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
    """Return L_{t-1}: a KL divergence, and the decoder's term at t = 1."""
    variance = model.process.variance
    log_variance = variance.log()[t] if isinstance(variance, Tensor) else step.log_variance
    term = kl_from_error(model.process.schedule, mean_error, log_variance, t)
    last = (t == 1).nonzero()[:, 0]
    if len(last):
        per_element = _per_element(log_variance, x_0)[last]
        at_last = replace(step, mean=step.mean[last], log_variance=per_element)
        term[last] = decoder_term(at_last, x_0[last], model.decoder)
    return term


def _per_element(log_variance: Tensor, like: Tensor) -> Tensor:
    if log_variance.ndim == like.ndim:
        return log_variance
    return log_variance.reshape(-1, *[1] * (like.ndim - 1))


def evaluate_pairs(
    models: Sequence[ModelUnderProtocol],
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
        models: of one network and chain.
        load: maps positions ``[k]`` to images in [-1, 1] on the device, float64 ``[k, channels, side,
            side]``.
        ids: ids by position.
        pairs: int64 ``[pair, 2]``: position of the image, time.
        seed: of the noise.
        draws: noise draws per pair.
        batch_size: pairs per network call.
        progress: called with the number of network evaluations just done.

    Returns:
        Terms and squared errors as in `evaluate_terms`, each ``[model, pair]``.
    """
    terms = np.zeros((len(models), len(pairs)))
    errors = np.zeros_like(terms)
    for start in range(0, len(pairs), batch_size):
        part = slice(start, start + batch_size)
        position, inverse = np.unique(pairs[part, 0], return_inverse=True)
        x_0 = load(position)[torch.from_numpy(inverse)]
        t = torch.from_numpy(pairs[part, 1]).to(x_0.device)
        image = torch.from_numpy(ids[pairs[part, 0]]).to(x_0.device)
        for draw in range(draws):
            term, error = evaluate_terms(models, x_0, image, t, seed, draw)
            terms[:, part] += term.cpu().numpy() / draws
            errors[:, part] += error.cpu().numpy() / draws
            progress(len(t))
    return terms, errors


def prior_terms(schedule: Schedule, load: Callable[[Array], Tensor], positions: Array) -> Array:
    """Return L_T in nats for the images at ``positions``, float64 ``[len(positions)]``."""
    return prior_kl(schedule, load(positions)).cpu().numpy()


def _all_pairs(positions: Array, times: Array) -> Array:
    """Return all pairs of image and time, ``[pair, 2]``."""
    return np.stack(np.meshgrid(positions, times, indexing="ij"), axis=-1).reshape(-1, 2)


def _scatter(shape: tuple[int, ...], row: Array, column: Array, values: Array) -> Array:
    """Lay ``[model, pair]`` out as ``[image, model, time]``, zero where nothing was evaluated."""
    out = np.zeros((shape[0], len(values), shape[1]), dtype=values.dtype)
    out[row, :, column] = values.T
    return out
