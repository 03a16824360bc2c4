"""Sampling: ancestral and strided chains, x0_hat trajectories, interpolation.

The noise of image k at time t is a function of (seed, k, t), so image k never depends on how many are drawn,
in which batches or by how many processes. Images are returned in [-1, 1] before they are clipped or rounded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_eval.model.diffusion import ReverseProcess, ReverseStep, at, eps_from_x_0, q_sample
from ddpm_eval.randomness import Stream, normal
from ddpm_eval.spec import Method

Observer = Callable[[int, Tensor], None]
"""Called at each step with t and x0_hat."""

START = 0  # the time under which x_T is drawn; noise of the steps is drawn under 1..T of the full chain


@dataclass(frozen=True)
class Chain:
    """A reverse chain ready to run.

    Attributes:
        process: p_theta on the steps to be visited, usually with x_0 estimates clipped.
        seed: of all noise.
        method: ``ancestral`` (Algorithm 2) or ``ddim`` (Song et al. 2021, Eq. 12, with ``eta``).
        eta: scale of DDIM's noise; 0 is deterministic.
    """

    process: ReverseProcess
    seed: int
    method: Method = "ancestral"
    eta: float = 0.0

    def start(self, ids: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return x_T ~ N(0, I) for images ``ids`` (int64 ``[batch]``), shape ``[batch, *shape]``."""
        return normal(self.seed, Stream.SAMPLE, ids, torch.full_like(ids[:1], START), shape, dtype)

    def run(
        self, x: Tensor, ids: Tensor, first: int | None = None, observe: Observer | None = None
    ) -> Tensor:
        """Denoise from time ``first`` (default T) to 0.

        Args:
            x: images at time ``first``, shape ``[batch, channels, side, side]``.
            ids: int64 ids of the images, shape ``[batch]``.
            first: time of ``x`` in the chain.
            observe: sees x0_hat at each step.

        Returns:
            x_0, unclipped, shaped like ``x``.
        """
        for t in range(first or self.process.schedule.timesteps, 0, -1):
            time = torch.full_like(ids[:1], t)
            step = self.process(x, time)
            if observe is not None:
                observe(t, step.x_0_hat)
            x = self.step(step, x, time, ids)
        return x

    def step(self, step: ReverseStep, x_t: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """Draw x_{t-1} from one reverse step; the last step is the mean without noise."""
        if self.method == "ddim":
            return self._ddim(step, x_t, t, ids)
        if int(t) == 1:
            return step.mean
        return step.mean + torch.exp(0.5 * step.log_variance) * self._noise(ids, t, x_t)

    def _ddim(self, step: ReverseStep, x_t: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        schedule = self.process.schedule
        previous = at(schedule.alpha_bar, t - 1, x_t)
        sigma = self.eta * at(schedule.beta_tilde.sqrt(), t, x_t)
        eps = eps_from_x_0(schedule, x_t, t, step.x_0_hat)
        x = previous.sqrt() * step.x_0_hat + (1 - previous - sigma**2).clamp(min=0).sqrt() * eps
        return x if self.eta == 0 or int(t) == 1 else x + sigma * self._noise(ids, t, x_t)

    def _noise(self, ids: Tensor, t: Tensor, like: Tensor) -> Tensor:
        time = self.process.schedule.network_time.to(t.device)[t] + 1
        return normal(self.seed, Stream.SAMPLE, ids, time, tuple(like.shape[1:]), like.dtype)


@torch.inference_mode()
def draw(chain: Chain, ids: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw samples ``ids`` (int64 ``[batch]``): shape ``[batch, *shape]``, nominally in [-1, 1],
    unclipped.
    """
    return chain.run(chain.start(ids, shape), ids)


@torch.inference_mode()
def trajectory(
    chain: Chain, ids: Tensor, shape: tuple[int, ...], times: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Draw samples and keep x0_hat at the given times (Fig. 6).

    Returns:
        The estimates, shape ``[len(times), batch, *shape]`` in the order of ``times``, and the samples
        ``[batch, *shape]``.
    """
    kept: dict[int, Tensor] = {}
    wanted = set(times)

    def observe(t: int, x_0_hat: Tensor) -> None:
        if t in wanted:
            kept[t] = x_0_hat.clone()

    x_0 = chain.run(chain.start(ids, shape), ids, observe=observe)
    return torch.stack([kept[t] for t in times]), x_0


@torch.inference_mode()
def interpolate(chain: Chain, source: Tensor, target: Tensor, t: int, weights: Sequence[float]) -> Tensor:
    """Interpolate between images in the latent space of time t (Fig. 8): encode with q, mix, decode with p.

    Source and target are diffused with the same noise, and all mixtures of a pair are decoded with the same
    noise.

    Args:
        chain: the reverse chain.
        source: images in [-1, 1], shape ``[pair, channels, side, side]``.
        target: the same shape.
        t: time to diffuse to, 1..T; decoding starts at this very time.
        weights: of the target, in [0, 1].

    Returns:
        Shape ``[len(weights), pair, channels, side, side]``.
    """
    ids = torch.arange(len(source), device=source.device)
    time = torch.full_like(ids[:1], t)
    noise = normal(chain.seed, Stream.INTERPOLATE, ids, time, tuple(source.shape[1:]), source.dtype)
    a, b = (q_sample(chain.process.schedule, x, time, noise) for x in (source, target))
    return torch.stack([chain.run((1 - w) * a + w * b, ids, first=t) for w in weights])
