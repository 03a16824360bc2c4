"""What stages hand to each other and what the store holds.

Dimension names: ``image`` and ``sample`` count images, ``t`` the steps of a chain (index 0 is t = 1),
``update`` parameter updates, ``interval`` the value and the lower and upper bound of an estimate.
"""

import numpy as np

from ddpm_eval.results.fields import (
    Array,
    Estimate,
    Record,
    array,
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
    status: str = text("ok, stopped, diverged, imported or averaged")
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
    def averaged(self) -> bool:
        """Whether only the averaged weights were kept of the training."""
        return self.status == "averaged"

    @property
    def over(self) -> bool:
        """Whether training can never go on."""
        return self.diverged or self.imported or self.averaged


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

    def not_finite(self, n: int | None = None) -> Array:
        """Return which of the first samples are not finite, of all where ``n`` is None.

        Their images are a uniform grey that stands for no value.
        """
        return np.flatnonzero(np.isnan(self.out_of_range[:n]))

    def finite_images(self, n: int | None = None) -> Array:
        """Return the images of the first samples, of all where ``n`` is None.

        Raises:
            ValueError: if the values of one of them were not finite, so that nothing can be measured.
        """
        broken = self.not_finite(n)
        if len(broken):
            raise ValueError(
                f"{len(broken)} samples are not finite, the first is sample {broken[0]}: nothing can be "
                "measured of them (the model diverged)"
            )
        return self.images[:n]


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
class SharedLatents(Record):
    """Samples that share x_t, the image of one chain at time t (Fig. 7).

    The chains are those of the first samples; sample j of a chain has the same noise from whatever time on.
    """

    t: Array = array("position", "step of the chain", "times at which x_t is shared, decreasing")
    x_t: Array = array(
        "position chain channel row column", "8-bit level", "shared images, clipped to [-1, 1] and rounded"
    )
    images: Array = array(
        "position chain sample channel row column", "8-bit level", "samples, rounded to 8 bits"
    )


@record
class Interpolations(Record):
    """Images between test images (Figs. 8 and 9): encoded with q to time ``t``, mixed, decoded with p."""

    source: Array = array("pair channel row column", "8-bit level", "images at weight 0")
    target: Array = array("pair channel row column", "8-bit level", "images at weight 1")
    weight: Array = array("weight", "1", "share of the target in the mixture")
    images: Array = array(
        "weight pair channel row column", "8-bit level", "decoded mixtures, rounded to 8 bits"
    )
    t: int = number("step of the chain", "time to which the images were diffused")


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


@record
class SimpleCodes(Record):
    """Codelengths of a split without a trained model: by histograms of training images, and by image coders.

    Coders take the whole split as one sheet; ``coded_bytes`` is NaN for one that is not there or not exact.
    """

    image_id: Array = array("image", "id", "stable ids within the split, of those that histograms score")
    uniform: Array = array("image", "bits/dim", "equal probabilities of the levels that occur in training")
    histogram: Array = array("image", "bits/dim", "one histogram of all training pixels")
    pixel_histograms: Array = array("image", "bits/dim", "a histogram for each pixel and channel")
    coded_bytes: Array = array("coder", "bytes", "size of the sheet's file")
    coders: str = text("names of the coders, separated by commas")
    coder_notes: str = text("why coders have no size, empty if all have one")
    coded_dimensions: int = number("1", "elements of all images on the sheet")
    n_coded: int = number("images", "images on the sheet")
    levels: int = number("levels", "8-bit levels that occur in training")
    mean_image_rmse: float = number("8-bit levels", "error of the mean training image as an estimate")
    split: str = text("train or test")
    n_train: int = number("images", "training images behind the histograms")


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
    classifier_test_accuracy: float = number(
        "1", "share of images kept from its training that a classifier gets right"
    )
    n_classifier_test: int = number(
        "images", "images behind classifier_test_accuracy; 0 if not recorded, or no classifier", earlier=0
    )
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
        if self.is_inception:
            return "FID"
        kind = "FD-DINOv2" if self.features.startswith("dinov2-") else "Frechet distance"
        return f"{kind} ({self._features_name})"

    @property
    def score_name(self) -> str:
        """What to call ``score``, such as ``score (digits classifier)``."""
        return "Inception score" if self.is_inception else f"score ({self._features_name})"

    def distance_of_test_images(self, curve: "QualityCurve") -> float | None:
        """Return the yardstick of a curve's distances, None if it is of other features."""
        return self.reference_distance.value if curve.weights_digest == self.weights_digest else None

    @property
    def kernel_name(self) -> str:
        """What to call ``kid``, such as ``kernel distance (digits classifier)``."""
        if self.is_inception:
            return "KID"
        kind = "CMMD-like kernel distance" if self.features.startswith("clip-") else "kernel distance"
        return f"{kind} ({self._features_name})"

    @property
    def _features_name(self) -> str:
        return self.features.replace("-classifier", " classifier")


@record
class Coverage(Record):
    """How samples spread over reference images, and over the classes that the data set's classifier assigns.

    There are no classes in the features of another network.
    """

    class_label: Array = array("class", "label", "the data set's label of each class")
    class_counts: Array = array("class", "samples", "samples that are assigned to the class")
    reference_counts: Array = array("class", "images", "reference images that are assigned to the class")
    density: Estimate = estimate("1", "mean number of reference balls around a sample over neighbours")
    coverage: Estimate = estimate("1", "share of reference images with a sample in their ball")
    neighbours: int = number("1", "which neighbour of a reference image its ball reaches to")
    n_samples: int = number("samples", "samples that were measured")
    n_reference: int = number("images", "reference images")
    reference: str = text("split that samples are compared with")
    features: str = text("name of the feature extractor")
    weights_digest: str = text("digest of the extractor's weights")


@record
class QualityCurve(Record):
    """Sample quality over the reverse process (Fig. 10), or over numbers of steps.

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
    """The training images nearest to samples, in pixels and in features (Fig. 15).

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
QUALITY_OF_OTHER_VARIANCE = "quality-other-variance"
QUALITY_OVER_STEPS: dict[Method, str] = {
    "ancestral": "quality-steps-ancestral",
    "ddim": "quality-steps-ddim",
}
"""Names under which a run's quality curves are stored."""
