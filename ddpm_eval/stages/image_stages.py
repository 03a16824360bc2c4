"""What needs the data set alone: a few images for figures, and what its images cost without a network."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.files import content_digest, digest
from ddpm_eval.metrics.histograms import histogram_bits
from ddpm_eval.metrics.image_coders import CODERS, code_images
from ddpm_eval.metrics.work import Work
from ddpm_eval.model.gaussian import Gaussian
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results.fields import Array, Record
from ddpm_eval.results.records import Baseline, ReferenceImages, SimpleCodes
from ddpm_eval.stages.base import Stage
from ddpm_eval.stages.bound_stage import BoundStage
from ddpm_eval.stages.run import Run

N_REFERENCE_IMAGES = 64
BATCH_SIZE = 256
MOST_CODED_ELEMENTS = 2**28
"""Elements of all images of both splits; CIFAR-10 has 2**27.5."""
TEST_BOUND = BoundStage("test", (PROTOCOLS["exact"],), "stratified")
"""Whose images are scored, so that a model is compared with these numbers on the same images."""


class ReferenceImagesStage(Stage):
    """A few training images, for figures."""

    name = "reference-images"
    record = ReferenceImages
    uses_network = False

    def key(self, run: Run) -> str:
        """Return the digest of the data and their number."""
        return digest(run.train_images.digest, N_REFERENCE_IMAGES)

    def compute(self, run: Run, work: Work) -> Record | None:
        """Return the first training images."""
        images = run.train_images
        first = images.take(np.arange(min(N_REFERENCE_IMAGES, len(images))))
        return ReferenceImages(images=first, name=run.spec.data.name, split="train")


class BaselineStage(Stage):
    """A Gaussian fitted to the training images: its exact likelihood and bound of the test images."""

    name = "baseline"
    record = Baseline
    uses_network = False

    def key(self, run: Run) -> str:
        """Return the digest of the data, the images that are scored, and the chain."""
        diffusion = run.spec.diffusion
        chain = (diffusion.timesteps, diffusion.schedule, diffusion.beta_start, diffusion.beta_end)
        own = (run.weights,) if diffusion.schedule == "table" else ()  # the digest covers the table
        positions = content_digest([TEST_BOUND.positions(run)])
        return digest(
            run.train_images.digest, run.test_images.digest, positions, *chain, *own, _variance(run)
        )

    def compute(self, run: Run, work: Work) -> Record | None:
        """Fit the Gaussian and evaluate it in closed form, on the main process."""
        if not run.runtime.main:
            return None
        n = len(run.train_images)
        positions = TEST_BOUND.positions(run)
        gaussian = Gaussian.fit(_batches(run.train_images, np.arange(n)))
        schedule = run.schedule().to("cpu")
        variance = schedule.fixed_variance(_variance(run))
        nll = []
        total = []
        for x_0 in _batches(run.test_images, positions):
            terms = gaussian.expected_terms(schedule, variance, x_0)
            nll.append(gaussian.dequantised_nll(x_0).numpy())
            total.append((terms.terms.sum(1) + terms.prior).numpy())
        return Baseline(
            image_id=run.test_images.ids[positions],
            nll=np.concatenate(nll),
            bound=np.concatenate(total),
            split="test",
            variance=_variance(run),
            dimensions=int(np.prod(run.shape)),
            n_train=n,
        )


class SimpleCodesStage(Stage):
    """What the test images cost without a trained model: histograms and the image coders of Pillow."""

    name = "simple-codes"
    record = SimpleCodes
    uses_network = False

    def key(self, run: Run) -> str:
        """Return the digest of the data, the images that are scored, and the coders."""
        positions = content_digest([TEST_BOUND.positions(run)])
        coders = [(coder.name, dict(coder.options)) for coder in CODERS]
        return digest("simple codes", run.train_images.digest, run.test_images.digest, positions, coders)

    def obstacle(self, run: Run) -> str:
        """Return why the images cannot be held in memory at once."""
        elements = (len(run.train_images) + len(run.test_images)) * int(np.prod(run.shape))
        fits = elements <= MOST_CODED_ELEMENTS
        return "" if fits else f"the images have {elements:,} elements, more than {MOST_CODED_ELEMENTS:,}"

    def compute(self, run: Run, work: Work) -> Record | None:
        """Fit the histograms and code the test images, on the main process."""
        if not run.runtime.main:
            return None
        train = run.train_images.take(np.arange(len(run.train_images)))
        positions = TEST_BOUND.positions(run)
        scored = run.test_images.take(positions)
        bits = histogram_bits(train, scored)
        sheets = code_images(run.test_images.take(np.argsort(run.test_images.ids)))
        error = scored - train.mean(axis=0, dtype=np.float64)
        return SimpleCodes(
            image_id=run.test_images.ids[positions],
            uniform=bits.uniform,
            histogram=bits.histogram,
            pixel_histograms=bits.pixel_histograms,
            coded_bytes=np.array([np.nan if sheet.reason else sheet.size_bytes for sheet in sheets], float),
            coders=", ".join(sheet.coder for sheet in sheets),
            coder_notes="; ".join(sheet.reason for sheet in sheets if sheet.reason),
            coded_dimensions=sheets[0].dimensions,
            n_coded=sheets[0].n_images,
            levels=bits.levels,
            mean_image_rmse=float(np.sqrt(np.mean(error**2))),
            split="test",
            n_train=len(train),
        )


def _variance(run: Run) -> Literal["fixed-large", "fixed-small"]:
    name = run.spec.diffusion.variance
    return name if name == "fixed-small" else "fixed-large"


def _batches(images: ImageSet, positions: Array) -> Iterator[Tensor]:
    """Yield images in [-1, 1] in batches."""
    for batch in np.array_split(positions, -(-len(positions) // BATCH_SIZE)):
        yield to_model_range(torch.from_numpy(images.take(batch)))
