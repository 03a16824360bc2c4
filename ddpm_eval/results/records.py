"""What stages hand to each other and what the store holds: frozen dataclasses of numpy arrays.

Each array field states its dimensions, unit and meaning in its metadata; `check` enforces that arrays which
share a dimension agree on its length. Scalars and text are plain fields. Dimension names: ``image`` and
``sample`` count images, ``t`` the steps of a chain (index 0 is t = 1), ``update`` parameter updates.
"""

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

import numpy.typing as npt

from ddpm_eval.protocol import Protocol
from ddpm_eval.spec import Method

Array = npt.NDArray[Any]
C = TypeVar("C")


def array(dims: str, unit: str, meaning: str) -> Any:  # noqa: ANN401 - a dataclass field
    """Declare an array field: space-separated dimension names, its unit and a sentence."""
    return field(metadata={"dims": tuple(dims.split()), "unit": unit, "meaning": meaning})


@dataclass_transform(frozen_default=True, field_specifiers=(array,))
def record(cls: type[C]) -> type[C]:
    """Make a class a record: a frozen dataclass whose array fields are declared with `array`."""
    return dataclass(frozen=True)(cls)


@record
class Record:
    """Base of all records."""

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise ValueError if an array's rank or a shared dimension's length is wrong."""
        lengths: dict[str, int] = {}
        for f in array_fields(type(self)):
            value, dims = getattr(self, f.name), f.metadata["dims"]
            if value.ndim != len(dims):
                raise ValueError(f"{type(self).__name__}.{f.name} has {value.ndim} dimensions, not {dims}")
            for name, length in zip(dims, value.shape, strict=True):
                if lengths.setdefault(name, length) != length:
                    raise ValueError(
                        f"{type(self).__name__}.{f.name} has {length} along {name!r}, other fields {lengths[name]}"
                    )


def array_fields(record_type: type[Record]) -> list[Any]:
    """Return the dataclass fields of a record type that hold arrays."""
    return [f for f in fields(record_type) if "dims" in f.metadata]


def scalar_fields(record_type: type[Record]) -> list[Any]:
    """Return the dataclass fields of a record type that hold scalars or text."""
    return [f for f in fields(record_type) if "dims" not in f.metadata]


@record
class TrainingLog(Record):
    """How training went. ``status`` is ``ok``, ``stopped``, ``diverged`` or ``imported``; ``reason`` says
    when, how, whence.
    """

    loss: Array = array(
        "update", "nats or squared error, as the objective", "training loss of each update's batch"
    )
    gradient_norm: Array = array("update", "1", "global gradient norm before clipping")
    status: str
    reason: str
    steps: int
    images: int
    seconds: float
    parameters: int

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
    out_of_range: Array = array(
        "sample", "1", "share of a sample's elements outside [-1, 1] before they were clipped"
    )
    seconds: Array = array("sample", "s", "time that it took to draw: its share of its batch's")
    method: str
    sampling_steps: int
    seed: int


@record
class ReferenceImages(Record):
    """A few real images, for figures."""

    images: Array = array("image channel row column", "8-bit level", "images of the data set")
    name: str
    split: str


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
    t: int


@record
class FullBoundTerms(Record):
    """The variational bound of each image at each step: everything about likelihood is derived from these.

    Column j belongs to t = j + 1: column 0 of ``terms`` is the decoder's negative log likelihood, the others
    are KL divergences. ``protocol`` is the JSON of the `Protocol`; ``inexact_left_out`` counts images
    excluded as not bit-exact.
    """

    image_id: Array = array("image", "id", "stable ids within the split")
    terms: Array = array("image t", "nats per image", "L_{t-1} of Eq. 5")
    x_0_squared_error: Array = array(
        "image t", "squared units of [-1, 1], mean over elements", "error of x0_hat"
    )
    prior: Array = array("image", "nats per image", "L_T of Eq. 5, in closed form")
    split: str
    protocol: str
    dimensions: int
    inexact_left_out: int


@record
class StratifiedBoundTerms(Record):
    """A few importance-sampled terms per image; sums weighted by 1 / ``inclusion`` are unbiased for the full
    ones.

    Entry (i, j) is image i at time ``t[i, j]``; entries with ``t = 0`` are padding. ``inclusion[j]`` is the
    probability that t = j + 1 is evaluated for an image.
    """

    image_id: Array = array("image", "id", "stable ids within the split")
    t: Array = array("image evaluation", "step of the chain", "evaluated times, 0 where there is none")
    terms: Array = array("image evaluation", "nats per image", "L_{t-1} of Eq. 5")
    x_0_squared_error: Array = array(
        "image evaluation", "squared units of [-1, 1], mean over elements", "error of x0_hat"
    )
    prior: Array = array("image", "nats per image", "L_T of Eq. 5, in closed form")
    inclusion: Array = array("t", "1", "probability that an image is evaluated at this step")
    offset: Array = array(
        "image", "1", "where in [0, 1) the image's systematic sample begins; stratified over the images"
    )
    split: str
    protocol: str
    dimensions: int
    inexact_left_out: int
    network_evaluations: int


@record
class BoundHistory(Record):
    """The bound of the same test images at several moments of a training, estimated as cheaply as a look in
    between asks for.

    Each value is a stratified estimate with the averaged weights of that moment, unbiased for the image and
    noise; NaN where the network's output was not finite. ``protocol`` is the JSON of the `Protocol`.
    """

    update: Array = array("moment", "updates", "parameter updates done, increasing")
    image_id: Array = array("image", "id", "stable ids within the split")
    offset: Array = array("image", "1", "as in `StratifiedBoundTerms`, the same at every moment")
    total: Array = array("moment image", "bits/dim", "the bound")
    rate: Array = array("moment image", "bits/dim", "terms of t > 1")
    distortion: Array = array("moment image", "bits/dim", "term of t = 1")
    split: str
    protocol: str
    evaluations_per_image: int
    inexact_left_out: int


@record
class FeatureStatistics(Record):
    """Mean and covariance of an extractor's features over a set of images, accumulated in float64.

    With ``data_digest``, ``split``, ``features``, ``weights_digest`` and ``resize`` it is identified
    completely.
    """

    mean: Array = array("feature", "feature units", "mean")
    covariance: Array = array("feature feature", "squared feature units", "unbiased covariance")
    n_images: int
    data_digest: str
    split: str
    features: str
    weights_digest: str
    resize: str


@record
class Baseline(Record):
    """A Gaussian fitted to the training images as a model of a split: what any network should beat. No noise
    is drawn.
    """

    image_id: Array = array("image", "id", "stable ids within the split")
    nll: Array = array(
        "image", "nats per image", "negative log likelihood, images spread over their 8-bit bins"
    )
    bound: Array = array(
        "image", "nats per image", "expected bound of its exact denoiser: unclipped, exact decoder"
    )
    split: str
    variance: str
    dimensions: int
    n_train: int


@record
class Quality(Record):
    """Sample quality under one protocol, with 95% intervals (``_low``, ``_high``); NaN where a number was not
    asked for.

    ``score`` and ``frechet_distance`` are the Inception score and FID only where ``features`` is
    inception-v3-compat: `distance_name` and `score_name` say what to call them. Distances are at
    ``n_samples`` images and biased upwards by it, ``frechet_infinite`` is extrapolated to infinitely many.
    ``reference`` is the split that distances are taken to, and ``reference_distance`` how far the ``n_test``
    test images are from it: the yardstick. ``caption`` says in one phrase how the numbers were made,
    ``caveat`` what is wrong with them (empty if nothing).
    """

    class_counts: Array = array("class", "samples", "samples per class that the extractor assigns")
    score_splits: Array = array("split", "1", "score of each split, whose mean is ``score``")
    frechet_distance: float
    frechet_distance_low: float
    frechet_distance_high: float
    frechet_infinite: float
    frechet_infinite_low: float
    frechet_infinite_high: float
    score: float
    score_std: float
    score_low: float
    score_high: float
    kid: float
    kid_std: float
    kid_low: float
    kid_high: float
    precision: float
    precision_low: float
    precision_high: float
    recall: float
    recall_low: float
    recall_high: float
    mean_confidence: float
    mean_confidence_low: float
    mean_confidence_high: float
    n_samples: int
    n_reference: int
    reference: str
    reference_distance: float
    reference_distance_low: float
    reference_distance_high: float
    n_test: int
    features: str
    weights_digest: str
    classifier_test_accuracy: float
    protocol: str
    caption: str
    caveat: str

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
    def kid_name(self) -> str:
        """What to call ``kid``."""
        return "KID" if self.is_inception else f"kernel distance ({self._features_name})"

    @property
    def _features_name(self) -> str:
        return self.features.replace("-classifier", " classifier")


@record
class QualityCurve(Record):
    """Sample quality along one axis of sampling: over the reverse process (Fig. 10), or over numbers of
    steps.

    ``axis`` is ``t`` (positions are times, the images x0_hat there) or ``steps`` (positions are numbers of
    steps, the images the samples of such chains). All positions have the same ``n_samples`` samples' ids.
    Numbers are as in `Quality`.
    """

    position: Array = array("position", "step", "time t, or number of steps")
    seconds_per_image: Array = array("position", "s", "time to draw an image; NaN where the axis is time")
    frechet_distance: Array = array(
        "position", "squared feature units", "Frechet distance to the training images"
    )
    frechet_distance_low: Array = array("position", "squared feature units", "lower end of its 95% interval")
    frechet_distance_high: Array = array("position", "squared feature units", "upper end of its 95% interval")
    score: Array = array("position", "1", "score")
    score_low: Array = array("position", "1", "lower end of its 95% interval")
    score_high: Array = array("position", "1", "upper end of its 95% interval")
    axis: str
    method: str
    n_samples: int
    features: str
    weights_digest: str
    caption: str


@record
class Neighbours(Record):
    """The training images nearest to samples, in pixels and in an extractor's features (Fig. 15), nearest
    first.

    A memorisation statistic is the probability that a sample is nearer to its nearest training image than a
    held-out image to its own (ties count half): 0.5 if samples are as new as held-out images, 1 if all are
    copies; with 95% interval.
    """

    pixel_id: Array = array("sample neighbour", "id", "training images nearest in pixels")
    pixel_distance: Array = array("sample neighbour", "8-bit levels", "root mean squared difference to them")
    feature_id: Array = array("sample neighbour", "id", "training images nearest in features")
    feature_distance: Array = array("sample neighbour", "feature units", "Euclidean distance to them")
    held_out_pixel_distance: Array = array(
        "image", "8-bit levels", "of test images to the nearest training image"
    )
    held_out_feature_distance: Array = array(
        "image", "feature units", "of test images to the nearest training image"
    )
    shown: Array = array("shown channel row column", "8-bit level", "the first samples")
    shown_pixel: Array = array(
        "shown neighbour channel row column", "8-bit level", "their neighbours in pixels"
    )
    shown_feature: Array = array(
        "shown neighbour channel row column", "8-bit level", "their neighbours in features"
    )
    pixel_memorisation: float
    pixel_memorisation_low: float
    pixel_memorisation_high: float
    feature_memorisation: float
    feature_memorisation_low: float
    feature_memorisation_high: float
    n_samples: int
    n_train: int
    n_held_out: int
    mirrored: bool
    features: str
    weights_digest: str


QUALITY_OVER_TIME = "quality-time"
QUALITY_OVER_STEPS: dict[Method, str] = {"ancestral": "quality-steps-ancestral", "ddim": "quality-steps-ddim"}
"""Names under which a run's quality curves are stored."""
BOUND_HISTORY = "bound-history"
"""The name under which a `BoundHistory` is stored."""


def bound_name(split: str, protocol: Protocol, few: bool = False, chain: int | None = None) -> str:
    """Return the name under which a bound is stored, such as ``bound/test/paper``."""
    kind = ("bound-stratified" if few else "bound") + (f"-{chain}-steps" if chain is not None else "")
    return f"{kind}/{split}/{protocol.name}"
