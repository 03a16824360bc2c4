"""The batches of a training run: images, mirrored or not, times and noise.

Batch n is a function of (seed, n). Images are drawn by epochs without replacement, times from 1..T uniformly
or by importance, and noise from the standard normal distribution. Under several processes each holds its
shard of every batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.host_memory import usable_cores
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.randomness import derive_seed
from ddpm_eval.results.fields import Array
from ddpm_eval.runtime import Runtime
from ddpm_eval.spec import DiffusionSpec, RunSpec

MOST_LOADER_WORKERS = 4
"""The largest number of processes that read a streamed data set."""

EPOCH, DRAW, DROPOUT = range(3)
"""What a derived seed is for: the order of an epoch, the randomness of a batch, the dropout of an update."""


@dataclass(frozen=True)
class Batch:
    """This process's shard of one batch, on the device.

    Attributes:
        x_0: images in [-1, 1], float32 ``[batch, channels, side, side]``.
        t: time steps in 1..T, int64 ``[batch]``.
        eps: standard normal noise, like ``x_0``.
        weight: what each image's loss counts, float32 ``[batch]``: 1 over T times the probability of its
            time, so that the weighted mean's expectation is that of uniform times.
    """

    x_0: Tensor
    t: Tensor
    eps: Tensor
    weight: Tensor


class Batches:
    """All batches of a run, each by its number.

    Args:
        spec: the run.
        images: the training split.
        runtime: the process whose shard is drawn.

    Raises:
        ValueError: if the batch size is not divisible by the number of processes.
    """

    def __init__(self, spec: RunSpec, images: ImageSet, runtime: Runtime) -> None:
        size = spec.train.batch_size
        world = runtime.world_size
        if size % world:
            raise ValueError(f"train.batch_size is {size}, which {world} processes do not divide")
        self.spec = spec
        self.images = images
        self.runtime = runtime
        self.shard = slice(runtime.rank * size // world, (runtime.rank + 1) * size // world)
        self.generator = torch.Generator(runtime.arithmetic_device)
        by_importance = spec.train.time_sampling == "importance"
        self.time_probabilities = (
            time_importance(spec.diffusion).to(runtime.arithmetic_device) if by_importance else None
        )
        self.permutations: dict[int, Array] = {}
        self.resident = (
            torch.from_numpy(images.array).to(runtime.arithmetic_device) if images.in_memory else None
        )

    def indices(self, step: int) -> Array:
        """Return the positions of the images of a whole batch, shape ``[batch_size]``."""
        size = self.spec.train.batch_size
        number = step * size + np.arange(size)
        epochs, position = np.divmod(number, len(self.images))
        self.permutations = {int(e): self._permutation(int(e)) for e in np.unique(epochs)}
        return np.array([self.permutations[int(e)][p] for e, p in zip(epochs, position, strict=True)])

    def stream(self, first: int, last: int) -> Iterator[Batch]:
        """Yield batches ``first`` to ``last - 1``."""
        if self.resident is not None:
            for step in range(first, last):
                yield self._draw(step, self.resident[torch.from_numpy(self.indices(step)[self.shard])])
            return
        positions = (self.indices(step)[self.shard] for step in range(first, last))
        workers = min(MOST_LOADER_WORKERS, usable_cores())
        loader = DataLoader(_ImagesAt(self.images), batch_size=None, sampler=positions, num_workers=workers)
        for step, pixels in enumerate(loader, start=first):
            yield self._draw(step, pixels.to(self.runtime.arithmetic_device, non_blocking=True))

    def _draw(self, step: int, pixels: Tensor) -> Batch:
        """Draw times, noise and flips of the whole batch, and return this process's shard with its images."""
        spec, generator, device = self.spec, self.generator, self.runtime.arithmetic_device
        size = spec.train.batch_size
        generator.manual_seed(derive_seed(spec.seed, DRAW, step))
        t, weight = self._draw_times()
        eps = torch.randn(size, *pixels.shape[1:], generator=generator, device=device)
        x_0 = to_model_range(pixels)
        if spec.data.flips:
            flip = torch.rand(size, generator=generator, device=device)[self.shard] < 0.5
            x_0 = torch.where(flip[:, None, None, None], x_0.flip(-1), x_0)
        return Batch(x_0, t[self.shard], eps[self.shard], weight[self.shard])

    def _draw_times(self) -> tuple[Tensor, Tensor]:
        """Draw the times of a whole batch, and return them with the weights of their losses."""
        size, timesteps = self.spec.train.batch_size, self.spec.diffusion.timesteps
        device = self.runtime.arithmetic_device
        probability = self.time_probabilities
        if probability is None:
            t = torch.randint(1, timesteps + 1, (size,), generator=self.generator, device=device)
            return t, torch.ones(size, device=device)
        index = torch.multinomial(probability, size, replacement=True, generator=self.generator)
        return index + 1, 1 / (timesteps * probability[index]).float()

    def _permutation(self, epoch: int) -> Array:
        if epoch not in self.permutations:
            rng = np.random.default_rng(derive_seed(self.spec.seed, EPOCH, epoch))
            return rng.permutation(len(self.images))
        return self.permutations[epoch]


def time_importance(diffusion: DiffusionSpec) -> Tensor:
    """Return the probabilities with which times 1..T are drawn by importance, float64 ``[T]``.

    Importance is the weight of the squared error of eps in the terms of L if sigma_t^2 is beta_t (Eq. 12),
    so that a network that errs alike at all times has terms in proportion to it. Nichol and Dhariwal (2021),
    Sec. 3.3, draw times for the same reason in proportion to the terms that they observe.
    """
    schedule = make_schedule(diffusion)
    beta, alpha_bar = schedule.beta[1:], schedule.alpha_bar[1:]
    importance = beta / (1 - beta) / (1 - alpha_bar)
    return importance / importance.sum()


class _ImagesAt(Dataset[Tensor]):
    """Images by their positions, as a loader's workers read them."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitem__(self, positions: Array) -> Tensor:
        return torch.from_numpy(self.images.take(positions))
