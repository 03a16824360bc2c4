"""The variational bound term by term: the records from which every likelihood figure is derived."""

import math
from typing import ClassVar

import numpy as np

from ddpm_eval.protocol import Protocol
from ddpm_eval.results.fields import Array, Record, array, bound_protocol, number, record, text

BOUND_HISTORY = "bound-history"
"""The name under which a `BoundHistory` is stored."""


@record
class BoundTerms(Record):
    """The variational bound of images, term by term: everything about likelihood is derived from these.

    The term at t = 1 is the decoder's negative log likelihood, the others are KL divergences.
    `FullBoundTerms` holds every term of every image, `StratifiedBoundTerms` a few importance-sampled ones.
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
        """Return rate (t > 1), distortion (t = 1), prior and total of each image, bits/dim ``[image]``."""
        terms = self.term_values()
        prior = self.prior.astype(np.float64) / (self.dimensions * math.log(2))
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
        self._check_finite(np.argwhere(~finite) + np.array([0, 1]))
        values: Array = self.terms.astype(np.float64) * self.bits_per_nat
        return values


@record
class StratifiedBoundTerms(BoundTerms):
    """A few importance-sampled terms per image, weighted by 1 / ``inclusion`` in sums.

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


def bound_name(
    split: str,
    protocol: Protocol,
    estimator: str = "full",
    num_steps: int | None = None,
    paired: bool = False,
) -> str:
    """Return the name under which a bound is stored, such as ``bound/full/test/paper``.

    Args:
        split: train or test.
        protocol: of the bound.
        estimator: full or stratified.
        num_steps: of a shorter chain; None for all steps.
        paired: whether it was measured with another run's noise or times, to be compared with that run.
    """
    chain = "" if num_steps is None else f"-{num_steps}-steps"
    return f"bound/{estimator}{chain}{'-paired' if paired else ''}/{split}/{protocol.name}"
