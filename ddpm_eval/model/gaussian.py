"""Gaussian data with its exact denoiser, and what the diffusion model's measurements must then be in closed
form.

Data ``x_0 ~ N(mean, covariance)``, given or fitted to real images, has an exact denoiser that is affine in
``x_t``. Read as a network, every quantity that the library measures has a known expectation, so that its
production code can be checked against numbers instead of opinions:

- `Gaussian.expected_terms`: the bound's terms and the error of x0_hat **of given images**, in expectation
  over the noise alone. Nothing is assumed about the images: they may be 8-bit, real, or far from Gaussian. An
  affine network makes the squared error of x0_hat a quadratic form in the noise, and each element's x0_hat at
  t = 1 a one-dimensional Gaussian, over which the decoder is integrated numerically to 1e-9 nats per element.
- `Gaussian.expected_bound`: the same in expectation over ``x_0`` as well, for continuous ``x_0``. (Rounding
  correlated data to 8 bits leaves no closed form; for 8-bit data average `expected_terms` over the images.)
  The decoder's bin is then the interval of width 2/255 around the continuous ``x_0``, reaching to infinity
  for ``|x_0| > 1 - 1/255``: what `diffusion.decoder_nll` computes for such an ``x_0``.
- `Gaussian.sampler_output`: the law of the ancestral sampler's output.
- `frechet_distance`: between two Gaussians.

All of it is for x_0 estimates that are not clipped, the exact decoder, and a fixed table of reverse
variances.

Conventions: ``D`` elements per image in [-1, 1], flattened in the order channel, row, column; tables over t
    as in
`diffusion`; float64. The arithmetic here is independent of the functions in `diffusion` that it checks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_ndtr, roots_hermitenorm, roots_legendre
from torch import Tensor

from ddpm_eval.model.diffusion import Network, Schedule
from ddpm_eval.randomness import Stream, normal
from ddpm_eval.spec import Prediction

Array = npt.NDArray[np.float64]

BIN = 2 / 255  # width of one of 256 levels on [-1, 1]
QUADRATURE_TOLERANCE_NATS = 1e-9  # per element
HERMITE_NODES = (24, 48, 96, 192, 384)
LEGENDRE_NODES = 128  # on 20 standard deviations: a Gaussian times a smooth function to 1e-13
LEGENDRE_REACH = 10.0  # standard deviations; the mass beyond is 1e-23


@dataclass(frozen=True)
class ExpectedTerms:
    """Exact expectations of what `records.FullBoundTerms` holds; all float64.

    Attributes:
        terms: nats per image, shape ``[image, T]``; column 0 is the decoder's term.
        x_0_squared_error: of x0_hat, mean over elements, shape ``[image, T]``.
        prior: nats per image, shape ``[image]``.
    """

    terms: Tensor
    x_0_squared_error: Tensor
    prior: Tensor


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian over images, held as the eigendecomposition of its covariance.

    Attributes:
        mean: shape ``[channels, side, side]``.
        eigenvalues: of the covariance, not negative, shape ``[D]``; zeros (constant pixels) are allowed.
        basis: orthonormal eigenvectors in its columns, shape ``[D, D]``.
    """

    mean: Tensor
    eigenvalues: Tensor
    basis: Tensor

    @classmethod
    def from_moments(cls, mean: Tensor, covariance: Tensor) -> Self:
        """Build it from a mean ``[channels, side, side]`` and a covariance ``[D, D]``.

        Raises:
            ValueError: if the shapes disagree, or the covariance is not symmetric and positive semidefinite.
        """
        size = mean.numel()
        if covariance.shape != (size, size):
            raise ValueError(
                f"the covariance has shape {list(covariance.shape)}, but {size} elements need [{size}, {size}]"
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
        """Fit mean and (maximum likelihood) covariance to images that stream by.

        Args:
            batches: of images in [-1, 1], each ``[batch, channels, side, side]``, of any real dtype.

        Raises:
            ValueError: with fewer than two images in all.
        """
        count, total, outer, shape = 0, torch.zeros(()), torch.zeros(()), torch.Size()
        for batch in batches:
            flat, shape = batch.flatten(1).double(), batch.shape[1:]
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
        """Draw the data points with these indices (int64 ``[n]``): continuous, shape ``[n, channels, side,
        side]``.
        """
        noise = normal(
            seed,
            Stream.ORACLE_DATA,
            index,
            torch.zeros(1, dtype=torch.int64),
            (self.dimensions,),
            torch.float64,
        )
        flat = self.mean.flatten() + (noise * self.eigenvalues.sqrt()) @ self.basis.T
        return flat.reshape(-1, *self.mean.shape).to(dtype)

    def network(self, schedule: Schedule, prediction: Prediction) -> Network:
        """Return the exact denoiser: the expectation of eps, mu_tilde or x_0 given ``x_t``.

        An eps or x_0 denoiser made for a chain serves every respaced version of it; mu_tilde depends on the
        chain, so that a mu denoiser must be made for the respaced one.
        """
        return Denoiser(self, schedule, prediction)

    def expected_terms(self, schedule: Schedule, variance: Tensor, x_0: Tensor) -> ExpectedTerms:
        """Return the exact expectation, over the noise, of each image's bound under the exact denoiser.

        Args:
            schedule: of the chain, possibly respaced.
            variance: sigma_t^2, float64 table indexed 0..T.
            x_0: any images, shape ``[image, channels, side, side]``.

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
        """Return the exact expectation, over the noise and continuous data from this Gaussian, as a single
        row.
        """
        error = _summed_error(schedule, self.eigenvalues, self.eigenvalues[None])
        terms = _kl(schedule, variance, error, self.dimensions)
        terms[:, 0] = self._population_decoder(schedule, float(variance[1].sqrt()))
        square = self.mean.square().sum() + self.eigenvalues.sum()
        return ExpectedTerms(terms, error / self.dimensions, _prior(schedule, square[None], self.dimensions))

    def optimal_variance(self, schedule: Schedule) -> Tensor:
        """Return the isotropic sigma_t^2 that minimises the expected KL terms (Bao et al. 2022), indexed
        0..T.

        It is beta_tilde_t plus the mean squared error of the exact mean; the entry at t = 1 is that error
        alone.
        """
        error = _summed_error(schedule, self.eigenvalues, self.eigenvalues[None])[0] / self.dimensions
        inner = schedule.beta_tilde[1:] + schedule.mean_weight_x_0[1:].square() * error
        return torch.cat([torch.full((1,), torch.nan, dtype=torch.float64), inner])

    def sampler_output(self, schedule: Schedule, variance: Tensor) -> "Gaussian":
        """Return the law of what the ancestral sampler draws with the exact denoiser: x_0 estimates not
        clipped.

        Args:
            schedule: of the chain, possibly respaced.
            variance: sigma_t^2, float64 table indexed 0..T; the last step, t = 1, adds no noise.
        """
        noise = variance.clone()
        noise[1] = 0.0
        return self._chain_output(schedule, schedule.mean_weight_x_0, schedule.mean_weight_x_t, noise)

    def ddim_output(self, schedule: Schedule, eta: float = 0.0) -> "Gaussian":
        """Return the law of what the DDIM sampler draws (Song et al. 2021, Eq. 12): x_0 estimates not
        clipped.
        """
        alpha_bar, previous, noise = (
            schedule.alpha_bar,
            schedule.alpha_bar_previous,
            eta**2 * schedule.beta_tilde,
        )
        weight_x_t = ((1 - previous - noise).clamp(min=0) / (1 - alpha_bar)).sqrt()
        return self._chain_output(
            schedule, previous.sqrt() - weight_x_t * alpha_bar.sqrt(), weight_x_t, noise
        )

    def _chain_output(
        self, schedule: Schedule, weight_x_0: Tensor, weight_x_t: Tensor, noise: Tensor
    ) -> "Gaussian":
        """Follow ``x_{t-1} = weight_x_0 x0_hat + weight_x_t x_t + noise``: affine steps with the data's own
        eigenvectors.
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
        """Return this Gaussian's negative log likelihood of 8-bit images, nats per image, shape ``[image]``.

        The images are spread uniformly over their bins, which adds ``(2/255)^2 / 12`` to each variance, here
        as in the model; the expected negative log density is closed form, and bounds that of the bins'
        probabilities from above (Theis, van den Oord, Bethge, "A note on the evaluation of generative
        models", ICLR 2016).
        """
        eigenvalues = self.eigenvalues + BIN**2 / 12
        squares = ((x_0.double() - self.mean).flatten(1) @ self.basis).square() + BIN**2 / 12
        log_determinant = torch.log(2 * torch.pi * eigenvalues).sum()
        return 0.5 * (log_determinant + (squares / eigenvalues).sum(1)) - self.dimensions * float(np.log(BIN))

    def _last_estimate(self, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """Return, at t = 1, the bias of x0_hat per eigenvector and its standard deviation per element, given
        x_0.
        """
        gain, bias = (table[0] for table in _gains(schedule, self.eigenvalues))
        noise = gain.square() * (1 - schedule.alpha_bar[1])
        return bias, (self.basis.square() @ noise).sqrt()

    def _population_decoder(self, schedule: Schedule, sigma: float) -> float:
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
        x_0, weight = _normal_pieces(mean, variance.sqrt().numpy())
        nll = _expected_nll(x_0, mean + slope.numpy() * (x_0 - mean), spread.numpy(), sigma)
        return float((weight * nll).sum())


class Denoiser:
    """A Gaussian's exact denoiser as a `diffusion.Network`; see `Gaussian.network`."""

    def __init__(self, gaussian: Gaussian, schedule: Schedule, prediction: Prediction) -> None:
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
        """Predict from ``x_t [batch, channels, side, side]`` at 0-based times ``[batch]`` or ``[1]``, in its
        dtype.
        """
        mean, eigenvalues, basis, tables = self._on(x_t)
        alpha_bar, noise, weight_x_0, weight_x_t = tables[:, timestep].unsqueeze(-1)
        flat = x_t.flatten(1)
        whitened = (flat - alpha_bar.sqrt() * mean) @ basis / (alpha_bar * eigenvalues + noise)
        if self.prediction == "eps":
            return (noise.sqrt() * whitened @ basis.T).reshape(x_t.shape)
        x_0 = mean + (alpha_bar.sqrt() * eigenvalues * whitened) @ basis.T
        return (x_0 if self.prediction == "x0" else weight_x_0 * x_0 + weight_x_t * flat).reshape(x_t.shape)

    def _on(self, x: Tensor) -> tuple[Tensor, ...]:
        key = (x.device, x.dtype)
        if key not in self._cast:
            self._cast[key] = tuple(tensor.to(*key) for tensor in (*self._double, self._tables))
        return self._cast[key]


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return ``|mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)``, in squared units of [-1, 1].

    The last trace is the sum of the singular values of ``A^1/2 B^1/2``, which stays accurate for singular
    covariances (Dowson and Landau, "The Frechet distance between multivariate normal distributions", 1982).
    """
    product = a.eigenvalues.sqrt()[:, None] * (a.basis.T @ b.basis) * b.eigenvalues.sqrt()
    overlap = torch.linalg.svdvals(product).sum()
    return float((a.mean - b.mean).square().sum() + a.eigenvalues.sum() + b.eigenvalues.sum() - 2 * overlap)


def _gains(schedule: Schedule, eigenvalues: Tensor) -> tuple[Tensor, Tensor]:
    """Return, per t and eigenvector, how far x0_hat follows x_t, and what share of ``x_0 - mean`` it
    misses.
    """
    alpha_bar = schedule.alpha_bar[1:, None]
    total = alpha_bar * eigenvalues + (1 - alpha_bar)
    return alpha_bar.sqrt() * eigenvalues / total, (1 - alpha_bar) / total


def _summed_error(schedule: Schedule, eigenvalues: Tensor, squares: Tensor) -> Tensor:
    """Return E|x_0 - x0_hat|^2, ``[image, T]``, from squared coordinates ``[image, D]`` of ``x_0 - mean``."""
    gain, bias = _gains(schedule, eigenvalues)
    return squares @ bias.square().T + (1 - schedule.alpha_bar[1:]) * gain.square().sum(1)


def _kl(schedule: Schedule, variance: Tensor, error: Tensor, size: int) -> Tensor:
    """Return the KL terms of Eq. 5, ``[image, T]``, from the expected squared error; column 0 is to be filled
    in.
    """
    terms = torch.zeros_like(error)
    ratio = schedule.beta_tilde[2:] / variance[2:]
    terms[:, 1:] = 0.5 * (size * (ratio - 1 - ratio.log()))
    terms[:, 1:] += schedule.mean_weight_x_0[2:].square() / (2 * variance[2:]) * error[:, 1:]  # Eq. 8
    return terms


def _prior(schedule: Schedule, squares: Tensor, size: int) -> Tensor:
    """Return KL(q(x_T | x_0) || N(0, I)), nats per image, from E|x_0|^2."""
    alpha_bar = schedule.alpha_bar[-1]
    return 0.5 * (alpha_bar * squares + size * (-alpha_bar - torch.log1p(-alpha_bar)))


def _normal_pieces(mean: Array, deviation: Array) -> tuple[Array, Array]:
    """Return nodes and weights ``[node, D]`` for expectations over N(mean, deviation^2).

    The function need only be smooth on each kind of the decoder's bins, which meet at ``|x_0| = 1 - 1/255``.
    """
    nodes, weights = (column[:, None] for column in roots_legendre(LEGENDRE_NODES))
    scale = np.maximum(
        deviation, np.finfo(np.float64).tiny
    )  # of a constant element: all its nodes are its mean
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

    Gauss-Hermite quadrature; the number of nodes doubles until no result moves by 1e-9 nats (or 1e-13 of
    itself).
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
    """Return -log of the Gaussian's mass on the bin of ``x_0``, Eq. 13, nats per element."""
    upper = np.where(x_0 > 1 - BIN / 2, np.inf, (x_0 + BIN / 2 - mean) / sigma)
    lower = np.where(x_0 < -1 + BIN / 2, -np.inf, (x_0 - BIN / 2 - mean) / sigma)
    right = lower > 0  # mirror to the left tail, where logarithms of the CDF keep their digits
    log_upper = log_ndtr(np.where(right, -lower, upper))
    log_lower = log_ndtr(np.where(right, -upper, lower))
    return np.asarray(-(log_upper + np.log1p(-np.exp(log_lower - log_upper))))
