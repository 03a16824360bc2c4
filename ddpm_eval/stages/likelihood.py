"""The bound of a run as stages: which images, which terms, in which chunks, under which names.

`Likelihood` brings together a run (weights, data, runtime, store) and `ddpm_eval.metrics.bound`: all T terms
of every image in restartable chunks, or a few importance-sampled terms
(`ddpm_eval.metrics.timestep_sampling`); on the full chain or on a shorter one, whose bound is a bound as
well.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.metrics import bound, timestep_sampling
from ddpm_eval.protocol import PROTOCOLS, Protocol
from ddpm_eval.results.records import Array, FullBoundTerms, Record, StratifiedBoundTerms, bound_name
from ddpm_eval.results.store import digest
from ddpm_eval.spec import RunSpec

if TYPE_CHECKING:
    from ddpm_eval.stages.pipeline import Run

CHUNK_IMAGES = 32
"""Images whose bound is one unit of restart, and of the work that processes share."""
PILOT_CHUNK_IMAGES = 2


@dataclass(frozen=True)
class Likelihood:
    """One measurement of a run's bound.

    Attributes:
        run: the run.
        split: ``test``, or ``train``: a fixed subset of the training images.
        few: a few terms per image instead of all.
        chain: number of evenly spaced steps instead of all.
    """

    run: "Run"
    split: str
    few: bool = False
    chain: int | None = None

    @property
    def images(self) -> ImageSet:
        """The images of the split."""
        return self.run.test_images if self.split == "test" else self.run.train_images

    @property
    def positions(self) -> Array:
        """The positions that are scored: bit-exact images, or a fixed random subset where the specification
        limits them.
        """
        exact, evaluation = (
            np.flatnonzero(~np.isin(self.images.ids, self.images.inexact)),
            self.run.spec.evaluation,
        )
        limit = evaluation.n_train_images if self.split == "train" else evaluation.n_test_images
        if limit is None or limit >= len(exact):
            return exact
        return np.sort(np.random.default_rng(0).permutation(exact)[:limit])

    def name(self, protocol: Protocol) -> str:
        """Return the name under which a protocol's result is stored."""
        return self.run.measured(bound_name(self.split, protocol, self.few, self.chain))

    def key(self, protocol: Protocol) -> str:
        """Return the digest of all that a protocol's result depends on."""
        run = self.run
        effort = run.spec.evaluation.evaluations_per_image if self.few else "full"
        parts = [
            run.weights,
            self.images.digest,
            len(self.positions),
            run.spec.seed,
            effort,
            run.runtime.precision,
            self.chain,
        ]
        if protocol.variance == "optimal":  # it is estimated from training images
            parts.append(len(self._training_atoms.positions))
        return digest(protocol.model_dump_json(), *parts)

    def done(self, protocols: Sequence[Protocol]) -> bool:
        """Tell whether all these results are stored."""
        return all(self.run.has(self.name(p), self.key(p)) for p in protocols)

    def measure(self, protocols: Sequence[Protocol]) -> None:
        """Measure and store what is missing; protocols with equal draws share their network evaluations."""
        wanted = [p for p in protocols if not self.done([p])]
        for draws in sorted({p.draws for p in wanted}):
            group = [p for p in wanted if p.draws == draws]
            began = monotonic()
            records = self.compute(group)
            for protocol, record in zip(group, records, strict=True) if self.run.runtime.main else ():
                self.run.put(self.name(protocol), record, key=self.key(protocol), seconds=monotonic() - began)
            self.run.runtime.barrier()

    def compute(self, protocols: Sequence[Protocol]) -> list[Record]:
        """Measure without storing, under protocols with equal draws; the results are the main process's."""
        model = self.run.model(self.chain)
        readings = [
            model.reading(p, self.optimal_variance(p) if p.variance == "optimal" else None) for p in protocols
        ]
        return self._stratified(protocols, readings) if self.few else self._full(protocols, readings)

    def result(self, protocol: Protocol) -> FullBoundTerms | StratifiedBoundTerms:
        """Read a stored result."""
        record_type = StratifiedBoundTerms if self.few else FullBoundTerms
        return self.run.store.get(self.name(protocol), record_type)  # type: ignore[return-value]

    def with_evaluations(self, evaluations: int) -> RunSpec:
        """Return the run's specification with so many stratified network evaluations over all images.

        Raises:
            ValueError: if that is less than two per image after the pilot.
        """
        spec, n = self.run.spec, len(self.positions)
        pilot = timestep_sampling.PILOT_IMAGES * len(
            timestep_sampling.pilot_times(self.chain or spec.diffusion.timesteps)
        )
        per_image = (evaluations - pilot) // n
        if per_image < 2:
            raise ValueError(
                f"{evaluations} network evaluations for {n} images are too few: the pilot takes {pilot} and each image needs "
                f"at least 2, together {pilot + 2 * n}"
            )
        evaluation = spec.evaluation.model_copy(update={"evaluations_per_image": per_image})
        return spec.model_copy(update={"evaluation": evaluation})

    def optimal_variance(self, protocol: Protocol) -> Array:
        """Return the isotropic sigma_t^2 that minimises the training images' bound on this chain, indexed
        0..T.

        sigma_t^2 = beta_tilde_t + E||mu_tilde - mu_theta||^2 / D, from the measured errors of x0_hat, clipped
        as the protocol says. Source: Bao et al., "Analytic-DPM", ICLR 2022, Theorem 1, with the errors in
        place of the model's own score.
        """
        base = PROTOCOLS["paper" if protocol.clip else "exact"]
        training = self._training_atoms
        training.measure([base])
        errors = training.result(base).x_0_squared_error.mean(axis=0, dtype=np.float64)
        schedule = self.run.schedule(self.chain).to("cpu")
        times = schedule.network_time.numpy()[1:]  # 0-based, of the full chain
        error = torch.from_numpy(np.concatenate([[np.nan], errors[times]]))
        return (schedule.beta_tilde + schedule.mean_weight_x_0**2 * error).numpy()

    @property
    def _training_atoms(self) -> "Likelihood":
        return Likelihood(self.run, "train")

    def _full(self, protocols: Sequence[Protocol], readings: Sequence[bound.Reading]) -> list[Record]:
        run, positions = self.run, self.positions
        schedule, draws = readings[0].process.schedule, protocols[0].draws
        steps = schedule.timesteps
        pieces = self._pieces(positions, steps)
        chunks = run.chunks(f"bound-{self.split}", digest(len(pieces[0]), *(self.key(p) for p in protocols)))

        def measure(piece: Array) -> dict[str, Array]:
            terms, errors = self._pairs(readings, _product(piece, np.arange(1, steps + 1)), draws)
            shape = (len(readings), len(piece), steps)
            terms, errors = (x.reshape(shape).swapaxes(0, 1).astype(np.float32) for x in (terms, errors))
            prior = bound.prior_terms(schedule, self._load, piece)
            return {
                "image_id": self.images.ids[piece],
                "terms": terms,
                "x_0_squared_error": errors,
                "prior": prior,
            }

        run.share(chunks, pieces, measure, f"bound {self.split}", steps * draws)
        arrays = run.collect(chunks, pieces)
        if arrays is None:
            return []
        chunks.clear()
        return [
            FullBoundTerms(
                image_id=arrays["image_id"],
                terms=arrays["terms"][:, i],
                x_0_squared_error=arrays["x_0_squared_error"][:, i],
                prior=arrays["prior"],
                **self._facts(protocol),
            )
            for i, protocol in enumerate(protocols)
        ]

    def _stratified(self, protocols: Sequence[Protocol], readings: Sequence[bound.Reading]) -> list[Record]:
        run, positions, draws = self.run, self.positions, protocols[0].draws
        schedule = readings[0].process.schedule
        per_image = min(run.spec.evaluation.evaluations_per_image, schedule.timesteps)
        pilot = self._pilot(draws)
        if not np.isfinite(pilot).all():
            raise bound.NotFinite("terms of the bound are not finite (did the training diverge?)")
        times = timestep_sampling.pilot_times(schedule.timesteps)
        inclusion, offset, chosen = timestep_sampling.select(
            pilot, times, schedule.timesteps, len(positions), per_image, run.spec.seed
        )
        pieces = self._pieces(np.arange(len(positions)), per_image)
        design = hashlib.sha256(
            chosen.tobytes()
        ).hexdigest()  # of the pilot, which another device rounds in another way
        chunks = run.chunks(
            f"bound-{self.split}-few", digest(len(pieces[0]), design, *(self.key(p) for p in protocols))
        )

        def measure(piece: Array) -> dict[str, Array]:
            row, column = np.nonzero(chosen[piece])
            pairs = np.stack([positions[piece[row]], chosen[piece[row], column]], axis=1)
            terms, errors = (
                _scatter(chosen[piece].shape, row, column, x) for x in self._pairs(readings, pairs, draws)
            )
            return {
                "terms": terms,
                "errors": errors,
                "prior": bound.prior_terms(schedule, self._load, positions[piece]),
            }

        run.share(chunks, pieces, measure, f"bound {self.split}", per_image * draws)
        arrays = run.collect(chunks, pieces)
        if arrays is None:
            return []
        chunks.clear()
        return [
            StratifiedBoundTerms(
                image_id=self.images.ids[positions],
                t=chosen,
                terms=arrays["terms"][:, i],
                x_0_squared_error=arrays["errors"][:, i],
                prior=arrays["prior"],
                inclusion=inclusion,
                offset=offset,
                network_evaluations=(int((chosen > 0).sum()) + pilot.size) * draws,
                **self._facts(protocol),
            )
            for i, protocol in enumerate(protocols)
        ]

    def _pilot(self, draws: int) -> Array:
        """Return the pilot's terms, ``[image, time]``, on every process.

        They are always read alike, so that no result depends on which others were measured with it.
        """
        run, first = self.run, self.positions[: timestep_sampling.PILOT_IMAGES]
        reading = run.model(self.chain).reading(PROTOCOLS["paper"])
        times = timestep_sampling.pilot_times(reading.process.schedule.timesteps)
        pieces = [
            first[start : start + PILOT_CHUNK_IMAGES] for start in range(0, len(first), PILOT_CHUNK_IMAGES)
        ]
        chunks = run.chunks(f"bound-{self.split}-pilot", digest(self.key(PROTOCOLS["paper"]), draws))

        def measure(piece: Array) -> dict[str, Array]:
            terms, _ = self._pairs([reading], _product(piece, times), draws)
            return {"terms": terms.reshape(len(piece), len(times))}

        run.share(chunks, pieces, measure, None, len(times) * draws)
        terms = chunks.collect(len(pieces))["terms"]
        run.runtime.barrier()  # all have read it before one deletes it
        if run.runtime.main:
            chunks.clear()
        return terms

    def _pieces(self, images: Array, evaluations: int) -> list[Array]:
        """Cut images, each of so many evaluations, into pieces that fill a few batches: the same however many
        share them.
        """
        size = max(CHUNK_IMAGES, -(-4 * self.run.batch_size // evaluations))
        return [images[start : start + size] for start in range(0, len(images), size)]

    def _facts(self, protocol: Protocol) -> dict[str, Any]:
        return {
            "split": self.split,
            "protocol": protocol.model_dump_json(),
            "dimensions": int(np.prod(self.run.shape)),
            "inexact_left_out": int(np.isin(self.images.ids, self.images.inexact).sum()),
        }

    def _pairs(self, readings: Sequence[bound.Reading], pairs: Array, draws: int) -> tuple[Array, Array]:
        run = self.run
        with run.runtime.evaluation_precision():
            return bound.evaluate_pairs(
                readings,
                self._load,
                self.images.ids,
                pairs,
                seed=run.spec.seed,
                draws=draws,
                batch_size=run.batch_size,
                progress=run.tick,
            )

    @property
    def _load(self) -> Callable[[Array], Tensor]:
        images, device = self.images, self.run.runtime.device
        return lambda positions: to_model_range(
            torch.from_numpy(images.take(positions)).to(device)
        ).double()


def _product(positions: Array, times: Array) -> Array:
    """All pairs of image and time, ``[pair, 2]``."""
    return np.stack(np.meshgrid(positions, times, indexing="ij"), axis=-1).reshape(-1, 2)


def _scatter(shape: tuple[int, ...], row: Array, column: Array, values: Array) -> Array:
    """Lay ``[reading, pair]`` out as ``[image, reading, time]``, zero where nothing was evaluated."""
    out = np.zeros((shape[0], len(values), shape[1]), dtype=values.dtype)
    out[row, :, column] = values.T
    return out
