"""The two Gaussian models of `validate`: their images, what is measured of them, and their exact values.

The exact denoiser of a Gaussian (see `ddpm_eval.model.gaussian`) takes the place of a trained network. The
bound and the samples go through a results file and are read back from it, as those of a run.

Conventions: what is measured takes 8-bit images, and the closed forms take the same images in [-1, 1],
float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddpm_eval.data import datasets
from ddpm_eval.data.image_set import ImageSet, from_array
from ddpm_eval.data.pixels import to_model_range, to_pixels
from ddpm_eval.metrics import bound
from ddpm_eval.metrics.bound import FULL, Estimator, evaluate_bound
from ddpm_eval.metrics.drawing import draw_samples
from ddpm_eval.metrics.measured_model import Model
from ddpm_eval.model.diffusion import Schedule, make_schedule
from ddpm_eval.model.gaussian import ExpectedTerms, Gaussian
from ddpm_eval.model.respacing import evenly_spaced
from ddpm_eval.model.samplers import make_sampler
from ddpm_eval.protocol import PROTOCOLS, Protocol
from ddpm_eval.results.bound_terms import FullBoundTerms, StratifiedBoundTerms, bound_name
from ddpm_eval.results.fields import Array
from ddpm_eval.results.records import Samples
from ddpm_eval.results.store import Result, Store
from ddpm_eval.spec import Method, RunSpec
from ddpm_eval.stages.bound_stage import scored_positions
from ddpm_eval.stages.run import SAMPLING
from experiments.paper.presets import preset

EXACT = PROTOCOLS["exact"]
N_TRAIN = 100
"""Training images of the digits whose bound is evaluated."""
N_GAUSSIAN = 256
"""Images in each split of the narrow Gaussian's data."""
STRATIFIED = Estimator("stratified", evaluations_per_image=10)
BATCH_SIZE = 256
KEY = "gaussian"
"""The key of all results: each model has a results file of its own."""


@dataclass(frozen=True)
class GaussianModel:
    """A Gaussian's exact denoiser in the place of a trained network, and images to measure it on.

    Attributes:
        gaussian: the law that the denoiser is exact for.
        spec: the run whose noise schedule, variance and seed are used.
        train_images: 8-bit images from which the optimal variance is estimated.
        test_images: 8-bit images on which the bound is measured.
        store: the results file.
    """

    gaussian: Gaussian
    spec: RunSpec
    train_images: ImageSet
    test_images: ImageSet
    store: Store

    @cached_property
    def schedule(self) -> Schedule:
        """The noise schedule of all steps."""
        return make_schedule(self.spec.diffusion)

    def chain(self, num_steps: int) -> Schedule:
        """Return the noise schedule of a chain of so many evenly spaced steps."""
        return self.schedule.respaced(evenly_spaced(self.schedule.timesteps, num_steps))

    @cached_property
    def model(self) -> Model:
        """The exact denoiser as the model that is measured."""
        diffusion = self.spec.diffusion
        network = self.gaussian.network(self.schedule, diffusion.prediction)
        return Model(network, self.schedule, diffusion.prediction, diffusion.variance_name)

    def images(self, split: str) -> ImageSet:
        """Return the images of a split."""
        return self.test_images if split == "test" else self.train_images

    # Measured

    def full_bounds(self, protocols: Sequence[Protocol], split: str = "test") -> list[FullBoundTerms]:
        """Return the measured bound of all T steps; protocols that are given together share evaluations."""
        self._measure(protocols, split, FULL)
        return [self.store.get(bound_name(split, p), FullBoundTerms, KEY) for p in protocols]

    def stratified_bound(self, protocol: Protocol) -> StratifiedBoundTerms:
        """Return the measured bound of the test images, a few steps of each."""
        self._measure([protocol], "test", STRATIFIED)
        return self.store.get(bound_name("test", protocol, STRATIFIED.name), StratifiedBoundTerms, KEY)

    def optimal_variance(self) -> Array:
        """Return the optimal variance without clipping from the training images' errors, indexed 0..T."""
        (terms,) = self.full_bounds([EXACT], "train")
        return bound.optimal_variance(terms, self.schedule)

    def samples(self, n: int, num_steps: int, method: Method) -> Array:
        """Return n samples of a chain of so many steps, uint8 ``[sample, channel, row, column]``."""
        chain = self.schedule if num_steps == self.schedule.timesteps else self.chain(num_steps)
        process = replace(self.model, schedule=chain).under(SAMPLING).process
        sampler = make_sampler(process, self.spec.seed, method)
        shape = self.test_images.channels, self.test_images.side, self.test_images.side
        drawn = draw_samples(sampler, shape, range(n), batch_size=BATCH_SIZE)
        assert drawn is not None  # a single process is the main one
        record = Samples(**drawn, method=method, num_steps=num_steps, seed=self.spec.seed)
        name = f"samples-{method}-{num_steps}"
        self.store.put(name, record, key=KEY, provenance={})
        return self.store.get(name, Samples, KEY).images

    def _measure(self, protocols: Sequence[Protocol], split: str, estimator: Estimator) -> None:
        """Measure and store what is missing."""
        names = {protocol: bound_name(split, protocol, estimator.name) for protocol in protocols}
        missing = [protocol for protocol in protocols if not self.store.has(names[protocol], KEY)]
        if not missing:
            return
        images = self.images(split)
        measured = evaluate_bound(
            self._model_with_optimal_variance(missing),
            images,
            missing,
            positions=scored_positions(images, N_TRAIN if split == "train" else None),
            estimator=estimator,
            seed=self.spec.seed,
            batch_size=BATCH_SIZE,
        )
        results = [Result(names[p], terms, KEY) for p, terms in zip(missing, measured, strict=True)]
        self.store.put_all(results, provenance={})

    def _model_with_optimal_variance(self, protocols: Sequence[Protocol]) -> Model:
        if all(protocol.variance != "optimal" for protocol in protocols):
            return self.model
        return replace(self.model, optimal_variance={False: self.optimal_variance()})

    # Exact

    def variance(self, protocol: Protocol) -> Tensor:
        """Return the protocol's table of sigma_t^2, indexed 0..T."""
        if protocol.variance == "optimal":
            return torch.from_numpy(self.optimal_variance())
        return self.schedule.fixed_variance(self.model.variance_name(protocol))  # type: ignore[arg-type]

    def expected_terms(self, variance: Tensor, ids: Array, split: str = "test") -> ExpectedTerms:
        """Return the exact expectations for the images with these ids, nats per image."""
        images = self.images(split)
        x_0 = in_model_range(images)[np.isin(images.ids, ids)]
        return self.gaussian.expected_terms(self.schedule, variance, x_0)

    def bits_per_dim(self, nats: Tensor) -> Array:
        """Return nats per image as bits/dim."""
        return nats.numpy() * self.bits_per_nat

    @property
    def bits_per_nat(self) -> float:
        """What turns nats per image into bits/dim."""
        return 1 / (self.gaussian.dimensions * math.log(2))

    def exact_values(self, expected: ExpectedTerms) -> dict[str, Array]:
        """Return each image's exact rate, distortion, prior and total, bits/dim ``[image]``."""
        terms = self.bits_per_dim(expected.terms)
        prior = self.bits_per_dim(expected.prior)
        rate = terms[:, 1:].sum(1)
        distortion = terms[:, 0]
        return {"rate": rate, "distortion": distortion, "prior": prior, "total": rate + distortion + prior}


@dataclass(frozen=True)
class GaussianModels:
    """Both models, each made when it is first needed, with its results file in a folder."""

    folder: Path

    @cached_property
    def digits(self) -> GaussianModel:
        """The Gaussian that is fitted to the digits' training images, on the digits."""
        spec = preset("digits")
        train_images = datasets.load(spec.data, "train")
        test_images = datasets.load(spec.data, "test")
        gaussian = Gaussian.fit([in_model_range(train_images)])
        return GaussianModel(gaussian, spec, train_images, test_images, Store(self.folder / "digits.h5"))

    @cached_property
    def narrow(self) -> GaussianModel:
        """The narrow Gaussian, on images that are drawn from it and rounded to 8 bits."""
        spec = preset("digits")
        gaussian = narrow_gaussian()
        images = to_pixels(gaussian.draw(spec.seed, torch.arange(2 * N_GAUSSIAN))).numpy()
        train_images = from_array(images[:N_GAUSSIAN], "gaussian", "train")
        test_images = from_array(images[N_GAUSSIAN:], "gaussian", "test")
        return GaussianModel(gaussian, spec, train_images, test_images, Store(self.folder / "narrow.h5"))


def narrow_gaussian() -> Gaussian:
    """Return a correlated Gaussian over 3x4x4 images whose estimates of x_0 never reach [-1, 1].

    Its means are within +-0.3, its standard deviations from 0.01 to 0.18 (1 to 23 levels). The narrowest
    direction is about as wide as the decoder, so that what a sampler adds or forgets at its last steps is
    seen.
    """
    generator = torch.Generator().manual_seed(0)
    mean = 0.6 * torch.rand(3, 4, 4, generator=generator, dtype=torch.float64) - 0.3
    basis, _ = torch.linalg.qr(torch.randn(48, 48, generator=generator, dtype=torch.float64))
    return Gaussian(mean, torch.logspace(-4, -1.5, 48, dtype=torch.float64), basis)


def in_model_range(images: ImageSet) -> Tensor:
    """Return all images of a set in [-1, 1], float64 ``[n, channels, side, side]``."""
    return to_model_range(torch.from_numpy(images.array)).double()
