"""Samplers of the reverse process, trajectories of x0_hat, and images that share or mix latents.

A sampler's ``step`` is the equation that leads from x_t to x_{t-1}. The noise of image k at time t is a
function of (seed, k, t), so that image k never depends on how many images are drawn, in which batches, or by
how many processes. Images are returned in [-1, 1] before they are clipped or rounded.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_eval.model.diffusion import ReverseProcess, ReverseStep, at, eps_from_x_0, q_sample
from ddpm_eval.randomness import Stream, normal
from ddpm_eval.spec import Method

Observer = Callable[[int, Tensor], None]
"""A function that is called at each step with t and x0_hat."""

START = 0  # x_T is drawn under this time; the noise of the steps is drawn under 1..T of the full chain


@dataclass(frozen=True)
class Sampler(ABC):
    """A sampler of the reverse process, which visits every step of the process' schedule.

    Attributes:
        process: p_theta on the steps to be visited, usually with clipped estimates of x_0.
        seed: the seed of all noise.
    """

    process: ReverseProcess
    seed: int

    @property
    def num_steps(self) -> int:
        """The number of steps from noise to image, T of the process' schedule."""
        return self.process.schedule.timesteps

    @abstractmethod
    def step(self, p: ReverseStep, x_t: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """Draw x_{t-1} given x_t.

        Args:
            p: the reverse process at ``x_t`` and ``t``.
            x_t: the images at time t, shape ``[batch, channels, side, side]``.
            t: the time, int64 of shape ``[1]``.
            ids: the ids of the images, int64 of shape ``[batch]``, which select the noise.
        """

    def start(self, ids: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw x_T ~ N(0, I) for the images ``ids`` (int64 ``[batch]``), shape ``[batch, *shape]``."""
        return normal(self.seed, Stream.SAMPLE, ids, torch.full_like(ids[:1], START), shape, dtype)

    def run(
        self,
        x: Tensor,
        ids: Tensor,
        first: int | None = None,
        observe: Observer | None = None,
        last: int = 0,
    ) -> Tensor:
        """Denoise images from the time ``first`` to the time ``last``.

        Args:
            x: the images at time ``first``, shape ``[batch, channels, side, side]``.
            ids: the ids of the images, int64 of shape ``[batch]``.
            first: the time of ``x`` in the chain; T if it is not given.
            observe: a function that is called at each step with t and x0_hat.
            last: the time of the images to return.

        Returns:
            x_last, not clipped, shaped like ``x``.
        """
        for t in range(first or self.num_steps, last, -1):
            time = torch.full_like(ids[:1], t)
            p = self.process(x, time, ids)
            if observe is not None:
                observe(t, p.x_0_hat)
            x = self.step(p, x, time, ids)
        return x

    def noise(self, ids: Tensor, t: Tensor, like: Tensor) -> Tensor:
        """Draw the standard normal noise of the step at ``t``, shaped like the images ``like``."""
        time = self.process.schedule.network_time.to(t.device)[t] + 1
        return normal(self.seed, Stream.SAMPLE, ids, time, tuple(like.shape[1:]), like.dtype)


@dataclass(frozen=True)
class AncestralSampler(Sampler):
    """Ancestral sampling, Algorithm 2 of Ho, Jain, Abbeel (2020)."""

    def step(self, p: ReverseStep, x_t: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """Return ``x_{t-1} = mu_theta(x_t, t) + sigma_t z`` with z = 0 at t = 1 (Algorithm 2, line 4)."""
        if int(t) == 1:
            return p.mean
        return p.mean + torch.exp(0.5 * p.log_variance) * self.noise(ids, t, x_t)


@dataclass(frozen=True)
class DDIMSampler(Sampler):
    """The sampler of Song, Meng, Ermon, "Denoising diffusion implicit models", ICLR 2021, arXiv:2010.02502.

    Attributes:
        eta: the scale of the noise, from 0 (deterministic) to 1 (that of ``fixed-small``).
    """

    eta: float = 0.0

    def step(self, p: ReverseStep, x_t: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """Return ``x_{t-1} = sqrt(a) x0_hat + sqrt(1 - a - sigma^2) eps + sigma z`` (Eq. 12), z = 0 at t = 1.

        Here a is alpha_bar_{t-1} and sigma is eta times the square root of beta_tilde_t (their Eq. 16).
        """
        schedule = self.process.schedule
        alpha_bar = at(schedule.alpha_bar, t - 1, x_t)
        sigma = self.eta * at(schedule.beta_tilde.sqrt(), t, x_t)
        eps = eps_from_x_0(schedule, x_t, t, p.x_0_hat)
        mean = alpha_bar.sqrt() * p.x_0_hat + (1 - alpha_bar - sigma**2).clamp(min=0).sqrt() * eps
        return mean if self.eta == 0 or int(t) == 1 else mean + sigma * self.noise(ids, t, x_t)


SAMPLERS: dict[Method, type[Sampler]] = {"ancestral": AncestralSampler, "ddim": DDIMSampler}


def make_sampler(process: ReverseProcess, seed: int, method: Method) -> Sampler:
    """Return the sampler of this name; ``ddim`` is the deterministic one, with eta = 0.

    Raises:
        ValueError: if there is no sampler of this name.
    """
    if method not in SAMPLERS:
        raise ValueError(f"there is no sampler {method!r} (the samplers are {', '.join(SAMPLERS)})")
    return SAMPLERS[method](process, seed)


@torch.inference_mode()
def draw(sampler: Sampler, ids: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw the samples ``ids``, which are nominally in [-1, 1] and not clipped.

    Args:
        sampler: the sampler.
        ids: the ids of the samples, int64 of shape ``[batch]``.
        shape: the shape of one image.

    Returns:
        The samples, float32 of shape ``[batch, *shape]``.
    """
    return sampler.run(sampler.start(ids, shape), ids)


@torch.inference_mode()
def first_not_finite(sampler: Sampler, ids: Tensor, shape: tuple[int, ...]) -> tuple[int, int]:
    """Draw the samples ``ids`` again, and return where the first estimate x0_hat is that is not finite.

    Returns:
        The time, and the id of the sample; 0 and the first id if all estimates are finite.
    """
    found: list[tuple[int, int]] = []

    def observe(t: int, x_0_hat: Tensor) -> None:
        broken = (~x_0_hat.isfinite()).flatten(1).any(1)
        if not found and bool(broken.any()):
            found.append((t, int(ids[broken][0])))

    sampler.run(sampler.start(ids, shape), ids, observe=observe)
    return found[0] if found else (0, int(ids[0]))


@torch.inference_mode()
def trajectory(
    sampler: Sampler, ids: Tensor, shape: tuple[int, ...], times: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Draw the samples ``ids`` and keep x0_hat at the given times (Fig. 6).

    Returns:
        The estimates, shape ``[len(times), batch, *shape]`` in the order of ``times``, and the samples, shape
        ``[batch, *shape]``.
    """
    kept: dict[int, Tensor] = {}
    wanted = set(times)

    def observe(t: int, x_0_hat: Tensor) -> None:
        if t in wanted:
            kept[t] = x_0_hat.clone()

    x_0 = sampler.run(sampler.start(ids, shape), ids, observe=observe)
    return torch.stack([kept[t] for t in times]), x_0


@torch.inference_mode()
def decode(
    sampler: Sampler, latents: Mapping[int, Tensor], ids: Tensor, batch_size: int
) -> dict[int, Tensor]:
    """Denoise images that start at several times, side by side.

    The noise of a step depends on an image's id alone, so that images of one id share it from whatever time
    they start.

    Args:
        sampler: the sampler.
        latents: images by the time at which they start, each of shape ``[image, channels, side, side]``.
        ids: the ids of the images of each time, int64 of shape ``[image]``.
        batch_size: images in a call of the network at most, but one of each time at least.

    Returns:
        x_0, not clipped, by the time at which it started, shaped like ``latents``.
    """
    size = max(1, batch_size // len(latents))
    parts = [
        _decode_together(sampler, {t: x[at : at + size] for t, x in latents.items()}, ids[at : at + size])
        for at in range(0, len(ids), size)
    ]
    return {t: torch.cat([part[t] for part in parts]) for t in latents}


def _decode_together(sampler: Sampler, latents: Mapping[int, Tensor], ids: Tensor) -> dict[int, Tensor]:
    """Denoise images in one batch, which those of a time join when the others have reached it."""
    times = sorted(latents, reverse=True)
    x = latents[times[0]][:0]
    for t, last in zip(times, [*times[1:], 0], strict=True):
        x = torch.cat([x, latents[t]])
        x = sampler.run(x, ids.repeat(len(x) // len(ids)), first=t, last=last)
    return dict(zip(times, x.split(len(ids)), strict=True))


@torch.inference_mode()
def interpolate(
    sampler: Sampler,
    source: Tensor,
    target: Tensor,
    times: Sequence[int],
    weights: Sequence[float],
    batch_size: int,
) -> dict[int, Tensor]:
    """Interpolate between images in the latent spaces of several times (Figs. 8 and 9).

    Both images are encoded with q, mixed, and decoded with p. The source and the target are diffused with the
    same noise, and all mixtures of a pair are decoded with the same noise.

    Args:
        sampler: the sampler that decodes.
        source: images in [-1, 1], shape ``[pair, channels, side, side]``.
        target: images of the same shape.
        times: the times to diffuse to, in 1..T, at each of which decoding starts.
        weights: the weights of the target, in [0, 1].
        batch_size: images in a call of the network, see `decode`.

    Returns:
        Shape ``[len(weights), pair, channels, side, side]``, by time.
    """
    ids = torch.arange(len(source), device=source.device)
    latents = {}
    for t in times:
        time = torch.full_like(ids[:1], t)
        noise = normal(sampler.seed, Stream.INTERPOLATE, ids, time, tuple(source.shape[1:]), source.dtype)
        a, b = (q_sample(sampler.process.schedule, x, time, noise) for x in (source, target))
        latents[t] = torch.cat([(1 - w) * a + w * b for w in weights])
    decoded = decode(sampler, latents, ids.repeat(len(weights)), batch_size)
    return {t: mixed.unflatten(0, (len(weights), len(source))) for t, mixed in decoded.items()}


@torch.inference_mode()
def share_latent(
    sampler: Sampler, ids: Tensor, shape: tuple[int, ...], times: Sequence[int], count: int, batch_size: int
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Draw ``x_0 ~ p(x_0 | x_t)`` several times from the x_t of one chain at several times (Fig. 7).

    Args:
        sampler: the sampler.
        ids: the ids of the chains, int64 of shape ``[chain]``.
        shape: the shape of one image.
        times: the times at which x_t is shared, in 1..T.
        count: the number of samples that share an x_t; sample j of a chain has the same noise at all times.
        batch_size: images in a call of the network, see `decode`.

    Returns:
        x_t by time, shape ``[chain, *shape]``, and the samples by time, shape ``[chain, count, *shape]``.
    """
    x = sampler.start(ids, shape)
    decreasing = sorted(times, reverse=True)
    latents = {}
    for first, t in zip([sampler.num_steps, *decreasing], decreasing, strict=False):
        x = latents[t] = sampler.run(x, ids, first=first, last=t)
    # noise that no chain of ids has
    others = int(ids.max()) + 1 + torch.arange(len(ids) * count, device=ids.device)
    shared = {t: x_t.repeat_interleave(count, dim=0) for t, x_t in latents.items()}
    decoded = decode(sampler, shared, others, batch_size)
    return latents, {t: x_0.unflatten(0, (len(ids), count)) for t, x_0 in decoded.items()}
