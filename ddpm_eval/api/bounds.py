"""The bound of any model on any images, with intervals, and the paired difference of two models.

Bits/dim are nats per image divided by (dimensions x ln 2). Nothing is stored and nothing is cached.
"""

import warnings
from dataclasses import dataclass, replace

import pandas as pd

from ddpm_eval.api.network_model import Model
from ddpm_eval.api.progress_bars import shown
from ddpm_eval.data.image_set import ImageSet, from_array
from ddpm_eval.metrics import bound
from ddpm_eval.metrics.bound import Estimator, EstimatorName
from ddpm_eval.metrics.time_convention import check_ends, doubt_of_times, time_offset
from ddpm_eval.metrics.work import SerialWork
from ddpm_eval.protocol import PROTOCOLS, Protocol
from ddpm_eval.reporting.bound_comparisons import paired_table
from ddpm_eval.reporting.bound_tables import bound_estimates, halfwidth, split_table, terms_table
from ddpm_eval.reporting.rate_distortion_tables import rate_distortion_curve, table4
from ddpm_eval.reporting.tables import format_estimate
from ddpm_eval.results.bound_terms import BoundTerms
from ddpm_eval.results.fields import Array, Estimate
from ddpm_eval.runtime import Progress

BATCH_SIZE = 64


@dataclass(frozen=True, eq=False)
class Bound:
    """The variational bound of images under a model, term by term; `evaluate_bound` makes one.

    Example:
        >>> rate, distortion, prior, total = bound.split()["bits_per_dim"]
        >>> abs(rate + distortion + prior - total) < 1e-9
        True

    Attributes:
        terms: what was measured, in nats per image: the record from which all else is derived.
        data_digest: digest of the images.
        seed: of the noise.
    """

    terms: BoundTerms
    data_digest: str
    seed: int

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The means over images of rate, distortion, prior and total by name, in bits/dim with intervals."""
        return bound_estimates(self.terms)

    @property
    def total(self) -> Estimate:
        """The bound on the negative log likelihood, in bits/dim with its interval."""
        return self.estimates["total"]

    @property
    def halfwidth(self) -> float:
        """Half the width of the total's 95% interval, in bits/dim."""
        return halfwidth(self.terms)

    def split(self) -> pd.DataFrame:
        """Split the bound into rate (terms of t > 1), distortion (t = 1), prior and total.

        Returns:
            One row each: quantity, bits_per_dim, low, high, n_images, split, variance.

        Source: Ho, Jain, Abbeel (2020), section 4.3.
        """
        return split_table(self.terms).drop(columns="paper_bits_per_dim")

    def rate_distortion(self) -> pd.DataFrame:
        """Return the rate-distortion curve of progressive decoding (Fig. 5).

        Returns:
            One row per reverse step: reverse_steps, t, rate_bits_per_dim, rmse_255, image_rmse_255 and
            psnr_db, each with its interval (``_low``, ``_high``), n_images, n_distortion.
        """
        return rate_distortion_curve(self.terms)

    def table4(self) -> pd.DataFrame:
        """Return the curve's rows at ten equally spaced numbers of reverse steps (Table 4)."""
        frame = table4(self.terms)
        return frame.drop(columns=[column for column in frame if column.startswith("paper_")])

    def per_step(self) -> pd.DataFrame:
        """Return the mean of every term: t, bits_per_dim, low, high, n_images."""
        return terms_table(self.terms).drop(columns="floor_bits_per_dim")

    def __repr__(self) -> str:
        value, low, high, unit = self.total
        return (
            f"Bound({format_estimate(value, low, high)} {unit}, {len(self.terms.image_id)} images, "
            f"T = {self.terms.num_steps}, {self.terms.estimator} estimator, {self.terms.protocol.caption()})"
        )


def evaluate_bound(
    model: Model,
    images: ImageSet | Array,
    *,
    protocol: str | Protocol = "paper",
    estimator: EstimatorName | Estimator = "stratified",
    target_halfwidth: float | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: bool | Progress = True,
) -> Bound:
    """Evaluate the variational bound on the negative log likelihood of images, in bits/dim.

    Example:
        >>> bound = ddpm_eval.evaluate_bound(model, images, progress=False)
        >>> bound.total.low < bound.total.value < bound.total.high
        True

    Args:
        model: the network with its schedule; an unknown ``model.shape`` is filled in.
        images: uint8 ``[n, channels, side, side]``, or a set from `load_images`, whose labels a conditional
            network is given.
        protocol: ``paper`` (x_0 estimates clipped, tanh decoder: as the authors' code), ``exact`` (the bound
            as it is defined), or a `Protocol`.
        estimator: ``full`` evaluates all T terms of each image, ``stratified`` about 20 importance-sampled
            ones, without bias; an `Estimator` says how many.
        target_halfwidth: double the stratified evaluations per image until half the width of the total's
            95% interval is at most so many bits/dim. A warning tells if these images do not allow it.
        seed: of the noise, which is a function of (seed, image id, t).
        batch_size: images per call of the network; it changes results by rounding only.
        progress: whether a bar is shown, or a function of stage, done and total.

    Raises:
        ValueError: with one sentence: images that are not uint8 or of another shape than the network's, a
            network whose output has other channels, is not finite or that fails at t = 1 or t = T, labels
            that are missing, a protocol or estimator that does not exist.

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, Eq. 5.
    """
    chosen = Estimator(estimator) if isinstance(estimator, str) else estimator
    if target_halfwidth is not None and chosen.name == "full":
        raise ValueError("a target half-width is for the stratified estimator (full evaluates every term)")
    wanted = _protocol(protocol) if isinstance(protocol, str) else protocol
    image_set = images if isinstance(images, ImageSet) else from_array(images)
    model.check_shape((image_set.channels, image_set.side, image_set.side))
    with model.evaluating() as measured, shown(progress) as report:
        if model.verify_times:
            check_ends(measured, image_set)
            doubt = doubt_of_times(time_offset(measured, image_set))
            if doubt:
                warnings.warn(doubt, stacklevel=2)
        while True:
            (terms,) = bound.evaluate_bound(
                measured,
                image_set,
                [wanted],
                estimator=chosen,
                seed=seed,
                batch_size=batch_size,
                work=SerialWork(report),
            )
            if not _can_improve(terms, chosen, target_halfwidth):
                break
            chosen = replace(chosen, evaluations_per_image=2 * chosen.evaluations_per_image)
    model.shape = model.shape or (image_set.channels, image_set.side, image_set.side)
    return Bound(terms, image_set.digest, seed)


def compare_bounds(first: Bound, second: Bound, names: tuple[str, str] = ("first", "second")) -> pd.DataFrame:
    """Compare two models on the same images with the same noise: the difference, paired by image.

    Example:
        >>> ddpm_eval.compare_bounds(bound, bound)["difference"].tolist()
        [0.0, 0.0, 0.0, 0.0]

    Args:
        first: bound of one model.
        second: bound of another model, of the same images under the same protocol.
        names: of the models, which begin their columns.

    Returns:
        One row each of rate, distortion, prior and total: quantity, both models' bits/dim, difference
        (first - second), difference_low, difference_high, n_images.

    Raises:
        ValueError: if images, noise, protocols or the numbers of steps differ.
    """
    for what, a, b in (
        ("images", first.data_digest, second.data_digest),
        ("seeds of the noise", first.seed, second.seed),
        ("numbers of steps", first.terms.num_steps, second.terms.num_steps),
        ("protocols", first.terms.protocol.name, second.terms.protocol.name),
    ):
        if a != b:
            raise ValueError(f"the bounds have different {what} ({a} and {b}), so that nothing is paired")
    return paired_table(first.terms, second.terms, names)


def _protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise ValueError(f"there is no protocol {name!r} ({', '.join(PROTOCOLS)} are, or give a Protocol)")
    return PROTOCOLS[name]


def _can_improve(terms: BoundTerms, estimator: Estimator, target_halfwidth: float | None) -> bool:
    """Tell whether more evaluations per image are to be made; warn if they would not help."""
    if target_halfwidth is None or halfwidth(terms) <= target_halfwidth:
        return False
    if estimator.evaluations_per_image < terms.num_steps:
        return True
    warnings.warn(
        f"the half-width is {halfwidth(terms):.4f} bits/dim although all {terms.num_steps} steps of the "
        f"{len(terms.image_id)} images were evaluated: {target_halfwidth:g} needs more images",
        stacklevel=3,
    )
    return False
