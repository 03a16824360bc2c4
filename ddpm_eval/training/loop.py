"""Training: loss -> gradients -> Adam -> exponential moving average -> checkpoint.

Batch n of a run is a function of (seed, n): its images, flips, times and noise. A resumed run therefore needs
no generator state and is bit-identical to an uninterrupted one on the same machine with the same number of
threads (which the checkpoint remembers). A run whose loss or gradient stops being finite is a result: it
ends, recorded as diverged.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.model.diffusion import ReverseProcess, make_schedule, training_loss
from ddpm_eval.model.unet import UNet
from ddpm_eval.randomness import derive_seed
from ddpm_eval.results.records import Array, TrainingLog
from ddpm_eval.runtime import Progress, Runtime, global_seed, silent
from ddpm_eval.spec import RunSpec
from ddpm_eval.spec_text import differences
from ddpm_eval.training import checkpoint, memory
from ddpm_eval.training.checkpoint import Checkpoint

log = logging.getLogger(__name__)

CHECK_STEPS = 50  # updates between looks at the loss, the only synchronisation of host and device
MOST_LOADER_WORKERS = 4  # processes that read a streamed data set
EPOCH, DRAW, DROPOUT = range(3)  # what a derived seed is for
ADAM_STATE = ("exp_avg", "exp_avg_sq")


def trained_process(spec: RunSpec, network: nn.Module, *, clip: bool) -> ReverseProcess:
    """Return p_theta with the variance it was trained with."""
    diffusion = spec.diffusion
    schedule = make_schedule(diffusion).to(next(network.parameters()).device)
    return ReverseProcess(
        network, schedule, diffusion.prediction, schedule.variance(diffusion.variance), clip
    )


@dataclass(frozen=True)
class Batch:
    """This process's share of one batch, on the device."""

    x_0: Tensor
    t: Tensor
    eps: Tensor


class Batches:
    """Batches as a function of (seed, number): epochs without replacement, uniform times, normal noise.

    Args:
        spec: the run.
        images: the training split.
        runtime: whose share to draw.

    Raises:
        ValueError: if the batch does not divide among the processes.
    """

    def __init__(self, spec: RunSpec, images: ImageSet, runtime: Runtime) -> None:
        self.spec, self.images, self.runtime = spec, images, runtime
        size, world = spec.train.batch_size, runtime.world_size
        if size % world:
            raise ValueError(f"train.batch_size is {size}, which {world} processes do not divide")
        self.share = slice(runtime.rank * size // world, (runtime.rank + 1) * size // world)
        self.generator = torch.Generator(runtime.device)
        self.permutations: dict[int, Array] = {}
        self.resident = torch.from_numpy(images.array).to(runtime.device) if images.in_memory else None

    def indices(self, step: int) -> Array:
        """Return the positions of the images of batch ``step``, over all processes, shape
        ``[batch_size]``.
        """
        size, n = self.spec.train.batch_size, len(self.images)
        number = step * size + np.arange(size)
        epochs, position = np.divmod(number, n)
        self.permutations = {int(e): self._permutation(int(e)) for e in np.unique(epochs)}
        return np.array([self.permutations[int(e)][p] for e, p in zip(epochs, position, strict=True)])

    def stream(self, first: int, last: int) -> Iterator[Batch]:
        """Yield batches ``first`` to ``last - 1``."""
        if self.resident is not None:
            for step in range(first, last):
                yield self._draw(step, self.resident[torch.from_numpy(self.indices(step)[self.share])])
            return
        positions = (self.indices(step)[self.share] for step in range(first, last))
        workers = min(MOST_LOADER_WORKERS, len(os.sched_getaffinity(0)))
        loader = DataLoader(_Take(self.images), batch_size=None, sampler=positions, num_workers=workers)
        for step, pixels in enumerate(loader, start=first):
            yield self._draw(step, pixels.to(self.runtime.device, non_blocking=True))

    def _draw(self, step: int, pixels: Tensor) -> Batch:
        spec, generator, device = self.spec, self.generator, self.runtime.device
        size = spec.train.batch_size
        generator.manual_seed(derive_seed(spec.seed, DRAW, step))
        t = torch.randint(1, spec.diffusion.timesteps + 1, (size,), generator=generator, device=device)
        eps = torch.randn(size, *pixels.shape[1:], generator=generator, device=device)
        x_0 = to_model_range(pixels)
        if spec.data.flips:
            flip = torch.rand(size, generator=generator, device=device)[self.share] < 0.5
            x_0 = torch.where(flip[:, None, None, None], x_0.flip(-1), x_0)
        return Batch(x_0, t[self.share], eps[self.share])

    def _permutation(self, epoch: int) -> Array:
        if epoch not in self.permutations:
            rng = np.random.default_rng(derive_seed(self.spec.seed, EPOCH, epoch))
            return rng.permutation(len(self.images))
        return self.permutations[epoch]


class _Take(Dataset[Tensor]):
    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitem__(self, positions: Array) -> Tensor:
        return torch.from_numpy(self.images.take(positions))


class Trainer:
    """A run in training: network, moving average, optimiser and log, all on the device.

    Args:
        spec: the run.
        runtime: where.
        resume: a checkpoint of the same run, or None to start.
    """

    def __init__(self, spec: RunSpec, runtime: Runtime, resume: Checkpoint | None = None) -> None:
        self.spec, self.runtime = spec, runtime
        network = UNet(spec.network, spec.data.channels, spec.data.side, spec.out_channels, seed=spec.seed)
        self.network = runtime.place(network, spec.network.base_channels)
        self.parameters = list(self.network.parameters())
        self.values = [p.detach() for p in self.parameters]
        self.average = [p.clone() for p in self.values]
        self.optimizer = torch.optim.Adam(self.parameters, lr=spec.train.learning_rate, fused=True)
        self.log = torch.zeros(2, spec.train.steps, device=runtime.device)  # loss, gradient norm
        self.step, self.seconds = 0, 0.0
        if resume is not None:
            self._restore(resume)
        module = runtime.compile(self.network)
        if runtime.world_size > 1:
            module = DistributedDataParallel(module)
        self.process = trained_process(spec, module, clip=False)

    def update(self, batch: Batch) -> None:
        """Take one optimisation step; nothing here waits for the device."""
        train = self.spec.train
        for group in self.optimizer.param_groups:
            group["lr"] = train.learning_rate * min(1.0, (self.step + 1) / max(train.warmup_steps, 1))
        with self.runtime.training_precision():
            loss = training_loss(
                self.process, self.spec.diffusion.objective, batch.x_0, batch.t, batch.eps
            ).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, train.clip_norm, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(self.average, self.values, 1 - train.ema_decay)
        self.log[0, self.step], self.log[1, self.step] = loss.detach(), norm
        self.step += 1

    def seeded_update(self, batch: Batch) -> None:
        """Take one step with dropout drawn from (seed, step, process)."""
        if self.spec.network.dropout == 0:
            return self.update(batch)
        seed = derive_seed(self.spec.seed, DROPOUT, self.step, self.runtime.rank)
        with global_seed(seed, self.runtime.device):
            return self.update(batch)

    def diverged_at(self, since: int) -> int | None:
        """Average the log over the processes from update ``since`` on, and return the first one that is not
        finite.
        """
        self.log[:, since : self.step] = logged = self.runtime.mean(self.log[:, since : self.step].clone())
        bad = (~torch.isfinite(logged)).any(0).nonzero()
        return since + int(bad[0]) if len(bad) else None

    def averaged_network(self) -> UNet:
        """Return the network with the averaged weights as they are at any time (shared, not copied), in
        evaluation mode.
        """
        spec, names = self.spec, [name for name, _ in self.network.named_parameters()]
        with torch.device("meta"):
            network = UNet(spec.network, spec.data.channels, spec.data.side, spec.out_channels)
        network.load_state_dict(dict(zip(names, self.average, strict=True)), assign=True)
        return network.eval()

    def snapshot(self, status: str, reason: str) -> Checkpoint:
        """Return everything that resuming needs, on the CPU."""
        names = [name for name, _ in self.network.named_parameters()]
        tensors = {"log/loss": self.log[0, : self.step], "log/gradient_norm": self.log[1, : self.step]}
        for name, value, average in zip(names, self.parameters, self.average, strict=True):
            tensors |= {f"model/{name}": value.detach(), f"ema/{name}": average}
            state = self.optimizer.state.get(value, {})
            tensors |= {f"adam/{key}/{name}": state[key] for key in ADAM_STATE if key in state}
        tensors = {key: value.cpu().contiguous() for key, value in tensors.items()}
        facts = {
            "status": status,
            "reason": reason,
            "seconds": self.seconds,
            "threads": torch.get_num_threads(),
        }
        return Checkpoint(self.spec, self.step, tensors, {**facts, "device": self.runtime.describe()})

    def _restore(self, saved: Checkpoint) -> None:
        self.step, self.seconds = saved.step, float(saved.facts["seconds"])
        if self.step > self.log.shape[1]:
            self.log = torch.zeros(2, self.step, device=self.runtime.device)
        self.log[0, : self.step] = saved.tensors["log/loss"].to(self.log)
        self.log[1, : self.step] = saved.tensors["log/gradient_norm"].to(self.log)
        with torch.no_grad():
            for (name, value), average in zip(self.network.named_parameters(), self.average, strict=True):
                value.copy_(saved.tensors[f"model/{name}"])
                average.copy_(saved.tensors[f"ema/{name}"])
                if f"adam/exp_avg/{name}" in saved.tensors:
                    self.optimizer.state[value] = self._adam_state(name, value, saved)

    def _adam_state(self, name: str, value: Tensor, saved: Checkpoint) -> dict[str, Tensor]:
        moments = {
            key: torch.empty_like(value).copy_(saved.tensors[f"adam/{key}/{name}"]) for key in ADAM_STATE
        }
        return {"step": torch.tensor(float(self.step), device=value.device), **moments}


class Callback(Protocol):
    """Looks on while a run trains: called on every process before the first update and at each look, changing
    nothing.
    """

    @property
    def every(self) -> int:
        """Updates after each of which there is to be a look, besides those that there are anyway."""

    def __call__(self, trainer: Trainer) -> None:
        """Look at the training after its update ``trainer.step``."""


def train(
    spec: RunSpec,
    images: ImageSet,
    runtime: Runtime,
    path: Path,
    *,
    max_minutes: float | None = None,
    progress: Progress = silent,
    callbacks: Sequence[Callback] = (),
    ignore_memory: bool = False,
) -> TrainingLog:
    """Train a run to its number of steps, starting from its checkpoint if there is one.

    Args:
        spec: the run.
        images: the training split.
        runtime: where; under torchrun every process calls this.
        path: of the checkpoint.
        max_minutes: stop cleanly after this time, with a checkpoint.
        progress: called with (stage, updates done, updates in all).
        callbacks: see `Callback`; their time is no part of the log's seconds.
        ignore_memory: train even where `ddpm_eval.training.memory` says that the memory is too small.

    Returns:
        The log of the whole run so far, ``status`` ``ok``, ``stopped`` (by ``max_minutes``) or ``diverged``;
        of an imported checkpoint, which has no optimiser state and is left as it is, ``imported``.

    Raises:
        ValueError: if the checkpoint is of another run or damaged, the batch does not divide among the
            processes, or the memory is too small.
    """
    trainer = _trainer(spec, images, runtime, path, ignore_memory)
    if isinstance(trainer, TrainingLog):
        return trainer
    batches = Batches(spec, images, runtime)
    try:
        status, reason = _loop(trainer, batches, path, max_minutes, progress, callbacks)
    except torch.OutOfMemoryError:
        size, where = spec.train.batch_size, runtime.describe()
        raise ValueError(
            f"{where} ran out of memory with batches of {size} (take a smaller --set train.batch_size)"
        ) from None
    return training_log(_save(trainer, path, status, reason))


def _trainer(
    spec: RunSpec, images: ImageSet, runtime: Runtime, path: Path, ignore_memory: bool
) -> Trainer | TrainingLog:
    """Begin or continue a run; return the log of one that is over."""
    saved = checkpoint.load(path) if path.exists() else None
    if saved is not None:
        check_same_run(saved, spec, path)
        if (log_so_far := training_log(saved)).over:
            return log_so_far
        if saved.step >= spec.train.steps:  # whatever stopped it: it has all the updates asked for
            return replace(log_so_far, status="ok", reason="")
        if runtime.device.type == "cpu" and saved.facts.get("threads") != torch.get_num_threads():
            log.info(
                "resuming with %d threads, not %s: equal to rounding only",
                torch.get_num_threads(),
                saved.facts["threads"],
            )
    if not ignore_memory:
        memory.check(spec, runtime, images)
    return Trainer(spec, runtime, saved)


def _loop(
    trainer: Trainer,
    batches: Batches,
    path: Path,
    max_minutes: float | None,
    progress: Progress,
    callbacks: Sequence[Callback],
) -> tuple[str, str]:
    train, before, began = trainer.spec.train, trainer.seconds, time.monotonic()
    looks = (CHECK_STEPS, train.checkpoint_steps, *(callback.every for callback in callbacks))
    checked, watched = trainer.step, _watch(callbacks, trainer)
    for batch in batches.stream(trainer.step, train.steps):
        trainer.seeded_update(batch)
        if all(trainer.step % every for every in looks) and trainer.step != train.steps:
            continue
        bad = trainer.diverged_at(checked)
        trainer.seconds, checked = before + time.monotonic() - began - watched, trainer.step
        progress("train", trainer.step, train.steps)
        if bad is not None:
            value = f"loss {float(trainer.log[0, bad]):g}, gradient norm {float(trainer.log[1, bad]):g}"
            return "diverged", f"{value} at update {bad + 1} (seed {trainer.spec.seed})"
        if trainer.step % train.checkpoint_steps == 0 and trainer.step < train.steps:
            _save(trainer, path, "running", "")
        watched += _watch(callbacks, trainer)
        late = max_minutes is not None and time.monotonic() - began > 60 * max_minutes
        if trainer.runtime.any_process(late) and trainer.step < train.steps:
            return "stopped", f"after {max_minutes:g} minutes"
    return "ok", ""


def _watch(callbacks: Sequence[Callback], trainer: Trainer) -> float:
    """Let the callbacks look; return the seconds they took."""
    began = time.monotonic()
    for callback in callbacks:
        callback(trainer)
    return time.monotonic() - began


def _save(trainer: Trainer, path: Path, status: str, reason: str) -> Checkpoint:
    snapshot = trainer.snapshot(status, reason)
    if trainer.runtime.main:
        checkpoint.save(path, snapshot)
    trainer.runtime.barrier()
    return snapshot


def training_log(saved: Checkpoint) -> TrainingLog:
    """Read a checkpoint's log."""
    weights = [value for name, value in saved.tensors.items() if name.startswith("model/")]
    return TrainingLog(
        loss=saved.tensors["log/loss"].numpy(),
        gradient_norm=saved.tensors["log/gradient_norm"].numpy(),
        status=saved.facts["status"],
        reason=saved.facts["reason"],
        steps=saved.step,
        images=saved.step * saved.spec.train.batch_size,
        seconds=float(saved.facts["seconds"]),
        parameters=sum(value.numel() for value in weights),
    )


def check_same_run(saved: Checkpoint, spec: RunSpec, path: Path) -> None:
    """Raise ValueError, naming the fields, if a checkpoint belongs to another run than ``spec``."""
    different = differences(saved.spec, spec)
    if different:
        raise ValueError(
            f"{path} belongs to another run ({'; '.join(different[:4])}): name another folder with --runs, or delete it"
        )
