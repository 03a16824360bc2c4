"""The order of stages of a run, each skipped when the store already holds its result.

A stage's result is keyed by a digest of the weights and of every choice it depends on, so that a changed choice or a
longer training measures anew and an unchanged one costs nothing. Long stages keep finished chunks beside the results file
and continue from them after a kill. Under torchrun every process runs the stages and shares their work.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ddpm_eval import bound, data, stratified
from ddpm_eval import checkpoint as checkpoints
from ddpm_eval import sample as sampling
from ddpm_eval import train as training
from ddpm_eval.bound import Model
from ddpm_eval.data import ImageSet
from ddpm_eval.diffusion import ReverseProcess, evenly_spaced, make_schedule
from ddpm_eval.records import (
    Array,
    BoundAtoms,
    Interpolations,
    Reals,
    Record,
    Samples,
    ScheduleTables,
    StratifiedAtoms,
    TrainingLog,
    Trajectory,
)
from ddpm_eval.runtime import Progress, Runtime, silent
from ddpm_eval.spec import PROTOCOLS, Protocol, RunSpec, combine
from ddpm_eval.store import Chunks, Entry, Store

if TYPE_CHECKING:
    from ddpm_eval.feature_metrics import QualityProtocol
    from ddpm_eval.features import Extractor

CHUNK_IMAGES = 32  # images whose bound is one unit of restart
PROGRESSIVE_STEPS = 20
N_REALS = 64


def digest(*parts: object) -> str:
    """Return 12 hexadecimal digits that identify JSON-serialisable parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]


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
        return Store(self.folder / "results.h5")

    @cached_property
    def train_images(self) -> ImageSet:
        """The training split."""
        return data.load(self.spec.data, "train", self.data_root)

    @cached_property
    def test_images(self) -> ImageSet:
        """The test split."""
        return data.load(self.spec.data, "test", self.data_root)

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

    def model(self) -> Model:
        """Return the model as the bound reads it: any dtype in, the network in float32 (or the runtime's precision)."""
        schedule = make_schedule(self.spec.diffusion).to(self.runtime.device)
        return Model(self._evaluate, schedule, self.spec.diffusion.prediction, self.spec.diffusion.variance)

    def process(self, steps: int | None = None) -> ReverseProcess:
        """Return p_theta for sampling, x_0 clipped, on all or on evenly spaced ``steps``."""
        process = training.trained_process(self.spec, self.network, clip=True)
        process = replace(process, network=self._evaluate)
        if steps is None or steps == self.spec.diffusion.timesteps:
            return process
        schedule = process.schedule.respaced(evenly_spaced(self.spec.diffusion.timesteps, steps))
        variance = process.variance
        if isinstance(variance, Tensor):
            variance = schedule.fixed_variance(self.spec.diffusion.variance)  # type: ignore[arg-type]
        return replace(process, schedule=schedule, variance=variance)

    # Stages

    def trained(self) -> bool:
        """Tell whether training is over: all updates done, or diverged."""
        log = self._stored_log() if self.checkpoint.exists() else None
        return log is not None and (log.diverged or (log.status == "ok" and log.steps >= self.spec.train.steps))

    def train(self, max_minutes: float | None = None) -> TrainingLog:
        """Train to the run's number of steps, or continue to it."""
        stored = self._stored_log()
        if stored is not None and self.trained():
            training.check_same_run(self._header, self.spec, self.checkpoint)
            return stored
        log = training.train(
            self.spec,
            self.train_images,
            self.runtime,
            self.checkpoint,
            max_minutes=max_minutes,
            progress=lambda _, done, total: self.progress("train", done, total),
        )
        for name in ("weights", "network", "_header"):
            self.__dict__.pop(name, None)
        key = checkpoints.weights_digest(self.checkpoint)
        self._put("training", log, key=key, seconds=log.seconds)
        self._put("schedule", self._tables(), key=key, seconds=0.0)
        self.runtime.barrier()
        return log

    def likelihood(self, split: str, protocols: Sequence[Protocol], few: bool = False) -> None:
        """Measure the bound of a split (the test set, or a fixed subset of the training set) under some protocols."""
        wanted = [p for p in protocols if not self._has(*self._bound_key(split, p, few))]
        if not wanted:
            return
        model = self.model()
        for draws in sorted({p.draws for p in wanted}):  # protocols with equal draws share their network evaluations
            group = [p for p in wanted if p.draws == draws]
            readings = [model.reading(p, self.optimal_variance(p) if p.variance == "optimal" else None) for p in group]
            measure = self._stratified if few else self._full
            began = time.monotonic()
            measured = measure(split, group, readings)
            for protocol, record in zip(group, measured, strict=True) if self.runtime.main else ():
                name, key = self._bound_key(split, protocol, few)
                self._put(name, record, key=key, seconds=time.monotonic() - began)
            self.runtime.barrier()

    def with_evaluations(self, split: str, evaluations: int) -> RunSpec:
        """Return the specification with so many stratified network evaluations over all images of a split.

        Raises:
            ValueError: if that is less than two per image after the pilot.
        """
        n, pilot = (
            len(self._scored(split)[1]),
            stratified.PILOT_IMAGES * len(stratified.pilot_times(self.spec.diffusion.timesteps)),
        )
        per_image = (evaluations - pilot) // n
        if per_image < 2:
            raise ValueError(
                f"{evaluations} network evaluations for {n} images are too few: the pilot takes {pilot} and each image needs "
                f"at least 2, together {pilot + 2 * n}"
            )
        evaluation = self.spec.evaluation.model_copy(update={"evaluations_per_image": per_image})
        return self.spec.model_copy(update={"evaluation": evaluation})

    def optimal_variance(self, protocol: Protocol) -> Array:
        """Return the isotropic sigma_t^2 that minimises the training images' bound, indexed 0..T.

        sigma_t^2 = beta_tilde_t + E||mu_tilde - mu_theta||^2 / D, from the measured errors of x0_hat, clipped as the protocol
        says. Source: Bao et al., "Analytic-DPM", ICLR 2022, Theorem 1, with the errors in place of the model's own score.
        """
        base = PROTOCOLS["paper" if protocol.clip else "exact"]
        self.likelihood("train", [base])
        atoms = self.store.get(bound_name("train", base), BoundAtoms)
        schedule = make_schedule(self.spec.diffusion)
        error = np.concatenate([[np.nan], atoms.x_0_squared_error.mean(axis=0, dtype=np.float64)])
        return (schedule.beta_tilde + schedule.mean_weight_x_0**2 * torch.from_numpy(error)).numpy()

    def sample(self, n: int | None = None, steps: int | None = None, method: sampling.Method = "ancestral") -> Array:
        """Draw samples (the preset's number by default) and return the images, uint8."""
        n, steps = n or self.spec.evaluation.n_samples, steps or self.spec.diffusion.timesteps
        name, key = self._sample_key(n, steps, method)
        if self._has(name, key):
            return self.store.get(name, Samples).images
        began, size = time.monotonic(), self._batch_size()
        chunks = self._chunks(name, digest(key, size))
        chain = sampling.Chain(self.process(steps), self.spec.seed, method)
        self._share(chunks, _ranges(n, size), lambda ids: self._draw(chain, ids), "sample", n * steps, steps)
        arrays = self._collect(chunks, _ranges(n, size))
        if arrays is not None:
            record = Samples(**arrays, method=method, sampling_steps=steps, seed=self.spec.seed)
            self._put(name, record, key=key, seconds=time.monotonic() - began)
            chunks.clear()
        self.runtime.barrier()
        return self.store.get(name, Samples).images

    def progressive(self) -> None:
        """Keep x0_hat over the reverse process of the first few samples (Fig. 6)."""
        if not self._has("progressive", self._progressive_key()) and self.runtime.main:
            began, total = time.monotonic(), self.spec.diffusion.timesteps
            times = sorted({1, *evenly_spaced(total, min(PROGRESSIVE_STEPS, total))}, reverse=True)
            chain = sampling.Chain(self.process(), self.spec.seed)
            ids = torch.arange(self.spec.evaluation.n_progressive, device=self.runtime.device)
            with self.runtime.evaluation_precision():
                estimates, _ = sampling.trajectory(chain, ids, self._shape(), times)
            record = Trajectory(t=np.array(times), x_0_hat=data.to_pixels(estimates).cpu().numpy())
            self._put("progressive", record, key=self._progressive_key(), seconds=time.monotonic() - began)
        self.runtime.barrier()

    def interpolate(self, t: int | None = None, pairs: int = 4) -> None:
        """Interpolate between the first test images in the latent space of time ``t``, T / 2 by default (Fig. 8)."""
        t = t or self.spec.diffusion.timesteps // 2
        if not 1 <= t <= self.spec.diffusion.timesteps:
            raise ValueError(f"t is {t}, but this chain has times 1 to {self.spec.diffusion.timesteps}")
        if not 1 <= pairs <= len(self.test_images) // 2:
            raise ValueError(f"{pairs} pairs asked for, but the test set has {len(self.test_images)} images")
        key = self._interpolation_key(t, pairs)
        if not self._has("interpolation", key) and self.runtime.main:
            began, weights = time.monotonic(), np.linspace(0, 1, 11)
            ends = self.test_images.take(np.arange(2 * pairs))
            source, target = data.to_model_range(torch.from_numpy(ends).to(self.runtime.device)).chunk(2)
            chain = sampling.Chain(self.process(), self.spec.seed)
            with self.runtime.evaluation_precision():
                mixed = sampling.interpolate(chain, source, target, t, weights.tolist())
            images = data.to_pixels(mixed).cpu().numpy()
            record = Interpolations(source=ends[:pairs], target=ends[pairs:], weight=weights, images=images, t=t)
            self._put("interpolation", record, key=key, seconds=time.monotonic() - began)
        self.runtime.barrier()

    def reals(self) -> None:
        """Store a few training images for figures."""
        if not self._has("reals", self._reals_key()) and self.runtime.main:
            images = self.train_images.take(np.arange(min(N_REALS, len(self.train_images))))
            self._put(
                "reals", Reals(images=images, name=self.spec.data.name, split="train"), key=self._reals_key(), seconds=0.0
            )
        self.runtime.barrier()

    def quality(self, inception_weights: Path | None = None) -> None:
        """Measure the stored samples against the training set, with Inception if its weights are given."""
        key = self._quality_key(inception_weights)
        if not self._has("quality", key) and self.runtime.main:
            from ddpm_eval import quality

            began = time.monotonic()
            record = quality.measure(
                self.store.get("samples", Samples).images,
                self.train_images,
                self._extractor(inception_weights),
                test=self.test_images,
                protocol=self._quality_protocol(),
                shelf=Store(self._classifiers / "statistics.h5"),
                progress=self.progress,
            )
            self._put("quality", record, key=key, seconds=time.monotonic() - began)
        self.runtime.barrier()

    def check_quality(self, inception_weights: Path | None = None) -> None:
        """Raise ValueError now, not after hours, if the samples to be drawn will be too few for the quality figures."""
        from ddpm_eval import quality

        if self.runtime.main:
            extractor = self._extractor(inception_weights)
            quality.check(self.spec.evaluation.n_samples, extractor, protocol=self._quality_protocol())

    @property
    def _classifiers(self) -> Path:
        return self.folder.parent.parent / "classifiers"

    def _extractor(self, inception_weights: Path | None) -> "Extractor":
        from ddpm_eval import features

        device = self.runtime.device
        if inception_weights is not None:
            return features.inception(inception_weights, device=device)
        return features.classifier(self.train_images, self.test_images, self._classifiers, device=device)

    def _quality_protocol(self) -> "QualityProtocol":
        from ddpm_eval.feature_metrics import PROTOCOLS

        return PROTOCOLS["paper"].model_copy(update={"splits": self.spec.evaluation.n_score_splits})

    def _tables(self) -> ScheduleTables:
        schedule = make_schedule(self.spec.diffusion)
        return ScheduleTables(
            beta=schedule.beta.numpy()[1:],
            alpha_bar=schedule.alpha_bar.numpy()[1:],
            beta_tilde=schedule.beta_tilde.numpy()[1:],
            fixed_large=schedule.fixed_variance("fixed-large").numpy()[1:],
            fixed_small=schedule.fixed_variance("fixed-small").numpy()[1:],
        )

    def _sample_key(self, n: int, steps: int, method: str) -> tuple[str, str]:
        full = (steps, method) == (self.spec.diffusion.timesteps, "ancestral")
        name = "samples" if full else f"samples-{method}-{steps}"
        return name, digest(self.weights, n, self.spec.seed, steps, method, self.runtime.precision)

    def _progressive_key(self) -> str:
        return digest(self.weights, self.spec.evaluation.n_progressive, self.spec.seed, self.runtime.precision)

    def _interpolation_key(self, t: int, pairs: int) -> str:
        return digest(self.weights, self.test_images.digest, t, pairs, self.spec.seed, self.runtime.precision)

    def _reals_key(self) -> str:
        return digest(self.train_images.digest, N_REALS)

    def _quality_key(self, inception_weights: Path | None) -> str:
        samples = self._entry("samples")
        weights = None if inception_weights is None else hashlib.sha256(inception_weights.read_bytes()).hexdigest()
        splits = self.spec.evaluation.n_score_splits
        return digest(samples and samples.key, self.train_images.digest, self.test_images.digest, weights, splits)

    # The bound

    def _full(self, split: str, protocols: Sequence[Protocol], readings: Sequence[bound.Reading]) -> list[Record]:
        images, positions = self._scored(split)
        steps, size = self.spec.diffusion.timesteps, self._batch_size()
        per_chunk = max(CHUNK_IMAGES, -(-4 * size // steps))
        pieces = [positions[r.start : r.stop] for r in _ranges(len(positions), per_chunk)]
        names = [p.model_dump_json() for p in protocols]
        chunks = self._chunks(
            f"bound-{split}", digest(self.weights, images.digest, self.spec.seed, names, per_chunk, self.runtime.precision)
        )
        load = self._loader(images)

        def measure(piece: Array) -> dict[str, Array]:
            pairs = np.stack(np.meshgrid(piece, np.arange(1, steps + 1), indexing="ij"), axis=-1).reshape(-1, 2)
            terms, errors = self._pairs(readings, load, images, pairs, protocols[0].draws)
            shape = (len(readings), len(piece), steps)
            prior = bound.prior_terms(readings[0].process.schedule, load, piece)
            terms, errors = (x.reshape(shape).swapaxes(0, 1).astype(np.float32) for x in (terms, errors))
            return {"image_id": images.ids[piece], "terms": terms, "x_0_squared_error": errors, "prior": prior}

        work = steps * protocols[0].draws
        self._share(chunks, pieces, measure, f"bound {split}", len(positions) * work, work)
        arrays = self._collect(chunks, pieces)
        if arrays is None:
            return []
        chunks.clear()
        common = self._bound_facts(images, split)
        return [
            BoundAtoms(
                image_id=arrays["image_id"],
                terms=arrays["terms"][:, i],
                x_0_squared_error=arrays["x_0_squared_error"][:, i],
                prior=arrays["prior"],
                protocol=protocol.model_dump_json(),
                **common,
            )
            for i, protocol in enumerate(protocols)
        ]

    def _stratified(self, split: str, protocols: Sequence[Protocol], readings: Sequence[bound.Reading]) -> list[Record]:
        images, positions = self._scored(split)
        steps, draws = self.spec.diffusion.timesteps, protocols[0].draws
        load = self._loader(images)
        times = stratified.pilot_times(steps)
        first = positions[: stratified.PILOT_IMAGES]
        pilot_pairs = np.stack(np.meshgrid(first, times, indexing="ij"), axis=-1).reshape(-1, 2)
        per_image = self.spec.evaluation.evaluations_per_image
        self._begin(f"bound {split}", (len(pilot_pairs) + len(positions) * per_image) * draws)
        pilot, _ = self._pairs(readings[:1], load, images, pilot_pairs, draws)
        inclusion, chosen = stratified.select(
            pilot[0].reshape(len(first), -1), times, steps, len(positions), per_image, self.spec.seed
        )
        row, column = np.nonzero(chosen)
        pairs = np.stack([positions[row], chosen[row, column]], axis=1)
        terms, errors = self._pairs(readings, load, images, pairs, draws)
        prior = bound.prior_terms(readings[0].process.schedule, load, positions)
        common = self._bound_facts(images, split)
        return [
            StratifiedAtoms(
                image_id=images.ids[positions],
                t=chosen,
                terms=_scatter(chosen.shape, row, column, terms[i]),
                x_0_squared_error=_scatter(chosen.shape, row, column, errors[i]),
                prior=prior,
                inclusion=inclusion,
                protocol=protocol.model_dump_json(),
                network_evaluations=(len(pairs) + len(pilot_pairs)) * draws,
                **common,
            )
            for i, protocol in enumerate(protocols)
        ]

    def _scored(self, split: str) -> tuple[ImageSet, Array]:
        """Return a split and the positions whose likelihood counts: bit-exact images, of the training set a fixed subset."""
        images = self.test_images if split == "test" else self.train_images
        exact = np.flatnonzero(~np.isin(images.ids, images.inexact))
        if split == "train":
            n = min(self.spec.evaluation.n_train_images, len(exact))
            exact = np.sort(np.random.default_rng(0).permutation(exact)[:n])
        return images, exact

    def _bound_facts(self, images: ImageSet, split: str) -> dict[str, Any]:
        left_out = int(np.isin(images.ids, images.inexact).sum())
        return {"split": split, "dimensions": int(np.prod(self._shape())), "inexact_left_out": left_out}

    def _bound_key(self, split: str, protocol: Protocol, few: bool) -> tuple[str, str]:
        images, positions = self._scored(split)
        effort = self.spec.evaluation.evaluations_per_image if few else "full"
        parts = [self.weights, images.digest, len(positions), self.spec.seed, effort, self.runtime.precision]
        if protocol.variance == "optimal":  # it is estimated from training images
            parts.append(len(self._scored("train")[1]))
        return bound_name(split, protocol, few), digest(protocol.model_dump_json(), *parts)

    def _pairs(
        self, readings: Sequence[bound.Reading], load: Callable[[Array], Tensor], images: ImageSet, pairs: Array, draws: int
    ) -> tuple[Array, Array]:
        with self.runtime.evaluation_precision():
            return bound.evaluate_pairs(
                readings,
                load,
                images.ids,
                pairs,
                seed=self.spec.seed,
                draws=draws,
                batch_size=self._batch_size(),
                progress=self._tick,
            )

    def _loader(self, images: ImageSet) -> Callable[[Array], Tensor]:
        device = self.runtime.device
        return lambda positions: data.to_model_range(torch.from_numpy(images.take(positions)).to(device)).double()

    # Shared by the stages

    def _draw(self, chain: sampling.Chain, ids: range) -> dict[str, Array]:
        with self.runtime.evaluation_precision():
            x_0 = sampling.draw(chain, torch.arange(ids.start, ids.stop, device=self.runtime.device), self._shape())
        if not torch.isfinite(x_0).all():
            raise ValueError(f"samples {ids.start} to {ids.stop - 1} of {self.folder} are not finite")
        outside = (x_0.abs() > 1).flatten(1).double().mean(1)
        return {"images": data.to_pixels(x_0).cpu().numpy(), "out_of_range": outside.cpu().numpy()}

    def _share(
        self,
        chunks: Chunks,
        pieces: Sequence[Any],
        compute: Callable[[Any], dict[str, Array]],
        stage: str,
        total: int,
        work_per_item: int,
    ) -> None:
        """Compute this process's share of the pieces that are not done yet."""
        finished = sum(len(piece) * work_per_item for i, piece in enumerate(pieces) if chunks.done(i))
        self._begin(stage, total, finished)
        for index in self.runtime.mine(range(len(pieces))):
            if not chunks.done(index):
                before = self._done
                chunks.put(index, compute(pieces[index]))
                self._tick(before + len(pieces[index]) * work_per_item - self._done)
        self.runtime.barrier()

    def _begin(self, stage: str, total: int, done: int = 0) -> None:
        self._stage, self._total, self._done = stage, total, done
        self.progress(stage, done, total)

    def _tick(self, evaluations: int) -> None:
        self._done += evaluations
        self.progress(self._stage, self._done, self._total)

    def _collect(self, chunks: Chunks, pieces: Sequence[Any]) -> dict[str, Array] | None:
        """Return all pieces joined on the main process, None elsewhere."""
        return chunks.collect(len(pieces)) if self.runtime.main else None

    def _chunks(self, stage: str, key: str) -> Chunks:
        return Chunks(self.folder / "partial" / stage, key, may_clear=self.runtime.main)

    def _evaluate(self, x_t: Tensor, timestep: Tensor) -> Tensor:
        output: Tensor = self.network(x_t.float(), timestep)
        return output

    def _batch_size(self) -> int:
        return self.runtime.batch_size(self.spec)

    def _shape(self) -> tuple[int, int, int]:
        return self.spec.data.channels, self.spec.data.side, self.spec.data.side

    @cached_property
    def _header(self) -> checkpoints.Checkpoint:
        return checkpoints.load(self.checkpoint, prefixes=())

    def _stored_log(self) -> TrainingLog | None:
        return None if self._entry("training") is None else self.store.get("training", TrainingLog)

    def _entry(self, name: str) -> Entry | None:
        return next((entry for entry in self.store.entries() if entry.name == name), None)

    def _has(self, name: str, key: str) -> bool:
        return self.store.has(name, key)

    def _put(self, name: str, record: Record, *, key: str, seconds: float) -> None:
        if self.runtime.main:
            facts: Mapping[str, Any] = {
                "spec": self.spec.model_dump(mode="json"),
                "run": self.spec.identity(),
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


def _bound_stage(split: str, protocols: Sequence[Protocol], few: bool = False) -> Stage:
    return Stage(
        done=lambda run: all(run._has(*run._bound_key(split, p, few)) for p in protocols),
        perform=lambda run: run.likelihood(split, protocols, few),
    )


def stages(inception_weights: Path | None = None) -> dict[str, Stage]:
    """Return the stages by name."""
    named = (PROTOCOLS["paper"], PROTOCOLS["exact"])
    return {
        "train": Stage(Run.trained, Run.train),
        "reals": Stage(lambda run: run._has("reals", run._reals_key()), Run.reals),
        "bound-train": _bound_stage("train", named),
        "bound-test": _bound_stage("test", named),
        "bound-test-protocols": _bound_stage("test", COMPARED),
        "bound-test-stratified": _bound_stage("test", named, few=True),
        "sample": Stage(
            lambda run: run._has(*run._sample_key(run.spec.evaluation.n_samples, run.spec.diffusion.timesteps, "ancestral")),
            Run.sample,
        ),
        "progressive": Stage(lambda run: run._has("progressive", run._progressive_key()), Run.progressive),
        "interpolate": Stage(
            lambda run: run._has("interpolation", run._interpolation_key(run.spec.diffusion.timesteps // 2, 4)), Run.interpolate
        ),
        "quality": Stage(
            lambda run: run._has("quality", run._quality_key(inception_weights)), lambda run: run.quality(inception_weights)
        ),
    }


COMPARED = tuple(
    combine(base, variance=variance) for variance in ("trained", "fixed-small", "optimal") for base in PROTOCOLS.values()
)
"""The protocols under which one model is compared."""


def bound_name(split: str, protocol: Protocol, few: bool = False) -> str:
    """Return the name under which a bound is stored."""
    return f"bound{'-stratified' if few else ''}/{split}/{protocol.name}"


def open_run(folder: Path, runtime: Runtime, **options: Any) -> Run:  # noqa: ANN401
    """Return the run whose checkpoint lies in ``folder``; raise ValueError if there is none."""
    if not (folder / checkpoints.FILE_NAME).exists():
        raise ValueError(f"{folder} holds no {checkpoints.FILE_NAME} (train the run first, or name another folder)")
    return Run(folder, checkpoints.load(folder, prefixes=()).spec, runtime, **options)


def _ranges(n: int, size: int) -> list[range]:
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def _scatter(shape: tuple[int, int], row: Array, column: Array, values: Array) -> Array:
    out = np.zeros(shape, dtype=values.dtype)
    out[row, column] = values
    return out
