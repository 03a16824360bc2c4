"""What stages hand to each other and what the store holds.

Dimension names: ``image`` and ``sample`` count images, ``t`` the steps of a chain (index 0 is t = 1), ``update``
parameter updates, ``interval`` the value and the lower and upper bound of an estimate.
"""

import math
from typing import ClassVar

import numpy as np

from ddpm_eval.protocol import Protocol
from ddpm_eval.results.fields import (
    Array,
    Estimate,
    Record,
    array,
    bound_protocol,
    estimate,
    number,
    record,
    text,
)
from ddpm_eval.spec import Method


@record
class TrainingLog(Record):
    """How training went."""

    loss: Array = array("update", "nats or squared error, as the objective", "loss of each update's batch")
    gradient_norm: Array = array("update", "1", "global gradient norm before clipping")
    status: str = text("ok, stopped, diverged or imported")
    reason: str = text("when and how training stopped or diverged, or where the weights come from")
    steps: int = number("updates", "parameter updates done")
    images: int = number("images", "training images seen, repetitions counted")
    seconds: float = number("s", "wall time of training")
    parameters: int = number("1", "parameters of the network")

    @property
    def diverged(self) -> bool:
        """Whether the run stopped because a loss or a parameter was not finite."""
        return self.status == "diverged"

    @property
    def imported(self) -> bool:
        """Whether the weights are another project's, of whose training nothing is known."""
        return self.status == "imported"

    @property
    def over(self) -> bool:
        """Whether training can never go on."""
        return self.diverged or self.imported


@record
class ScheduleTables(Record):
    """The chain's tables; index 0 is t = 1."""

    beta: Array = array("t", "1", "variance added by step t")
    alpha_bar: Array = array("t", "1", "product of 1 - beta up to t")
    beta_tilde: Array = array("t", "1", "variance of q(x_{t-1} | x_t, x_0), Eq. 7")
    fixed_large: Array = array("t", "1", "sigma_t^2 of variance fixed-large")
    fixed_small: Array = array("t", "1", "sigma_t^2 of variance fixed-small")


@record
class Samples(Record):
    """Images drawn from the model; sample k is a function of (seed, k)."""

    images: Array = array("sample channel row column", "8-bit level", "samples, rounded to 8 bits")
    out_of_range: Array = array("sample", "1", "share of elements outside [-1, 1] before they were clipped")
    seconds: Array = array("sample", "s", "time that it took to draw: its share of its batch's")
    method: str = text("ancestral or ddim")
    num_steps: int = number("steps", "network evaluations per sample")
    seed: int = number("1", "seed of all noise")


@record
class ReferenceImages(Record):
    """A few real images, for figures."""

    images: Array = array("image channel row column", "8-bit level", "images of the data set")
    name: str = text("name of the data set")
    split: str = text("train or test")


@record
class Trajectory(Record):
    """The estimate x0_hat over the reverse process (Figs. 6 and 10), for the first samples."""

    t: Array = array("step", "step of the chain", "times at which the estimate was taken, decreasing")
    x_0_hat: Array = array(
        "step sample channel row column", "8-bit level", "estimates of x_0, rounded to 8 bits"
    )


@record
class Interpolations(Record):
    """Images between pairs of test images (Fig. 8): encoded with q to time ``t``, mixed, decoded with p."""

    source: Array = array("pair channel row column", "8-bit level", "images at weight 0")
    target: Array = array("pair channel row column", "8-bit level", "images at weight 1")
    weight: Array = array("weight", "1", "share of the target in the mixture")
    images: Array = array(
        "weight pair channel row column", "8-bit level", "decoded mixtures, rounded to 8 bits"
    )
    t: int = number("step of the chain", "time to which the images were diffused")


@record
class BoundTerms(Record):
    """The variational bound of images, term by term: everything about likelihood is derived from these.

    The term at t = 1 is the decoder's negative log likelihood, the others are KL divergences. `FullBoundTerms`
    holds every term of every image, `StratifiedBoundTerms` a few importance-sampled ones.
    """

    estimator: ClassVar[str]

    image_id: Array = array("image", "id", "stable ids within the split")
    prior: Array = array("image", "nats per image", "L_T of Eq. 5, in closed form")
    split: str = text("train or test")
    protocol: Protocol = bound_protocol()
    variance: str = text("reverse variance that the protocol stands for with this model")
    dimensions: int = number("1", "elements of an image")
    inexact_left_out: int = number("images", "images excluded because they are not bit-exact")
    network_evaluations: int = number("1", "network evaluations behind all terms")

    @property
    def num_steps(self) -> int:
        """T, the number of steps of the chain that was measured."""
        raise NotImplementedError

    @property
    def stratified_by(self) -> Array | None:
        """The design variable of which each of n equal strata holds one image; None for a simple sample."""
        return None

    @property
    def evaluated_per_step(self) -> Array:
        """The number of images that were evaluated at each step, ``[t]``."""
        raise NotImplementedError

    def entries(self, values: Array) -> tuple[Array, Array, Array]:
        """Return the image index, the column t - 1 and the value of each evaluation, ``[entry]``, float64.

        Args:
            values: shaped like the terms.
        """
        raise NotImplementedError

    def term_values(self) -> Array:
        """Return bits/dim of each image's terms, float64 ``[image, t]``, whose mean over images is unbiased.

        Raises:
            ValueError: if a term or the prior is not finite.
        """
        raise NotImplementedError

    def values(self) -> dict[str, Array]:
        """Return each image's rate (terms t > 1), distortion (t = 1), prior and total, bits/dim ``[image]``."""
        terms = self.term_values()
        prior = self.prior.astype(np.float64) * self.bits_per_nat
        rate = terms[:, 1:].sum(1)
        distortion = terms[:, 0]
        return {"rate": rate, "distortion": distortion, "prior": prior, "total": rate + distortion + prior}

    @property
    def bits_per_nat(self) -> float:
        """What turns nats per image into bits/dim."""
        return 1 / (self.dimensions * math.log(2))

    def _check_finite(self, bad: Array) -> None:
        """Raise ValueError if there are ``bad`` terms (image index and t, ``[entry, 2]``) or priors."""
        if len(bad):
            index, t = bad[0]
            raise ValueError(
                f"{len(bad)} measured terms are not finite, the first for image {self.image_id[index]} at "
                f"t = {t} (the model's output overflowed: did its training diverge?)"
            )
        if not np.isfinite(self.prior).all():
            raise ValueError("the prior term of an image is not finite (is alpha_bar at T equal to 1?)")


@record
class FullBoundTerms(BoundTerms):
    """Every term of every image. Column j belongs to t = j + 1."""

    estimator: ClassVar[str] = "full"

    terms: Array = array("image t", "nats per image", "L_{t-1} of Eq. 5")
    x_0_squared_error: Array = array(
        "image t", "squared units of [-1, 1], mean over elements", "error of x0_hat"
    )

    @property
    def num_steps(self) -> int:
        """T, the number of steps of the chain that was measured."""
        return int(self.terms.shape[1])

    @property
    def evaluated_per_step(self) -> Array:
        """The number of images that were evaluated at each step, ``[t]``."""
        return np.full(self.num_steps, len(self.image_id))

    def entries(self, values: Array) -> tuple[Array, Array, Array]:
        """Return the image index, the column t - 1 and the value of each evaluation, ``[entry]``."""
        image, column = np.indices(values.shape).reshape(2, -1)
        return image, column, values.reshape(-1).astype(np.float64)

    def term_values(self) -> Array:
        """Return bits/dim of each image's terms, float64 ``[image, t]``."""
        finite = np.isfinite(self.terms) & np.isfinite(self.x_0_squared_error)
        self._check_finite(np.argwhere(~finite) + [0, 1])
        values: Array = self.terms.astype(np.float64) * self.bits_per_nat
        return values


@record
class StratifiedBoundTerms(BoundTerms):
    """A few importance-sampled terms per image; sums weighted by 1 / ``inclusion`` are unbiased for the full ones.

    Entry (i, j) is image i at time ``t[i, j]``; entries with ``t = 0`` are padding. ``inclusion[j]`` is the
    probability that t = j + 1 is evaluated for an image.
    """

    estimator: ClassVar[str] = "stratified"

    t: Array = array("image evaluation", "step of the chain", "evaluated times, 0 where there is none")
    terms: Array = array("image evaluation", "nats per image", "L_{t-1} of Eq. 5")
    x_0_squared_error: Array = array(
        "image evaluation", "squared units of [-1, 1], mean over elements", "error of x0_hat"
    )
    inclusion: Array = array("t", "1", "probability that an image is evaluated at this step")
    offset: Array = array("image", "1", "where in [0, 1) the image's systematic sample begins")

    @property
    def num_steps(self) -> int:
        """T, the number of steps of the chain that was measured."""
        return len(self.inclusion)

    @property
    def stratified_by(self) -> Array | None:
        """The offsets, stratified over the images; None where every step of every image was evaluated."""
        return None if (self.inclusion == 1).all() else self.offset

    @property
    def evaluated_per_step(self) -> Array:
        """The number of images that were evaluated at each step, ``[t]``."""
        return np.bincount(self.entries(self.terms)[1], minlength=self.num_steps)

    def entries(self, values: Array) -> tuple[Array, Array, Array]:
        """Return the image index, the column t - 1 and the value of each evaluation, without the padding."""
        image, _ = used = np.nonzero(self.t > 0)
        return image, self.t[used].astype(np.int64) - 1, values[used].astype(np.float64)

    def term_values(self) -> Array:
        """Return bits/dim of each image's terms, float64 ``[image, t]``, zero where nothing was evaluated.

        Evaluated terms are weighted by 1 / inclusion (Horvitz and Thompson, 1952).
        """
        image, column, terms = self.entries(self.terms)
        _, _, errors = self.entries(self.x_0_squared_error)
        bad = ~(np.isfinite(terms) & np.isfinite(errors))
        self._check_finite(np.stack([image[bad], column[bad] + 1], axis=1))
        values = np.zeros((len(self.image_id), self.num_steps))
        np.add.at(values, (image, column), terms * self.bits_per_nat / self.inclusion[column])
        return values


@record
class BoundHistory(Record):
    """The bound of the same test images at several moments of a training.

    Each value is a stratified estimate with the averaged weights of that moment, unbiased for the image and
    noise; it is NaN where the network's output was not finite.
    """

    update: Array = array("moment", "updates", "parameter updates done, increasing")
    image_id: Array = array("image", "id", "stable ids within the split")
    offset: Array = array("image", "1", "as in `StratifiedBoundTerms`, the same at every moment")
    total: Array = array("moment image", "bits/dim", "the bound")
    rate: Array = array("moment image", "bits/dim", "terms of t > 1")
    distortion: Array = array("moment image", "bits/dim", "term of t = 1")
    split: str = text("train or test")
    protocol: Protocol = bound_protocol()
    evaluations_per_image: int = number("1", "network evaluations per image and moment")
    inexact_left_out: int = number("images", "images excluded because they are not bit-exact")


@record
class FeatureStatistics(Record):
    """Mean and covariance of an extractor's features over a set of images, accumulated in float64.

    The texts and digests identify it completely.
    """

    mean: Array = array("feature", "feature units", "mean")
    covariance: Array = array("feature feature", "squared feature units", "unbiased covariance")
    n_images: int = number("images", "images behind the statistics")
    data_digest: str = text("digest of the images")
    split: str = text("train or test")
    features: str = text("name of the feature extractor")
    weights_digest: str = text("digest of the extractor's weights")
    resize: str = text("how images are resized before features are computed")


@record
class Baseline(Record):
    """A Gaussian fitted to the training images as a model of a split: what any network should beat."""

    image_id: Array = array("image", "id", "stable ids within the split")
    nll: Array = array(
        "image", "nats per image", "negative log likelihood, images spread over their 8-bit bins"
    )
    bound: Array = array("image", "nats per image", "expected bound of its exact denoiser, exact decoder")
    split: str = text("train or test")
    variance: str = text("reverse variance of the bound")
    dimensions: int = number("1", "elements of an image")
    n_train: int = number("images", "training images behind the fit")


SQUARED_FEATURES = "squared feature units"


@record
class Quality(Record):
    """Sample quality under one protocol; an estimate is NaN where it was not asked for.

    ``score`` and ``frechet_distance`` are the Inception score and FID only where ``features`` is
    inception-v3-compat: `distance_name` and `score_name` say what to call them.
    """

    class_counts: Array = array("class", "samples", "samples per class that the extractor assigns")
    score_splits: Array = array("split", "1", "score of each split, whose mean is ``score``")
    frechet_distance: Estimate = estimate(SQUARED_FEATURES, "distance at n_samples, biased upwards by it")
    frechet_infinite: Estimate = estimate(
        SQUARED_FEATURES, "distance extrapolated to infinitely many samples"
    )
    score: Estimate = estimate("1", "mean over splits of the exponentiated KL divergence of the classes")
    kid: Estimate = estimate("kernel units", "kernel distance")
    precision: Estimate = estimate("1", "share of samples within the reference's manifold")
    recall: Estimate = estimate("1", "share of reference images within the samples' manifold")
    mean_confidence: Estimate = estimate("1", "mean probability of the class that the extractor assigns")
    reference_distance: Estimate = estimate(SQUARED_FEATURES, "distance of the test images: the yardstick")
    score_std: float = number("1", "standard deviation of the score over splits")
    kid_std: float = number("kernel units", "standard deviation of the kernel distance over subsets")
    n_samples: int = number("samples", "samples that were measured")
    n_reference: int = number("images", "reference images")
    n_test: int = number("images", "test images behind reference_distance")
    reference: str = text("split that distances are taken to")
    features: str = text("name of the feature extractor")
    weights_digest: str = text("digest of the extractor's weights")
    classifier_test_accuracy: float = number("1", "share of test images that a classifier gets right")
    protocol: str = text("name of the quality protocol")
    caption: str = text("how the numbers were made, in one phrase")
    caveat: str = text("what is wrong with the numbers, empty if nothing")

    @property
    def is_inception(self) -> bool:
        """Whether the numbers are FID and Inception score."""
        return self.features == "inception-v3-compat"

    @property
    def distance_name(self) -> str:
        """What to call ``frechet_distance``, such as ``Frechet distance (digits classifier)``."""
        return "FID" if self.is_inception else f"Frechet distance ({self._features_name})"

    @property
    def score_name(self) -> str:
        """What to call ``score``, such as ``score (digits classifier)``."""
        return "Inception score" if self.is_inception else f"score ({self._features_name})"

    @property
    def _features_name(self) -> str:
        return self.features.replace("-classifier", " classifier")


@record
class QualityCurve(Record):
    """Sample quality along one axis of sampling: over the reverse process (Fig. 10), or over numbers of steps.

    All positions have the same samples' ids.
    """

    position: Array = array("position", "step", "time t, or number of steps")
    seconds_per_image: Array = array("position", "s", "time to draw an image; NaN where the axis is time")
    frechet_distance: Array = array("position interval", SQUARED_FEATURES, "distance to the training images")
    score: Array = array("position interval", "1", "score")
    axis: str = text("t (x0_hat at these times) or steps (samples of chains of so many steps)")
    method: str = text("ancestral or ddim")
    n_samples: int = number("samples", "samples at each position")
    features: str = text("name of the feature extractor")
    weights_digest: str = text("digest of the extractor's weights")
    caption: str = text("how the numbers were made, in one phrase")


@record
class Neighbours(Record):
    """The training images nearest to samples, in pixels and in an extractor's features (Fig. 15), nearest first.

    A memorisation statistic is the probability that a sample is nearer to its nearest training image than a
    held-out image to its own (ties count half): 0.5 if samples are as new as held-out images, 1 if all are
    copies.
    """

    pixel_id: Array = array("sample neighbour", "id", "training images nearest in pixels")
    pixel_distance: Array = array("sample neighbour", "8-bit levels", "root mean squared difference to them")
    feature_id: Array = array("sample neighbour", "id", "training images nearest in features")
    feature_distance: Array = array("sample neighbour", "feature units", "Euclidean distance to them")
    held_out_pixel_distance: Array = array(
        "image", "8-bit levels", "test images to the nearest training image"
    )
    held_out_feature_distance: Array = array(
        "image", "feature units", "test images to the nearest training image"
    )
    shown: Array = array("shown channel row column", "8-bit level", "the first samples")
    shown_pixel: Array = array(
        "shown neighbour channel row column", "8-bit level", "their neighbours in pixels"
    )
    shown_feature: Array = array(
        "shown neighbour channel row column", "8-bit level", "neighbours in features"
    )
    pixel_memorisation: Estimate = estimate("1", "memorisation statistic in pixels")
    feature_memorisation: Estimate = estimate("1", "memorisation statistic in features")
    n_samples: int = number("samples", "samples that were compared")
    n_train: int = number("images", "training images that were searched")
    n_held_out: int = number("images", "test images that were compared")
    mirrored: bool = text("whether mirror images were searched, too")
    features: str = text("name of the feature extractor")
    weights_digest: str = text("digest of the extractor's weights")


QUALITY_OVER_TIME = "quality-time"
QUALITY_OVER_STEPS: dict[Method, str] = {
    "ancestral": "quality-steps-ancestral",
    "ddim": "quality-steps-ddim",
}
"""Names under which a run's quality curves are stored."""
BOUND_HISTORY = "bound-history"
"""The name under which a `BoundHistory` is stored."""


def bound_name(split: str, protocol: Protocol, estimator: str = "full", num_steps: int | None = None) -> str:
    """Return the name under which a bound is stored, such as ``bound/full/test/paper``.

    Args:
        split: train or test.
        protocol: of the bound.
        estimator: full or stratified.
        num_steps: of a shorter chain; None for all steps.
    """
    chain = "" if num_steps is None else f"-{num_steps}-steps"
    return f"bound/{estimator}{chain}/{split}/{protocol.name}"
