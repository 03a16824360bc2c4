"""The Gaussian model: Gaussian data, its exact denoiser, and the closed form of what the library measures.

Data ``x_0 ~ N(mean, covariance)``, given or fitted to real images, has an exact denoiser that is affine in
``x_t``. With this denoiser as the network, every quantity that the library measures has a known expectation,
against which the production code can be checked:

- `Gaussian.expected_terms` returns the bound's terms and the error of x0_hat **of given images**, in
  expectation over the noise alone. Nothing is assumed about the images: they may be 8-bit, real, or far from
  Gaussian. An affine network makes the squared error of x0_hat a quadratic form in the noise, and each
  element's x0_hat at t = 1 a one-dimensional Gaussian, over which the decoder is integrated numerically to
  1e-9 nats per element.
- `Gaussian.expected_bound` returns the same in expectation over ``x_0`` as well, for continuous ``x_0``.
  (Rounding correlated data to 8 bits leaves no closed form; for 8-bit data, average `expected_terms` over the
  images.) The decoder's bin is then the interval of width 2/255 around the continuous ``x_0``, which reaches
  to infinity for ``|x_0| > 1 - 1/255``, as in `diffusion.decoder_nll`.
- `Gaussian.sampler_output` and `Gaussian.ddim_output` return the law of the samplers' output.
- `frechet_distance` is the Frechet distance between two Gaussians.

All of this holds for estimates of x_0 that are not clipped, the exact decoder, and a fixed table of reverse
variances.

Conventions: an image has ``D`` elements in [-1, 1], flattened in the order channel, row, column; tables over
t are as in `diffusion`; everything is float64. The arithmetic is independent of the functions in `diffusion`
that it checks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_ndtr, roots_hermitenorm, roots_legendre
from torch import Tensor

from ddpm_eval.model.diffusion import Network, Schedule
from ddpm_eval.randomness import Stream, normal
from ddpm_eval.spec import Predicted, Prediction

Array = npt.NDArray[np.float64]

BIN = 2 / 255  # the width of one of 256 levels on [-1, 1]
QUADRATURE_TOLERANCE_NATS = 1e-9  # per element
HERMITE_NODES = (24, 48, 96, 192, 384)
LEGENDRE_NODES = 128  # on 20 standard deviations they integrate a Gaussian times a smooth function to 1e-13
LEGENDRE_REACH = 10.0  # in standard deviations; the mass beyond is 1e-23


@dataclass(frozen=True)
class ExpectedTerms:
    """The exact expectations of the bound's terms, as `records.FullBoundTerms` holds measured ones.

    Attributes:
        terms: L_{t-1} of Eq. 5 in nats per image, float64 ``[image, T]``. Column t - 1 is that of time t:
            column 0 is the decoder's term L_0, the others are KL terms.
        x_0_squared_error: the squared error of x0_hat, averaged over elements, in squared units of [-1, 1],
            float64 ``[image, T]``.
        prior: L_T in nats per image, float64 ``[image]``.
    """

    terms: Tensor
    x_0_squared_error: Tensor
    prior: Tensor


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian over images, held as the eigendecomposition of its covariance.

    Attributes:
        mean: the mean, shape ``[channels, side, side]``.
        eigenvalues: the eigenvalues of the covariance, shape ``[D]``. They are not negative; zeros (constant
            pixels) are allowed.
        basis: the orthonormal eigenvectors as columns, shape ``[D, D]``.
    """

    mean: Tensor
    eigenvalues: Tensor
    basis: Tensor

    @classmethod
    def from_moments(cls, mean: Tensor, covariance: Tensor) -> Self:
        """Return the Gaussian of a mean ``[channels, side, side]`` and a covariance ``[D, D]``.

        Raises:
            ValueError: if the shapes disagree, or the covariance is not symmetric and positive semidefinite.
        """
        size = mean.numel()
        if covariance.shape != (size, size):
            raise ValueError(
                f"the covariance has shape {list(covariance.shape)}, "
                f"but {size} elements need [{size}, {size}]"
            )
        covariance = covariance.double()
        scale = covariance.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
        if not torch.isfinite(covariance).all() or (covariance - covariance.T).abs().max() > 1e-9 * scale:
            raise ValueError(
                "the covariance is not a finite symmetric matrix (was a data matrix given instead?)"
            )
        eigenvalues, basis = torch.linalg.eigh((covariance + covariance.T) / 2)
        if eigenvalues[0] < -1e-9 * scale:
            raise ValueError(
                f"the covariance has a negative eigenvalue {eigenvalues[0]:.3g}; variances cannot be negative"
            )
        return cls(mean.double(), eigenvalues.clamp(min=0), basis)  # rounding leaves zeros a little negative

    @classmethod
    def fit(cls, batches: Iterable[Tensor]) -> Self:
        """Return the maximum likelihood Gaussian of images that are read in batches.

        Args:
            batches: images in [-1, 1], each batch ``[batch, channels, side, side]`` of any real dtype.

        Raises:
            ValueError: if there are fewer than two images in all.
        """
        count = 0
        total = torch.zeros(())
        outer = torch.zeros(())
        shape = torch.Size()
        for batch in batches:
            shape = batch.shape[1:]
            flat = batch.flatten(1).double()
            count += len(flat)
            total = total + flat.sum(0)
            outer = outer + flat.T @ flat
        if count < 2:
            raise ValueError(f"a covariance needs at least two images, but {count} were given")
        mean = total / count
        return cls.from_moments(mean.reshape(shape), outer / count - torch.outer(mean, mean))

    @property
    def dimensions(self) -> int:
        """D, the number of elements of an image."""
        return self.mean.numel()

    @cached_property
    def covariance(self) -> Tensor:
        """The covariance matrix, shape ``[D, D]``."""
        return (self.basis * self.eigenvalues) @ self.basis.T

    def draw(self, seed: int, index: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """Draw the data points with these indices, each a function of the seed and its index.

        Args:
            seed: the seed of the data.
            index: int64 of shape ``[n]``.
            dtype: the dtype of the result.

        Returns:
            Images with continuous values, shape ``[n, channels, side, side]``.
        """
        time = torch.zeros(1, dtype=torch.int64)
        noise = normal(seed, Stream.GAUSSIAN_DATA, index, time, (self.dimensions,), torch.float64)
        flat = self.mean.flatten() + (noise * self.eigenvalues.sqrt()) @ self.basis.T
        return flat.reshape(-1, *self.mean.shape).to(dtype)

    def network(self, schedule: Schedule, prediction: Predicted) -> Network:
        """Return the exact denoiser, which is the expectation of eps, mu_tilde or x_0 given ``x_t``.

        A denoiser for eps or x_0 that is made for a chain serves every respaced version of it. Since mu_tilde
        depends on the chain, a denoiser for mu must be made for the respaced chain itself.

        Raises:
            ValueError: if another prediction is asked for.
        """
        if prediction not in get_args(Prediction):
            raise ValueError(
                f"there is no exact denoiser for {prediction} ({', '.join(get_args(Prediction))})"
            )
        return Denoiser(self, schedule, prediction)

    def expected_terms(self, schedule: Schedule, variance: Tensor, x_0: Tensor) -> ExpectedTerms:
        """Return the exact expectation, over the noise, of each image's bound under the exact denoiser.

        Args:
            schedule: the noise schedule of the chain, which may be respaced.
            variance: the table of sigma_t^2, float64 and indexed 0..T.
            x_0: any images in [-1, 1], shape ``[image, channels, side, side]``.

        Raises:
            ValueError: if the decoder's quadrature does not reach 1e-9 nats per element.
        """
        x_0 = x_0.double()
        coordinates = (x_0 - self.mean).flatten(1) @ self.basis
        error = _summed_error(schedule, self.eigenvalues, coordinates.square())
        terms = _kl(schedule, variance, error, self.dimensions)
        bias, spread = self._last_estimate(schedule)
        estimate = x_0.flatten(1) - (coordinates * bias) @ self.basis.T
        nll = _expected_nll(
            x_0.flatten(1).numpy(), estimate.numpy(), spread.numpy(), float(variance[1].sqrt())
        )
        terms[:, 0] = torch.from_numpy(nll).sum(1)
        prior = _prior(schedule, x_0.square().flatten(1).sum(1), self.dimensions)
        return ExpectedTerms(terms, error / self.dimensions, prior)

    def expected_bound(self, schedule: Schedule, variance: Tensor) -> ExpectedTerms:
        """Return the exact expectation of the bound over the noise and over this Gaussian's continuous data.

        The result has a single row. The arguments are those of `expected_terms`.
        """
        error = _summed_error(schedule, self.eigenvalues, self.eigenvalues[None])
        terms = _kl(schedule, variance, error, self.dimensions)
        terms[:, 0] = self._population_decoder(schedule, float(variance[1].sqrt()))
        square = self.mean.square().sum() + self.eigenvalues.sum()
        return ExpectedTerms(terms, error / self.dimensions, _prior(schedule, square[None], self.dimensions))

    def optimal_variance(self, schedule: Schedule) -> Tensor:
        """Return the table of isotropic sigma_t^2 that minimise the expected KL terms (Bao et al. 2022).

        The variance is beta_tilde_t plus the mean squared error of the exact mean; at t = 1 it is that error
        alone.
        """
        error = _summed_error(schedule, self.eigenvalues, self.eigenvalues[None])[0] / self.dimensions
        inner = schedule.beta_tilde[1:] + schedule.mean_weight_x_0[1:].square() * error
        return torch.cat([torch.full((1,), torch.nan, dtype=torch.float64), inner])

    def sampler_output(self, schedule: Schedule, variance: Tensor) -> "Gaussian":
        """Return the law of the ancestral sampler's output with the exact denoiser, without clipping.

        Args:
            schedule: the noise schedule of the chain, which may be respaced.
            variance: the table of sigma_t^2, float64 and indexed 0..T; the last step, t = 1, adds no noise.
        """
        noise = variance.clone()
        noise[1] = 0.0
        return self._chain_output(schedule, schedule.mean_weight_x_0, schedule.mean_weight_x_t, noise)

    def ddim_output(self, schedule: Schedule, eta: float = 0.0) -> "Gaussian":
        """Return the law of the DDIM sampler's output (Song et al. 2021, Eq. 12), without clipping.

        Args:
            schedule: the noise schedule of the chain, which may be respaced.
            eta: the scale of the sampler's noise.
        """
        alpha_bar = schedule.alpha_bar
        previous = schedule.alpha_bar_previous
        noise = eta**2 * schedule.beta_tilde
        weight_x_t = ((1 - previous - noise).clamp(min=0) / (1 - alpha_bar)).sqrt()
        return self._chain_output(
            schedule, previous.sqrt() - weight_x_t * alpha_bar.sqrt(), weight_x_t, noise
        )

    def _chain_output(
        self, schedule: Schedule, weight_x_0: Tensor, weight_x_t: Tensor, noise: Tensor
    ) -> "Gaussian":
        """Return the law that ``x_{t-1} = weight_x_0 x0_hat + weight_x_t x_t + noise`` leads to.

        Every step is affine and has the eigenvectors of the data.
        """
        centre = self.mean.flatten() @ self.basis
        mean, spread = torch.zeros_like(centre), torch.ones_like(centre)
        gain, bias = _gains(schedule, self.eigenvalues)
        for t in range(schedule.timesteps, 0, -1):
            slope = weight_x_0[t] * gain[t - 1] + weight_x_t[t]
            mean = slope * mean + weight_x_0[t] * bias[t - 1] * centre
            spread = slope.square() * spread + noise[t]
        return Gaussian((self.basis @ mean).reshape(self.mean.shape), spread, self.basis)

    def dequantised_nll(self, x_0: Tensor) -> Tensor:
        """Return this Gaussian's negative log likelihood of dequantised 8-bit images.

        The images are spread uniformly over their bins, which adds ``(2/255)^2 / 12`` to each of their
        variances, as to those of the model. The expected negative log density has a closed form, and bounds
        that of the bins' probabilities from above (Theis, van den Oord, Bethge, "A note on the evaluation of
        generative models", ICLR 2016).

        Returns:
            Nats per image, shape ``[image]``.
        """
        eigenvalues = self.eigenvalues + BIN**2 / 12
        squares = ((x_0.double() - self.mean).flatten(1) @ self.basis).square() + BIN**2 / 12
        log_determinant = torch.log(2 * torch.pi * eigenvalues).sum()
        return 0.5 * (log_determinant + (squares / eigenvalues).sum(1)) - self.dimensions * float(np.log(BIN))

    def _last_estimate(self, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """Return the bias (per eigenvector) and the deviation (per element) of x0_hat given x_0 at t = 1."""
        gain, bias = (table[0] for table in _gains(schedule, self.eigenvalues))
        noise = gain.square() * (1 - schedule.alpha_bar[1])
        return bias, (self.basis.square() @ noise).sqrt()

    def _population_decoder(self, schedule: Schedule, sigma: float) -> float:
        """Return the decoder's term in expectation over the noise and over continuous data."""
        gain, _ = _gains(schedule, self.eigenvalues)
        signal = schedule.alpha_bar[1].sqrt() * gain[0]
        _, spread = self._last_estimate(schedule)
        squares = self.basis.square()
        variance = squares @ self.eigenvalues
        # x0_hat given one element's x_0: regression on it, plus what the other elements and the noise add
        slope = squares @ (signal * self.eigenvalues) / variance.clamp(min=torch.finfo(torch.float64).tiny)
        rest = squares @ (signal.square() * self.eigenvalues) - slope.square() * variance
        spread = (rest.clamp(min=0) + spread.square()).sqrt()
        mean = self.mean.flatten().numpy()
        x_0, weight = _normal_quadrature(mean, variance.sqrt().numpy())
        nll = _expected_nll(x_0, mean + slope.numpy() * (x_0 - mean), spread.numpy(), sigma)
        return float((weight * nll).sum())


class Denoiser:
    """The exact denoiser of a Gaussian as a `diffusion.Network`; see `Gaussian.network`."""

    def __init__(self, gaussian: Gaussian, schedule: Schedule, prediction: Predicted) -> None:
        self.prediction = prediction
        self._double = (gaussian.mean.flatten(), gaussian.eigenvalues, gaussian.basis)
        schedule = schedule.to("cpu")
        self._cast: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = {}
        times = schedule.network_time[1:]
        tables = (
            schedule.alpha_bar,
            1 - schedule.alpha_bar,
            schedule.mean_weight_x_0,
            schedule.mean_weight_x_t,
        )
        self._tables = torch.full((4, int(times.max()) + 1), torch.nan, dtype=torch.float64)
        self._tables[:, times] = torch.stack(tables)[:, 1:]

    def __call__(self, x_t: Tensor, timestep: Tensor) -> Tensor:
        """Return the prediction from ``x_t``, in its dtype.

        Args:
            x_t: noisy images, shape ``[batch, channels, side, side]``.
            timestep: 0-based times, shape ``[batch]`` or ``[1]``.
        """
        mean, eigenvalues, basis, tables = self._constants(x_t)
        alpha_bar, noise, weight_x_0, weight_x_t = tables[:, timestep].unsqueeze(-1)
        flat = x_t.flatten(1)
        whitened = (flat - alpha_bar.sqrt() * mean) @ basis / (alpha_bar * eigenvalues + noise)
        if self.prediction == "eps":
            return (noise.sqrt() * whitened @ basis.T).reshape(x_t.shape)
        x_0 = mean + (alpha_bar.sqrt() * eigenvalues * whitened) @ basis.T
        return (x_0 if self.prediction == "x0" else weight_x_0 * x_0 + weight_x_t * flat).reshape(x_t.shape)

    def _constants(self, like: Tensor) -> tuple[Tensor, ...]:
        """Return mean, eigenvalues, basis and tables in the dtype and on the device of ``like``."""
        key = (like.device, like.dtype)
        if key not in self._cast:
            self._cast[key] = tuple(tensor.to(*key) for tensor in (*self._double, self._tables))
        return self._cast[key]


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return ``|mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)`` in squared units of [-1, 1].

    The trace of the root is the sum of the singular values of ``A^1/2 B^1/2``, which stays accurate for
    singular covariances (Dowson and Landau, "The Frechet distance between multivariate normal distributions",
    1982).
    """
    product = a.eigenvalues.sqrt()[:, None] * (a.basis.T @ b.basis) * b.eigenvalues.sqrt()
    overlap = torch.linalg.svdvals(product).sum()
    return float((a.mean - b.mean).square().sum() + a.eigenvalues.sum() + b.eigenvalues.sum() - 2 * overlap)


def _gains(schedule: Schedule, eigenvalues: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight of x_t in x0_hat and the share of ``x_0 - mean`` that x0_hat misses, ``[T, D]`` each.

    Both are given in the coordinates of the eigenvectors.
    """
    alpha_bar = schedule.alpha_bar[1:, None]
    total = alpha_bar * eigenvalues + (1 - alpha_bar)
    return alpha_bar.sqrt() * eigenvalues / total, (1 - alpha_bar) / total


def _summed_error(schedule: Schedule, eigenvalues: Tensor, squares: Tensor) -> Tensor:
    """Return E|x_0 - x0_hat|^2 ``[image, T]`` from squared coordinates ``[image, D]`` of ``x_0 - mean``."""
    gain, bias = _gains(schedule, eigenvalues)
    return squares @ bias.square().T + (1 - schedule.alpha_bar[1:]) * gain.square().sum(1)


def _kl(schedule: Schedule, variance: Tensor, error: Tensor, size: int) -> Tensor:
    """Return the KL terms of Eq. 5, ``[image, T]``, from the expected squared error of x0_hat.

    Column 0, the decoder's term, is left at zero for the caller to fill in.
    """
    terms = torch.zeros_like(error)
    ratio = schedule.beta_tilde[2:] / variance[2:]
    terms[:, 1:] = 0.5 * (size * (ratio - 1 - ratio.log()))
    terms[:, 1:] += schedule.mean_weight_x_0[2:].square() / (2 * variance[2:]) * error[:, 1:]  # Eq. 8
    return terms


def _prior(schedule: Schedule, squares: Tensor, size: int) -> Tensor:
    """Return KL(q(x_T | x_0) || N(0, I)) in nats per image from E|x_0|^2."""
    alpha_bar = schedule.alpha_bar[-1]
    return 0.5 * (alpha_bar * squares + size * (-alpha_bar - torch.log1p(-alpha_bar)))


def _normal_quadrature(mean: Array, deviation: Array) -> tuple[Array, Array]:
    """Return nodes and weights, each ``[node, D]``, for expectations over N(mean, deviation^2).

    The function under the expectation must be smooth for inner and for outer bins of the decoder; these meet
    at ``|x_0| = 1 - 1/255``.
    """
    nodes, weights = (column[:, None] for column in roots_legendre(LEGENDRE_NODES))
    # where the deviation is zero, all nodes are the mean
    scale = np.maximum(deviation, np.finfo(np.float64).tiny)
    edges = [np.full_like(mean, -LEGENDRE_REACH)]
    edges += [
        np.clip((edge - mean) / scale, -LEGENDRE_REACH, LEGENDRE_REACH) for edge in (BIN / 2 - 1, 1 - BIN / 2)
    ]
    edges += [np.full_like(mean, LEGENDRE_REACH)]
    z = np.concatenate([(a + b) / 2 + nodes * (b - a) / 2 for a, b in pairwise(edges)])
    weight = np.concatenate([weights * (b - a) / 2 for a, b in pairwise(edges)])
    return mean + deviation * z, weight * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)


def _expected_nll(x_0: Array, mean: Array, spread: Array, sigma: float) -> Array:
    """Return E[-log p(x_0)] per element for a decoder of mean N(mean, spread^2) and standard deviation sigma.

    This is Gauss-Hermite quadrature. The number of nodes doubles until no result moves by 1e-9 nats or more,
    or for large results by 1e-13 of itself.
    """
    previous = np.full(x_0.shape, np.inf)
    for count in HERMITE_NODES:
        nodes, weights = roots_hermitenorm(count)
        value = sum(
            w * _bin_nll(x_0, mean + spread * g, sigma)
            for g, w in zip(nodes, weights / weights.sum(), strict=True)
        )
        change = (np.abs(value - previous) / np.maximum(1.0, 1e-4 * np.abs(value))).max()  # huge values round
        if change < QUADRATURE_TOLERANCE_NATS:
            return np.asarray(value)
        previous = np.asarray(value)
    raise ValueError(
        f"the decoder's quadrature still moves by {change:.1e} nats per element at {count} nodes; "
        f"a decoder of standard deviation {sigma:.2e} is too narrow for it"
    )


def _bin_nll(x_0: Array, mean: Array, sigma: float) -> Array:
    """Return -log of the Gaussian's mass on the bin of ``x_0``, Eq. 13, in nats per element."""
    upper = np.where(x_0 > 1 - BIN / 2, np.inf, (x_0 + BIN / 2 - mean) / sigma)
    lower = np.where(x_0 < -1 + BIN / 2, -np.inf, (x_0 - BIN / 2 - mean) / sigma)
    right = lower > 0  # mirrored to the left tail, where logarithms of the CDF keep their digits
    log_upper = log_ndtr(np.where(right, -lower, upper))
    log_lower = log_ndtr(np.where(right, -upper, lower))
    return np.asarray(-(log_upper + np.log1p(-np.exp(log_lower - log_upper))))
