"""What a training has come to so far: a grid of samples and an estimate of the bound, at intervals of
updates.

Both are of the averaged weights, and always of the same noise and images, so that what differs is the
network. The samples take a chain of at most `STEPS` steps (DDIM without noise); a network that predicts mu
knows its own chain only and shows fewer samples of all its steps. The bound is the stratified estimate under
protocol ``paper`` of at most `TEST_IMAGES` test images with `EVALUATIONS` network evaluations each: cheap and
unbiased. Training is not changed by any of it.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic

import numpy as np
from PIL import Image

from ddpm_eval.metrics.timestep_sampling import stratified_offsets
from ddpm_eval.model.samplers import Chain
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.reporting import analyse
from ddpm_eval.reporting.render import mosaic
from ddpm_eval.results.records import BOUND_HISTORY, Array, BoundHistory, StratifiedBoundTerms
from ddpm_eval.results.store import atomic_write, digest
from ddpm_eval.stages.likelihood import Likelihood
from ddpm_eval.stages.pipeline import Run, ranges
from ddpm_eval.training.loop import Callback, Trainer
from ddpm_eval.training.tensorboard import FOLDER, TensorBoard

log = logging.getLogger(__name__)

PIECES = ("preview", "bound-test-few", "bound-test-pilot")  # of a preview in progress
SAMPLES, COLUMNS, STEPS = 64, 8, 50
TEST_IMAGES, EVALUATIONS = 256, 8
SHOWN_PIXELS = 64
"""Side at which a sample is shown at least, by repeating its pixels."""


@contextmanager
def watching(run: Run, preview_steps: int = 0, tensorboard: bool = False) -> Iterator[list[Callback]]:
    """Give the callbacks of a run's training.

    Args:
        run: to be trained.
        preview_steps: updates between previews, 0 for none.
        tensorboard: whether to write event files.

    Raises:
        ValueError: if a package is missing.
    """
    board = TensorBoard(run.folder / FOLDER) if tensorboard else None
    callbacks: list[Callback] = (
        [] if board is None else [board]
    )  # it opens its file before a preview is shown there
    if preview_steps:
        callbacks.append(Previews(run, preview_steps, board))
    try:
        yield callbacks
    finally:
        if board is not None:
            board.close()


class Previews:
    """Keeps a preview of every so many updates (a `ddpm_eval.training.loop.Callback`).

    The grids lie in the run's folder ``previews``, the bounds in its results as a `BoundHistory`.

    Args:
        run: in training.
        every: updates between previews.
        board: where to show them as well.
    """

    def __init__(self, run: Run, every: int, board: TensorBoard | None = None) -> None:
        self.run, self.every, self.board = run, every, board
        self.started = False

    def __call__(self, trainer: Trainer) -> None:
        """Take a preview if it is time, and it was not taken before the training was interrupted."""
        first, self.started = not self.started, True
        if first:
            self._check_images()
            self._clear(trainer)
        if trainer.step == 0 or trainer.step % self.every:
            return
        if first and not trainer.runtime.any_process(not self._taken(trainer.step)):
            return
        began, averaged = monotonic(), averaged_run(self.run, trainer)
        grid, moment = _grid(averaged, trainer.step), _bound(averaged, trainer.step)
        if grid is not None:
            _write_png(grid, self.path(trainer.step))
            self._append(averaged, moment, monotonic() - began)
            self._show(grid, moment)
        trainer.runtime.barrier()

    def _check_images(self) -> None:
        """Load the test images now: a split that is missing should not end the training later."""
        try:
            self.run.test_images  # noqa: B018 - kept by the run
        except ValueError as error:
            raise ValueError(
                f"{error} (previews measure test images; --preview-steps 0 does without)"
            ) from None

    def _clear(self, trainer: Trainer) -> None:
        """Delete the pieces of a preview that was interrupted: training may not come back to the very same
        weights.
        """
        if trainer.runtime.main:
            for name in PIECES:
                shutil.rmtree(self.run.folder / "partial" / name, ignore_errors=True)
        trainer.runtime.barrier()

    def path(self, step: int) -> Path:
        """Return the file of the samples after ``step`` updates."""
        return self.run.folder / "previews" / f"step-{step:08d}.png"

    def _taken(self, step: int) -> bool:
        history = self._history()
        return history is not None and step in history.update and self.path(step).exists()

    def _history(self) -> BoundHistory | None:
        known = self.run.has(BOUND_HISTORY, _key(self.run))
        return self.run.store.get(BOUND_HISTORY, BoundHistory) if known else None

    def _append(self, averaged: Run, moment: BoundHistory, seconds: float) -> None:
        history = self._history()
        if history is not None:
            before = (
                history.update < moment.update[0]
            )  # what a killed training had beyond its checkpoint is taken again
            moment = replace(
                moment,
                update=np.append(history.update[before], moment.update),
                total=np.concatenate([history.total[before], moment.total]),
                rate=np.concatenate([history.rate[before], moment.rate]),
                distortion=np.concatenate([history.distortion[before], moment.distortion]),
            )
        averaged.put(BOUND_HISTORY, moment, key=_key(self.run), seconds=seconds)

    def _show(self, grid: Array, moment: BoundHistory) -> None:
        if self.board is None:
            return
        row = analyse.history_table(moment).iloc[0]
        where = f"bits_per_dim_of_{len(moment.image_id)}_{moment.split}_images"
        names = {"bits_per_dim": "total", "bits_per_dim_low": "total_low", "bits_per_dim_high": "total_high"}
        names |= {name: name for name in ("rate", "distortion")}
        scalars = {f"{where}/{label}": float(row[column]) for column, label in names.items()}
        self.board.show(int(row["update"]), scalars, {"samples": grid})


def averaged_run(run: Run, trainer: Trainer) -> Run:
    """Return a run in training as its averaged weights are now, to be measured on few images in batches that
    fit.
    """
    evaluation = run.spec.evaluation.model_copy(
        update={"n_test_images": _n_images(run), "evaluations_per_image": EVALUATIONS}
    )
    averaged = _Averaged(run.folder, run.spec.model_copy(update={"evaluation": evaluation}), run.runtime)
    averaged.progress = lambda stage, done, total: run.progress(f"preview: {stage}", done, total)
    averaged.network, averaged.test_images = trainer.averaged_network(), run.test_images
    averaged.weights = f"averaged after {trainer.step} updates"
    return averaged


class _Averaged(Run):
    @property
    def batch_size(self) -> int:
        return min(super().batch_size, -(-self.spec.train.batch_size // self.runtime.world_size))


def _n_images(run: Run) -> int:
    return min(TEST_IMAGES, run.spec.evaluation.n_test_images or TEST_IMAGES)


def _key(run: Run) -> str:
    return digest(
        run.spec.training_digest(), run.test_images.digest, _n_images(run), EVALUATIONS, run.runtime.precision
    )


def _grid(run: Run, step: int) -> Array | None:
    """Draw the samples, shared by the processes; the main one returns them side by side, uint8 ``[row,
    column, 3]``.
    """
    timesteps = run.spec.diffusion.timesteps
    full = not run.can_skip_steps
    steps = timesteps if full else min(STEPS, timesteps)
    n = min(SAMPLES, max(COLUMNS, SAMPLES * STEPS // steps))
    chain = Chain(run.process(steps), run.spec.seed, "ancestral" if full else "ddim")
    size = min(run.batch_size, -(-n // run.runtime.world_size))
    chunks, pieces = (
        run.chunks("preview", digest(run.spec.training_digest(), step, n, steps, size)),
        ranges(0, n, size),
    )
    run.share(chunks, pieces, lambda ids: run.draw(chain, ids), "sample", steps)
    drawn = run.collect(chunks, pieces)
    if drawn is None:
        return None
    chunks.clear()
    bad = int(np.isnan(drawn["out_of_range"]).sum())
    if bad:
        log.warning("%d of %d samples after %d updates are not finite: they are shown grey", bad, n, step)
    times = max(1, SHOWN_PIXELS // run.spec.data.side)
    return mosaic(drawn["images"].repeat(times, axis=2).repeat(times, axis=3), COLUMNS)


def _bound(run: Run, step: int) -> BoundHistory:
    """Estimate the bound, shared by the processes: a history of one moment, on the main one with values."""
    task, protocol = Likelihood(run, "test", few=True), PROTOCOLS["paper"]
    ids = task.images.ids[task.positions]
    values = dict.fromkeys(("total", "rate", "distortion"), np.full(len(ids), np.nan))
    try:
        for atoms in task.compute([protocol]):  # on the main process
            assert isinstance(atoms, StratifiedBoundTerms)
            values = analyse.bound_values(atoms)
    except ValueError as error:  # what is not finite
        log.warning("no bound after %d updates: %s", step, error)
    return BoundHistory(
        update=np.array([step]),
        image_id=ids,
        offset=stratified_offsets(len(ids), run.spec.seed),
        total=values["total"][None],
        rate=values["rate"][None],
        distortion=values["distortion"][None],
        split="test",
        protocol=protocol.model_dump_json(),
        evaluations_per_image=EVALUATIONS,
        inexact_left_out=int(np.isin(task.images.ids, task.images.inexact).sum()),
    )


def _write_png(pixels: Array, path: Path) -> None:
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
