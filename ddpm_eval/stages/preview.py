"""Previews of a training: at intervals of updates, a grid of samples and an estimate of the bound.

Both are of the averaged weights, and always of the same noise and images, so that what differs is the
network. The samples take a chain of at most `STEPS` steps (DDIM without noise); a network that predicts mu
knows its own chain only and shows fewer samples of all its steps. The bound is the stratified estimate under
protocol ``paper`` of at most `TEST_IMAGES` test images with `EVALUATIONS` network evaluations each. Training
is not changed by any of it.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import monotonic

import numpy as np
from PIL import Image

from ddpm_eval.files import atomic_write, content_digest, digest
from ddpm_eval.metrics.bound import Estimator, Model, evaluate_bound
from ddpm_eval.metrics.drawing import draw_samples
from ddpm_eval.metrics.timestep_sampling import DESIGN_CONSTANTS, stratified_offsets
from ddpm_eval.model.samplers import make_sampler
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.reporting.image_grids import mosaic
from ddpm_eval.reporting.training_tables import history_table
from ddpm_eval.results.bound_terms import BOUND_HISTORY, BoundHistory, BoundTerms
from ddpm_eval.results.fields import Array
from ddpm_eval.results.store import Result
from ddpm_eval.stages.bound_stage import scored_positions
from ddpm_eval.stages.run import PARTIAL, SAMPLING, Run
from ddpm_eval.stages.shared_work import SharedWork
from ddpm_eval.training.loop import Callback
from ddpm_eval.training.tensorboard import FOLDER, TensorBoard
from ddpm_eval.training.trainer import Trainer

log = logging.getLogger(__name__)

PREVIEW = "preview"
"""The name under which the work of a preview in progress is kept."""
SAMPLES = 64
COLUMNS = 8
STEPS = 50
TEST_IMAGES = 256
EVALUATIONS = 8
SHOWN_PIXELS = 64
"""Side at which a sample is shown at least, by repeating its pixels."""
PROTOCOL = PROTOCOLS["paper"]


@contextmanager
def training_callbacks(
    run: Run, preview_steps: int = 0, tensorboard: bool = False
) -> Iterator[list[Callback]]:
    """Give the callbacks of a run's training.

    Args:
        run: to be trained.
        preview_steps: updates between previews, 0 for none.
        tensorboard: whether to write event files.

    Raises:
        ValueError: if a package is missing.
    """
    board = TensorBoard(run.folder / FOLDER) if tensorboard else None
    callbacks: list[Callback] = []
    if board is not None:
        callbacks.append(board)  # it opens its file before a preview is shown
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
        self.run = run
        self.every = every
        self.board = board
        self.started = False

    def __call__(self, trainer: Trainer) -> None:
        """Take a preview if it is time, and it was not taken before the training was interrupted."""
        first = not self.started
        self.started = True
        if first:
            self._check_images()
            self._clear(trainer)
        if trainer.step == 0 or trainer.step % self.every:
            return
        if first and not trainer.runtime.any_process(not self._taken(trainer.step)):
            return
        self._take(Moment(self.run, trainer))
        trainer.runtime.barrier()

    def path(self, step: int) -> Path:
        """Return the file of the samples after ``step`` updates."""
        return self.run.folder / "previews" / f"step-{step:08d}.png"

    def _take(self, moment: "Moment") -> None:
        began = monotonic()
        grid = moment.grid()
        bound = moment.bound()
        moment.work.clear()
        if grid is not None:
            _write_png(grid, self.path(moment.step))
            self._append(bound, monotonic() - began)
            self._show(grid, bound)

    def _check_images(self) -> None:
        """Load the test images now: a split that is missing should not end the training later."""
        try:
            self.run.test_images  # noqa: B018 - kept by the run
        except ValueError as error:
            raise ValueError(
                f"{error} (previews measure test images; --preview-steps 0 does without)"
            ) from None

    def _clear(self, trainer: Trainer) -> None:
        """Delete what is left of a preview: training may not come back to the very same weights."""
        if trainer.runtime.main:
            shutil.rmtree(self.run.folder / PARTIAL / PREVIEW, ignore_errors=True)
        trainer.runtime.barrier()

    def _taken(self, step: int) -> bool:
        history = self._history()
        return history is not None and step in history.update and self.path(step).exists()

    def _history(self) -> BoundHistory | None:
        key = history_key(self.run)
        known = self.run.results.has(BOUND_HISTORY, key)
        return self.run.results.get(BOUND_HISTORY, BoundHistory, key) if known else None

    def _append(self, bound: BoundHistory, seconds: float) -> None:
        history = self._history()
        if history is not None:
            # what lies beyond a checkpoint is taken again after a kill
            before = history.update < bound.update[0]
            bound = replace(
                bound,
                update=np.append(history.update[before], bound.update),
                total=np.concatenate([history.total[before], bound.total]),
                rate=np.concatenate([history.rate[before], bound.rate]),
                distortion=np.concatenate([history.distortion[before], bound.distortion]),
            )
        self.run.results.put_all([Result(BOUND_HISTORY, bound, history_key(self.run))], seconds=seconds)

    def _show(self, grid: Array, bound: BoundHistory) -> None:
        if self.board is None:
            return
        row = history_table(bound).iloc[0]
        where = f"bits_per_dim_of_{len(bound.image_id)}_{bound.split}_images"
        names = {"bits_per_dim": "total", "bits_per_dim_low": "total_low", "bits_per_dim_high": "total_high"}
        names |= {name: name for name in ("rate", "distortion")}
        scalars = {f"{where}/{label}": float(row[column]) for column, label in names.items()}
        self.board.show(int(row["update"]), scalars, {"samples": grid})


@dataclass
class Moment:
    """A run in training as its averaged weights are now, to be measured on few images in batches that fit."""

    run: Run
    trainer: Trainer

    @property
    def step(self) -> int:
        """The number of updates that were done."""
        return self.trainer.step

    @property
    def batch_size(self) -> int:
        """The number of images that fit beside the training: at most its own batch of this process."""
        train = self.run.spec.train
        return min(self.run.batch_size, -(-train.batch_size // self.run.runtime.world_size))

    @cached_property
    def work(self) -> SharedWork:
        """How the preview's work is carried out."""

        def progress(stage: str, done: int, total: int) -> None:
            self.run.progress(f"preview: {stage}", done, total)

        key = digest(self.run.spec.training_digest(), self.step)
        return SharedWork(self.run.folder / PARTIAL / PREVIEW, key, self.run.runtime, progress)

    def model(self, num_steps: int | None = None) -> Model:
        """Return the model with the averaged weights."""
        diffusion = self.run.spec.diffusion
        network = self.trainer.averaged_network()
        return Model(network, self.run.schedule(num_steps), diffusion.prediction, diffusion.variance_name)

    def grid(self) -> Array | None:
        """Draw samples, side by side on the main process, uint8 ``[row, column, 3]``."""
        run = self.run
        timesteps = run.spec.diffusion.timesteps
        steps = timesteps if run.no_fewer_steps else min(STEPS, timesteps)
        n = min(SAMPLES, max(COLUMNS, SAMPLES * STEPS // steps))
        process = self.model(steps).under(SAMPLING).process
        sampler = make_sampler(process, run.spec.seed, "ancestral" if run.no_fewer_steps else "ddim")
        size = min(self.batch_size, -(-n // run.runtime.world_size))
        with run.runtime.evaluation_precision():
            drawn = draw_samples(sampler, run.shape, range(n), batch_size=size, work=self.work)
        if drawn is None:
            return None
        bad = int(np.isnan(drawn["out_of_range"]).sum())
        if bad:
            log.warning("%d of %d samples after %d updates are not finite: shown grey", bad, n, self.step)
        times = max(1, SHOWN_PIXELS // run.spec.data.side)
        return mosaic(drawn["images"].repeat(times, axis=2).repeat(times, axis=3), COLUMNS)

    def bound(self) -> BoundHistory:
        """Estimate the bound: a history of one moment, which has values on the main process."""
        images = self.run.test_images
        positions = preview_positions(self.run)
        ids = images.ids[positions]
        values = dict.fromkeys(("total", "rate", "distortion"), np.full(len(ids), np.nan))
        try:
            for terms in self._terms(positions):
                values = terms.values()
        except ValueError as error:  # what is not finite
            log.warning("no bound after %d updates: %s", self.step, error)
        return BoundHistory(
            update=np.array([self.step]),
            image_id=ids,
            offset=stratified_offsets(len(ids), self.run.spec.seed),
            total=values["total"][None],
            rate=values["rate"][None],
            distortion=values["distortion"][None],
            split="test",
            protocol=PROTOCOL,
            evaluations_per_image=EVALUATIONS,
            inexact_left_out=int(np.isin(images.ids, images.inexact).sum()),
        )

    def _terms(self, positions: Array) -> list[BoundTerms]:
        with self.run.runtime.evaluation_precision():
            return evaluate_bound(
                self.model(),
                self.run.test_images,
                [PROTOCOL],
                positions=positions,
                estimator=Estimator("stratified", EVALUATIONS),
                seed=self.run.spec.seed,
                batch_size=self.batch_size,
                work=self.work,
            )


def preview_positions(run: Run) -> Array:
    """Return the positions of the test images whose bound is followed."""
    return scored_positions(
        run.test_images, min(TEST_IMAGES, run.spec.evaluation.n_test_images or TEST_IMAGES)
    )


def history_key(run: Run) -> str:
    """Return the digest of everything that the history depends on beside the weights of each moment."""
    positions = content_digest([preview_positions(run)])
    images = (run.test_images.digest, positions)
    choices = (PROTOCOL.model_dump_json(), EVALUATIONS, DESIGN_CONSTANTS, run.runtime.precision)
    return digest(run.spec.training_digest(), *images, *choices)


def _write_png(pixels: Array, path: Path) -> None:
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
