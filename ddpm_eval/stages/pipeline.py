"""The order of stages of a run, each skipped when the store already holds its result.

A stage's result is keyed by a digest of the weights and of every choice it depends on, so that a changed
choice or a longer training measures anew and an unchanged one costs nothing. Long stages keep finished chunks
beside the results file and continue from them after a kill. Under torchrun every process runs the stages and
shares their work.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ddpm_eval.data import datasets, pixels
from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.metrics.bound import Model, NotFinite
from ddpm_eval.model import samplers as sampling
from ddpm_eval.model.diffusion import ReverseProcess, Schedule, evenly_spaced, make_schedule
from ddpm_eval.protocol import CHAIN_PROTOCOLS, CHAINS, COMPARED, PROTOCOLS, Protocol
from ddpm_eval.results.records import (
    QUALITY_OVER_STEPS,
    QUALITY_OVER_TIME,
    Array,
    Baseline,
    Interpolations,
    Record,
    ReferenceImages,
    Samples,
    ScheduleTables,
    TrainingLog,
    Trajectory,
)
from ddpm_eval.results.store import Entry, PartialResults, Store, digest
from ddpm_eval.runtime import Progress, Runtime, silent
from ddpm_eval.spec import Method, RunSpec
from ddpm_eval.stages.likelihood import Likelihood
from ddpm_eval.stages.sample_quality import SampleQuality
from ddpm_eval.training import checkpoint as checkpoints
from ddpm_eval.training import loop as training

PROGRESSIVE_STEPS = 20
N_REALS = 64
PIXEL_BATCH = 256


@dataclass
class Run:
    """One run's folder and everything that can be done with it.

    Attributes:
        folder: holds the checkpoint, ``results.h5`` and work in progress.
        spec: what the run is; its evaluation part may differ from what the folder was made with.
        runtime: where to compute.
        data_root: where data sets lie that are not embedded.
        progress: called with (stage, work done, work in all).
    """

    folder: Path
    spec: RunSpec
    runtime: Runtime
    data_root: Path | None = None
    progress: Progress = silent

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's path."""
        return self.folder / checkpoints.FILE_NAME

    @property
    def store(self) -> Store:
        """The run's results."""
        return Store(self.folder / checkpoints.RESULTS_NAME)

    @cached_property
    def train_images(self) -> ImageSet:
        """The training split."""
        return datasets.load(self.spec.data, "train", self.data_root)

    @cached_property
    def test_images(self) -> ImageSet:
        """The test split."""
        return datasets.load(self.spec.data, "test", self.data_root)

    @cached_property
    def weights(self) -> str:
        """Digest of the averaged weights; every result of the run is keyed by it."""
        log, entry = self._stored_log(), self._entry("training")
        if log is not None and entry is not None and log.steps == self._header.step:
            return entry.key
        return checkpoints.weights_digest(self.checkpoint)

    @cached_property
    def network(self) -> torch.nn.Module:
        """The network with its averaged weights, in evaluation mode on the device."""
        training.check_same_run(self._header, self.spec, self.checkpoint)
        _, network = checkpoints.load_network(self.checkpoint)
        return self.runtime.compile(self.runtime.place(network))

    def schedule(self, chain: int | None = None) -> Schedule:
        """Return the schedule of all steps, or of a chain of so many evenly spaced ones.

        Raises:
            ValueError: if the chain is too short or too long, or the network predicts mu, which belongs to
                the full chain.
        """
        schedule = make_schedule(self.spec.diffusion).to(self.runtime.device)
        if chain is None or chain == schedule.timesteps:
            return schedule
        if not self.can_skip_steps:
            raise ValueError(
                "a network that predicts mu knows the mean of its own chain only: fewer steps are not possible"
            )
        return schedule.respaced(evenly_spaced(schedule.timesteps, chain))

    @property
    def can_skip_steps(self) -> bool:
        """Whether the network serves shorter chains: what predicts mu knows the mean of its own chain
        only.
        """
        return self.spec.diffusion.prediction != "mu"

    def model(self, chain: int | None = None) -> Model:
        """Return the model as the bound reads it: any dtype in, the network in float32 (or the runtime's
        precision).
        """
        diffusion = self.spec.diffusion
        return Model(self.evaluate, self.schedule(chain), diffusion.prediction, diffusion.variance)

    def process(self, chain: int | None = None) -> ReverseProcess:
        """Return p_theta for sampling, x_0 clipped, on all steps or a chain of so many evenly spaced ones."""
        sampling_protocol = Protocol(name="sampling", clip=True, decoder="exact")
        return self.model(chain).reading(sampling_protocol).process

    # Stages

    def trained(self) -> bool:
        """Tell whether training is over: all updates done, diverged, or done by others."""
        log = self._stored_log() if self.checkpoint.exists() else None
        if log is None or log.steps != self._header.step:  # not yet said of this checkpoint
            return False
        return log.over or (log.status == "ok" and log.steps >= self.spec.train.steps)

    def train(
        self,
        max_minutes: float | None = None,
        callbacks: Sequence[training.Callback] = (),
        ignore_memory: bool = False,
    ) -> TrainingLog:
        """Train to the run's number of steps, or continue to it; see `ddpm_eval.training.loop.train`."""
        stored = self._stored_log()
        if not self.runtime.any_process(stored is None or not self.trained()):
            training.check_same_run(self._header, self.spec, self.checkpoint)
            assert stored is not None
            return stored
        log = training.train(
            self.spec,
            self.train_images,
            self.runtime,
            self.checkpoint,
            max_minutes=max_minutes,
            progress=lambda _, done, total: self.progress("train", done, total),
            callbacks=callbacks,
            ignore_memory=ignore_memory,
        )
        for name in ("weights", "network", "_header"):
            self.__dict__.pop(name, None)
        self._keep_training(log)
        self.runtime.barrier()
        return log

    def record_training(self) -> None:
        """Store what the checkpoint says of its training, so that results are known to be of these weights;
        train nothing.
        """
        training.check_same_run(self._header, self.spec, self.checkpoint)
        stored = self._stored_log()
        if stored is None or stored.steps != self._header.step:
            saved = checkpoints.load(self.checkpoint, prefixes=("model/", "log/"))
            self._keep_training(training.training_log(saved))
        self.runtime.barrier()

    def _keep_training(self, log: TrainingLog) -> None:
        key = checkpoints.weights_digest(self.checkpoint)
        self.put("training", log, key=key, seconds=log.seconds)
        self.put("schedule", self._tables(), key=key, seconds=0.0)

    def likelihood(
        self, split: str, protocols: Sequence[Protocol], few: bool = False, chain: int | None = None
    ) -> Likelihood:
        """Measure the bound of a split under some protocols; see `ddpm_eval.stages.likelihood.Likelihood`."""
        task = Likelihood(self, split, few, chain)
        task.measure(protocols)
        return task

    def sample(self, n: int | None = None, steps: int | None = None, method: Method = "ancestral") -> Array:
        """Return the first n samples (the preset's number by default), uint8; only those not stored yet are
        drawn.
        """
        n, steps = n or self.spec.evaluation.n_samples, steps or self.spec.diffusion.timesteps
        name, key = self.sample_key(steps, method)
        stored = self.store.get(name, Samples) if self.has(name, key) else None
        have = 0 if stored is None else len(stored.images)
        self.runtime.barrier()  # all have looked before one begins to write
        if have < n:
            began, pieces = time.monotonic(), ranges(have, n, self.batch_size)
            chunks = self.chunks(name, digest(key, have, n, self.batch_size))
            chain = sampling.Chain(self.process(steps), self.spec.seed, method)
            self.share(chunks, pieces, lambda ids: self.draw(chain, ids), "sample", steps)
            drawn = self.collect(chunks, pieces)
            if drawn is not None:
                self._keep(stored, drawn, name, key, (steps, method), time.monotonic() - began)
                chunks.clear()
            self.runtime.barrier()
        return self.store.get(name, Samples).images[:n]

    def _keep(
        self,
        stored: Samples | None,
        drawn: dict[str, Array],
        name: str,
        key: str,
        chain: tuple[int, str],
        seconds: float,
    ) -> None:
        """Store new samples behind those that are stored."""
        if stored is not None:
            drawn = {field: np.concatenate([getattr(stored, field), value]) for field, value in drawn.items()}
        bad = np.flatnonzero(np.isnan(drawn["out_of_range"]))
        if len(bad):
            count = len(drawn["images"])
            self._diverge(
                f"{len(bad)} of {count} samples are not finite, the first is {bad[0]} (seed {self.spec.seed})"
            )
        record = Samples(**drawn, method=chain[1], sampling_steps=chain[0], seed=self.spec.seed)
        self.put(name, record, key=key, seconds=seconds)

    def sample_key(self, steps: int, method: str) -> tuple[str, str]:
        """Return the name and the key under which the samples of a chain are stored."""
        full = (steps, method) == (self.spec.diffusion.timesteps, "ancestral")
        name = self.measured("samples" if full else f"samples-{method}-{steps}")
        return name, digest(self.weights, self.spec.seed, steps, method, self.runtime.precision)

    def stored_samples(self, steps: int, method: Method = "ancestral") -> Samples:
        """Return the samples of a chain of the present weights; raise ValueError if there are none."""
        name, key = self.sample_key(steps, method)
        if not self.has(name, key):
            raise ValueError(
                f"{self.store.path} holds no {name} of the run's present weights (draw them with sample)"
            )
        return self.store.get(name, Samples)

    def has_samples(self) -> bool:
        """Tell whether the preset's number of samples is stored."""
        return self._has_samples(self.spec.evaluation.n_samples)

    def _has_samples(self, n: int) -> bool:
        name, key = self.sample_key(self.spec.diffusion.timesteps, "ancestral")
        return self.has(name, key) and self._stored_count(name) >= n

    def _stored_count(self, name: str) -> int:
        """Return of how many samples a stored result is, without reading them."""
        entry = self._entry(name)
        return 0 if entry is None else dict(itertools.chain(*entry.sizes))["sample"]

    def progressive(self) -> None:
        """Keep x0_hat over the reverse process of the first samples (Figs. 6 and 10), which are thereby
        drawn.
        """
        if self.runtime.any_process(
            not self.has_trajectories()
        ):  # all have looked before one begins to write
            began, total, n = time.monotonic(), self.spec.diffusion.timesteps, self._trajectories
            times = sorted({1, *evenly_spaced(total, min(PROGRESSIVE_STEPS, total))}, reverse=True)
            key, pieces = self._progressive_key(), ranges(0, n, self.batch_size)
            chunks = self.chunks("progressive", digest(key, n, self.batch_size))
            chain = sampling.Chain(self.process(), self.spec.seed)
            self.share(chunks, pieces, lambda ids: self.draw(chain, ids, times), "progressive", total)
            drawn = self.collect(chunks, pieces)
            if drawn is not None:
                estimates, seconds = np.moveaxis(drawn.pop("x_0_hat"), 1, 0), time.monotonic() - began
                self.put(
                    "progressive", Trajectory(t=np.array(times), x_0_hat=estimates), key=key, seconds=seconds
                )
                if not self._has_samples(n):
                    self._keep(
                        None, drawn, *self.sample_key(total, "ancestral"), (total, "ancestral"), seconds
                    )
                chunks.clear()
        self.runtime.barrier()

    def has_trajectories(self) -> bool:
        """Tell whether x0_hat is stored of as many samples as the figures need."""
        return (
            self.has("progressive", self._progressive_key())
            and self._stored_count("progressive") >= self._trajectories
        )

    @property
    def _trajectories(self) -> int:
        return max(self.spec.evaluation.n_progressive, self.spec.evaluation.curve_samples)

    def baseline(self) -> None:
        """Fit a Gaussian to the training images and compute its exact likelihood and bound of the test
        images.
        """
        if not self.has("baseline", self._baseline_key()) and self.runtime.main:
            from ddpm_eval.model.gaussian import Gaussian

            began, n = time.monotonic(), len(self.train_images)
            task = Likelihood(self, "test")
            gaussian = Gaussian.fit(_pixels(self.train_images, np.arange(n)))
            schedule, variance = make_schedule(self.spec.diffusion), self._baseline_variance
            nll, total = [], []
            for x_0 in _pixels(self.test_images, task.positions):
                atoms = gaussian.expected_terms(schedule, schedule.fixed_variance(variance), x_0)
                nll.append(gaussian.dequantised_nll(x_0).numpy())
                total.append((atoms.terms.sum(1) + atoms.prior).numpy())
            record = Baseline(
                image_id=self.test_images.ids[task.positions],
                nll=np.concatenate(nll),
                bound=np.concatenate(total),
                split="test",
                variance=variance,
                dimensions=int(np.prod(self.shape)),
                n_train=n,
            )
            self.put("baseline", record, key=self._baseline_key(), seconds=time.monotonic() - began)
        self.runtime.barrier()

    @property
    def _baseline_variance(self) -> Literal["fixed-large", "fixed-small"]:
        name = self.spec.diffusion.variance
        return name if name == "fixed-small" else "fixed-large"

    def _baseline_key(self) -> str:
        diffusion = self.spec.diffusion
        chain = (
            diffusion.timesteps,
            diffusion.schedule,
            diffusion.beta_start,
            diffusion.beta_end,
            self._baseline_variance,
        )
        limit = self.spec.evaluation.n_test_images
        return digest(self.train_images.digest, self.test_images.digest, limit, *chain)

    def interpolate(self, t: int | None = None, pairs: int = 4) -> None:
        """Interpolate between the first test images in the latent space of time ``t``, T / 4 by default (Fig.
        8).
        """
        t = t or self.spec.diffusion.timesteps // 4
        if not 1 <= t <= self.spec.diffusion.timesteps:
            raise ValueError(f"t is {t}, but this chain has times 1 to {self.spec.diffusion.timesteps}")
        if not 1 <= pairs <= len(self.test_images) // 2:
            raise ValueError(f"{pairs} pairs asked for, but the test set has {len(self.test_images)} images")
        name, key = self.measured("interpolation"), self._interpolation_key(t, pairs)
        if not self.has(name, key) and self.runtime.main:
            began, weights = time.monotonic(), np.linspace(0, 1, 11)
            ends = self.test_images.take(np.arange(2 * pairs))
            source, target = pixels.to_model_range(torch.from_numpy(ends).to(self.runtime.device)).chunk(2)
            chain = sampling.Chain(self.process(), self.spec.seed)
            with self.runtime.evaluation_precision():
                mixed = sampling.interpolate(chain, source, target, t, weights.tolist())
            images = pixels.to_pixels(mixed).cpu().numpy()
            record = Interpolations(
                source=ends[:pairs], target=ends[pairs:], weight=weights, images=images, t=t
            )
            self.put(name, record, key=key, seconds=time.monotonic() - began)
        self.runtime.barrier()

    def reals(self) -> None:
        """Store a few training images for figures."""
        if not self.has("reals", self._reals_key()) and self.runtime.main:
            images = self.train_images.take(np.arange(min(N_REALS, len(self.train_images))))
            self.put(
                "reals",
                ReferenceImages(images=images, name=self.spec.data.name, split="train"),
                key=self._reals_key(),
                seconds=0.0,
            )
        self.runtime.barrier()

    @property
    def runs(self) -> Path:
        """The folder of all runs, which share their classifiers: that of ``<preset>/<run>``, else the one the
        run lies in.
        """
        parent = self.folder.resolve().parent
        return parent.parent if parent.name == self.spec.preset else parent

    def _tables(self) -> ScheduleTables:
        schedule = make_schedule(self.spec.diffusion)
        return ScheduleTables(
            beta=schedule.beta.numpy()[1:],
            alpha_bar=schedule.alpha_bar.numpy()[1:],
            beta_tilde=schedule.beta_tilde.numpy()[1:],
            fixed_large=schedule.fixed_variance("fixed-large").numpy()[1:],
            fixed_small=schedule.fixed_variance("fixed-small").numpy()[1:],
        )

    def _progressive_key(self) -> str:
        return digest(self.weights, self.spec.seed, self.runtime.precision)

    def _interpolation_key(self, t: int, pairs: int) -> str:
        return digest(self.weights, self.test_images.digest, t, pairs, self.spec.seed, self.runtime.precision)

    def _reals_key(self) -> str:
        return digest(self.train_images.digest, N_REALS)

    # Shared by the stages

    def draw(self, chain: sampling.Chain, ids: range, times: Sequence[int] = ()) -> dict[str, Array]:
        """Draw samples, and keep x0_hat at some times; one that is not finite has NaN as its share out of
        range.
        """
        began, places = time.monotonic(), torch.arange(ids.start, ids.stop, device=self.runtime.device)
        with self.runtime.evaluation_precision():
            if times:
                estimates, x_0 = sampling.trajectory(chain, places, self.shape, times)
            else:
                x_0 = sampling.draw(chain, places, self.shape)
        finite = torch.isfinite(x_0).flatten(1).all(1)
        outside = (x_0.abs() > 1).flatten(1).double().mean(1).masked_fill(~finite, torch.nan)
        broken = ~finite[:, None, None, None]
        drawn = {"images": pixels.to_pixels(x_0.masked_fill(broken, 0)), "out_of_range": outside}
        if times:
            drawn["x_0_hat"] = pixels.to_pixels(estimates.masked_fill(broken, 0)).transpose(0, 1)
        arrays = {name: value.cpu().numpy() for name, value in drawn.items()}
        return {**arrays, "seconds": np.full(len(ids), (time.monotonic() - began) / len(ids))}

    def _diverge(self, reason: str) -> None:
        """Record that the run's samples diverged, which is a result."""
        log = self._stored_log()
        if log is not None:
            self.put(
                "training",
                replace(log, status="diverged", reason=reason),
                key=self.weights,
                seconds=log.seconds,
            )

    def share(
        self,
        chunks: PartialResults,
        pieces: Sequence[Any],
        compute: Callable[[Any], dict[str, Array]],
        stage: str | None,
        work_per_item: int,
    ) -> None:
        """Compute this process's share of the pieces that are not done yet.

        Its progress stands for that of all processes; work without a stage's name is too short to show any.

        Raises:
            NotFinite: if the network's output is not finite, here or on another process: on all of them.
        """
        work = [len(piece) * work_per_item for piece in pieces]
        mine = self.runtime.shard(range(len(pieces)))
        self._stage, self._total, self._share = stage, sum(work), sum(work[i] for i in mine)
        self._done = sum(work[i] for i in mine if chunks.done(i))
        self.tick(0)
        failure = None
        try:
            for index in mine:
                if not chunks.done(index):
                    before = self._done
                    chunks.put(index, compute(pieces[index]))
                    self.tick(before + work[index] - self._done)
        except NotFinite as error:
            failure = error
        if self.runtime.any_process(failure is not None):
            raise failure or NotFinite("the network's output is not finite on another process")

    def tick(self, evaluations: int) -> None:
        """Report so many more network evaluations of this process's share."""
        self._done += evaluations
        if self._stage and self._share:
            self.progress(self._stage, self._total * self._done // self._share, self._total)

    def collect(self, chunks: PartialResults, pieces: Sequence[Any]) -> dict[str, Array] | None:
        """Return all pieces joined on the main process, None elsewhere."""
        return chunks.collect(len(pieces)) if self.runtime.main else None

    def chunks(self, stage: str, key: str) -> PartialResults:
        """Return the finished pieces of a stage in progress."""
        return PartialResults(self.folder / "partial" / stage, key, may_clear=self.runtime.main)

    def evaluate(self, x_t: Tensor, timestep: Tensor) -> Tensor:
        """Evaluate the network in float32 (or the runtime's precision) on images of any dtype; see
        `diffusion.Network`.
        """
        output: Tensor = self.network(x_t.float(), timestep)
        return output

    @property
    def batch_size(self) -> int:
        """Images per network evaluation."""
        return self.runtime.batch_size(self.spec)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns of an image."""
        return self.spec.data.channels, self.spec.data.side, self.spec.data.side

    @cached_property
    def _header(self) -> checkpoints.Checkpoint:
        return checkpoints.load(self.checkpoint, prefixes=())

    def _stored_log(self) -> TrainingLog | None:
        return None if self._entry("training") is None else self.store.get("training", TrainingLog)

    def _entry(self, name: str) -> Entry | None:
        return next((entry for entry in self.store.entries() if entry.name == name), None)

    def measured(self, name: str) -> str:
        """Return the name under which what depends on the runtime's precision is stored, such as
        ``bf16/samples``.
        """
        return name if self.runtime.precision == "fp32" else f"{self.runtime.precision}/{name}"

    def has(self, name: str, key: str) -> bool:
        """Tell whether a result of this name and key is stored."""
        return self.store.has(name, key)

    def put(self, name: str, record: Record, *, key: str, seconds: float) -> None:
        """Store a result with its provenance (on the main process)."""
        if self.runtime.main:
            facts: Mapping[str, Any] = {
                "spec": self.spec.model_dump(mode="json"),
                "run": self.spec.training_digest(),
                "weights": key if name == "training" else self.weights,
                "device": self.runtime.describe(),
                "precision": self.runtime.precision,
                "wall_seconds": round(seconds, 3),
            }
            self.store.put(name, record, key=key, provenance=facts)


@dataclass(frozen=True)
class Stage:
    """A step of a run: whether its result is stored, and how to make it."""

    done: Callable[[Run], bool]
    perform: Callable[[Run], object]


def _bound_stage(
    split: str, protocols: Sequence[Protocol], few: bool = False, chains: Sequence[int | None] = (None,)
) -> Stage:
    return Stage(
        done=lambda run: all(
            Likelihood(run, split, few, chain).done(protocols) for chain in _possible(run, chains)
        ),
        perform=lambda run: [
            run.likelihood(split, protocols, few, chain) for chain in _possible(run, chains)
        ],
    )


def _possible(run: Run, chains: Sequence[int | None]) -> list[int | None]:
    steps = run.spec.diffusion.timesteps
    return [chain for chain in chains if chain is None or (chain < steps and run.can_skip_steps)]


def stages(inception_weights: Path | None = None) -> dict[str, Stage]:
    """Return the stages by name."""
    named = (PROTOCOLS["paper"], PROTOCOLS["exact"])
    return {
        "train": Stage(Run.trained, Run.train),
        "reals": Stage(lambda run: run.has("reals", run._reals_key()), Run.reals),
        "bound-train": _bound_stage("train", named),
        "bound-test": _bound_stage("test", named),
        "bound-test-protocols": _bound_stage("test", COMPARED),
        "bound-test-stratified": _bound_stage("test", named, few=True),
        "bound-test-chains": _bound_stage("test", CHAIN_PROTOCOLS, few=True, chains=CHAINS),
        "sample": Stage(
            Run.has_samples,
            Run.sample,
        ),
        "progressive": Stage(Run.has_trajectories, Run.progressive),
        "baseline": Stage(lambda run: run.has("baseline", run._baseline_key()), Run.baseline),
        "interpolate": Stage(
            lambda run: run.has(
                "interpolation", run._interpolation_key(run.spec.diffusion.timesteps // 4, 4)
            ),
            Run.interpolate,
        ),
        "quality": _quality_stage("quality", SampleQuality.measure, inception_weights),
        QUALITY_OVER_TIME: _quality_stage(QUALITY_OVER_TIME, SampleQuality.over_time, inception_weights),
        "neighbours": _quality_stage("neighbours", SampleQuality.nearest, inception_weights),
        **{
            name: _quality_stage(name, partial(SampleQuality.over_steps, method=method), inception_weights)
            for method, name in QUALITY_OVER_STEPS.items()
        },
    }


def _quality_stage(
    name: str, perform: Callable[[SampleQuality], None], inception_weights: Path | None
) -> Stage:
    return Stage(
        done=lambda run: SampleQuality(run, inception_weights).done(name),
        perform=lambda run: perform(SampleQuality(run, inception_weights)),
    )


def _pixels(images: ImageSet, positions: Array) -> Iterator[Tensor]:
    """Yield images in [-1, 1] in batches."""
    for batch in np.array_split(positions, -(-len(positions) // PIXEL_BATCH)):
        yield pixels.to_model_range(torch.from_numpy(images.take(batch)))


def open_run(folder: Path, runtime: Runtime, **options: Any) -> Run:  # noqa: ANN401
    """Return the run whose checkpoint lies in ``folder``; raise ValueError if there is none."""
    if not (folder / checkpoints.FILE_NAME).exists():
        raise ValueError(
            f"{folder} holds no {checkpoints.FILE_NAME} (train the run first, or name another folder)"
        )
    return Run(folder, checkpoints.load(folder, prefixes=()).spec, runtime, **options)


def ranges(first: int, end: int, size: int) -> list[range]:
    """Cut ``first`` to ``end - 1`` into ranges of ``size``, the last one shorter."""
    return [range(start, min(start + size, end)) for start in range(first, end, size)]
