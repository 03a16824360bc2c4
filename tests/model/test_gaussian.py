"""The Gaussian model against linear algebra, exact cubature of production code, and textbook formulas."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, linalg, special, stats

from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.model.diffusion import (
    ReverseProcess,
    bound_term,
    decoder_nll,
    eps_from_x_0,
    make_schedule,
    prior_kl,
    q_posterior_mean,
    q_sample,
)
from ddpm_eval.model.gaussian import Gaussian, frechet_distance
from ddpm_eval.model.respacing import evenly_spaced
from ddpm_eval.model.samplers import DDIMSampler
from ddpm_eval.randomness import Stream, normal
from ddpm_eval.spec import DiffusionSpec

SMALL = make_schedule(DiffusionSpec(timesteps=12, beta_start=0.003, beta_end=0.2))
PAPER = make_schedule(DiffusionSpec())


def gaussian(shape=(3, 2, 2), scale=0.3, seed=0):
    """A Gaussian with correlated elements of standard deviation near ``scale``."""
    g = torch.Generator().manual_seed(seed)
    size = math.prod(shape)
    factor = torch.randn(size, size, generator=g, dtype=torch.float64) * scale / math.sqrt(size)
    return Gaussian.from_moments(
        0.3 * torch.randn(shape, generator=g, dtype=torch.float64), factor @ factor.T
    )


def one_pixel(mean, deviation):
    return Gaussian.from_moments(
        torch.tensor([[[mean]]], dtype=torch.float64), torch.tensor([[deviation**2]], dtype=torch.float64)
    )


def images(n, shape=(3, 2, 2), seed=1):
    """Return 8-bit images with both outer levels among them, which are nothing like the Gaussian."""
    levels = torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(seed))
    levels.view(-1)[:2] = torch.tensor([0, 255])
    return levels.double() / 127.5 - 1


def dense_gain(data, schedule, t):
    """Return the matrix that takes x_t - E x_t to E[x_0 | x_t] - mean."""
    a = float(schedule.alpha_bar[t])
    covariance = data.covariance.numpy()
    return math.sqrt(a) * covariance @ np.linalg.inv(a * covariance + (1 - a) * np.eye(data.dimensions))


def process_of(data, schedule, prediction, variance="fixed-large"):
    return ReverseProcess(
        data.network(schedule, prediction),
        schedule,
        prediction,
        schedule.fixed_variance(variance),
        clip=False,
    )


# The data


def test_from_moments_keeps_the_moments():
    data = gaussian()
    again = Gaussian.from_moments(data.mean, data.covariance)
    torch.testing.assert_close(again.covariance, data.covariance)
    torch.testing.assert_close(data.basis @ data.basis.T, torch.eye(12, dtype=torch.float64))


def test_fit_is_the_sample_mean_and_covariance_however_the_images_are_batched():
    x = images(50)
    flat = x.flatten(1).numpy()
    for sizes in ([50], [1] * 50, [7, 20, 23]):
        data = Gaussian.fit(x.split(sizes))
        np.testing.assert_allclose(data.mean.flatten(), flat.mean(0), atol=1e-14)
        np.testing.assert_allclose(data.covariance, np.cov(flat.T, bias=True), atol=1e-14)


def test_bad_moments_are_refused():
    mean = torch.zeros(1, 2, 2)
    with pytest.raises(ValueError, match=r"4 elements need \[4, 4\]"):
        Gaussian.from_moments(mean, torch.eye(3))
    with pytest.raises(ValueError, match="not a finite symmetric matrix"):
        Gaussian.from_moments(mean, torch.eye(4) + torch.triu(torch.ones(4, 4), 1))
    with pytest.raises(ValueError, match="not a finite symmetric matrix"):
        Gaussian.from_moments(mean, torch.full((4, 4), math.nan))
    with pytest.raises(ValueError, match="negative eigenvalue -1"):
        Gaussian.from_moments(mean, torch.diag(torch.tensor([1.0, 1, 1, -1])))
    with pytest.raises(ValueError, match="at least two images, but 1"):
        Gaussian.fit([images(1)])


def test_draws_have_the_law_of_the_data_and_depend_on_their_index_only():
    data = gaussian()
    x = data.draw(5, torch.arange(20_000))
    white = ((x - data.mean).flatten(1) @ data.basis / data.eigenvalues.sqrt()).numpy()
    assert stats.kstest(white.ravel(), "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(white.T) - np.eye(12)).max() < 4.5 / math.sqrt(20_000)
    torch.testing.assert_close(data.draw(5, torch.tensor([77, 3])), x[[77, 3]])
    assert data.draw(5, torch.tensor([3]), torch.float32).dtype == torch.float32
    assert not torch.equal(data.draw(6, torch.tensor([3])), x[[3]])


# The denoiser


@pytest.mark.parametrize("schedule", [SMALL, PAPER], ids=["T=12", "T=1000"])
def test_denoiser_is_the_conditional_expectation(schedule):
    data = gaussian()
    for t in (1, 2, schedule.timesteps // 2, schedule.timesteps):
        x_t = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        time = torch.tensor([t])
        shift = x_t - schedule.alpha_bar[t].sqrt() * data.mean
        gain = torch.from_numpy(dense_gain(data, schedule, t))
        x_0 = data.mean + (shift.flatten(1) @ gain.T).reshape(x_t.shape)
        expected = {
            "x0": x_0,
            "eps": eps_from_x_0(schedule, x_t, time, x_0),
            "mu": q_posterior_mean(schedule, x_0, x_t, time),
        }
        for prediction, value in expected.items():
            network = data.network(schedule, prediction)
            # eps divides the rounding of x_0 by sqrt(1 - alpha_bar) = 0.01 at t = 1
            torch.testing.assert_close(network(x_t, time - 1), value, rtol=1e-10, atol=1e-11)
            single = network(x_t.float(), time - 1)
            assert single.dtype == torch.float32
            torch.testing.assert_close(single.double(), value, rtol=1e-4, atol=1e-4)


def test_denoiser_takes_a_time_per_image():
    data, t = gaussian(), torch.tensor([3, 0, 11])
    network = data.network(SMALL, "eps")
    x = images(3)
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(x, t), alone)


def test_a_denoiser_serves_respaced_chains_and_knows_no_other_times():
    data, x = gaussian(), images(2)
    chain = SMALL.respaced([2, 5, 12])
    for prediction in ("eps", "x0"):
        for time in chain.network_time[1:]:
            full, own = (data.network(s, prediction)(x, time[None]) for s in (SMALL, chain))
            torch.testing.assert_close(full, own)
    assert data.network(chain, "eps")(x, torch.tensor([2])).isnan().all()


# The bound of given images


def cubature(dimensions):
    """Return points and their equal weight, exact for polynomials of degree three over N(0, I)."""
    points = math.sqrt(dimensions) * torch.cat([torch.eye(dimensions), -torch.eye(dimensions)]).double()
    return points, 1 / (2 * dimensions)


@pytest.mark.parametrize("variance", ["fixed-large", "fixed-small"])
@pytest.mark.parametrize("prediction", ["eps", "x0", "mu"])
@pytest.mark.parametrize("steps", [None, [2, 5, 12]], ids=["full", "respaced"])
def test_expected_divergences_and_errors_are_those_of_the_production_code(variance, prediction, steps):
    # both are quadratic in the noise, so that cubature of degree three is exact: no sampling error
    data, x = gaussian(), images(3)
    schedule = SMALL if steps is None else SMALL.respaced(steps)
    exact = data.expected_terms(schedule, schedule.fixed_variance(variance), x)
    process = process_of(data, schedule, prediction, variance)
    points, weight = cubature(12)
    for i, t in itertools.product(range(3), range(2, schedule.timesteps + 1)):
        time = torch.tensor([t])
        x_0 = x[i : i + 1].expand(len(points), -1, -1, -1)
        x_t = q_sample(schedule, x_0, time, points.reshape(x_0.shape))
        step = process(x_t, time)
        terms = bound_term(schedule, step, x_0, x_t, time.expand(len(points)))
        assert float(terms.sum()) * weight == pytest.approx(float(exact.terms[i, t - 1]), rel=1e-9)
        error = float((step.x_0_hat - x_0).square().mean((1, 2, 3)).sum()) * weight
        assert error == pytest.approx(float(exact.x_0_squared_error[i, t - 1]), rel=1e-9)
    torch.testing.assert_close(exact.prior, prior_kl(schedule, x), rtol=1e-9, atol=0)


@pytest.mark.parametrize("schedule", [SMALL, PAPER], ids=["T=12", "T=1000"])
def test_expected_decoder_term_is_that_of_the_production_code(schedule):
    # two pixels: the production code at t = 1, integrated over both noises by a product Gauss-Hermite rule
    # of 80 x 80 nodes
    data = gaussian((1, 1, 2))
    x = torch.tensor([[0, 255], [100, 110], [255, 254], [3, 128]]).reshape(4, 1, 1, 2) / 127.5 - 1.0
    x = x.double()
    exact = data.expected_terms(schedule, schedule.fixed_variance("fixed-large"), x)
    nodes, weights = special.roots_hermitenorm(80)
    noise = torch.from_numpy(np.array(list(itertools.product(nodes, nodes)))).reshape(-1, 1, 1, 2)
    weight = torch.from_numpy(np.outer(weights, weights).ravel()) / weights.sum() ** 2
    process, time = process_of(data, schedule, "eps"), torch.tensor([1])
    for i in range(4):
        x_0 = x[i : i + 1].expand(len(noise), -1, -1, -1)
        x_1 = q_sample(schedule, x_0, time, noise)
        terms = bound_term(schedule, process(x_1, time), x_0, x_1, time.expand(len(noise)))
        # the expectation is precise to 1e-9 nats per element; 1 - alpha_bar_1 = 1e-4 to 1e-12 of itself
        assert float((weight * terms).sum()) == pytest.approx(float(exact.terms[i, 0]), rel=1e-11, abs=2e-9)


def test_expected_decoder_term_matches_adaptive_integration():
    data, x = gaussian(), images(2)
    exact = data.expected_terms(PAPER, PAPER.fixed_variance("fixed-large"), x).terms[:, 0]
    gain, a = dense_gain(data, PAPER, 1), float(PAPER.alpha_bar[1])
    log_variance = PAPER.fixed_variance("fixed-large")[1].log()
    spread = np.sqrt((1 - a) * (gain**2).sum(1))
    for i in range(2):
        flat, mean = x[i].flatten(), data.mean.flatten()
        centre = mean.numpy() + math.sqrt(a) * gain @ (flat - mean).numpy()
        total = 0.0
        for x_0, c, s in zip(flat, centre, spread, strict=True):

            def integrand(g, x_0=x_0, c=c, s=s):
                nll = decoder_nll(x_0, torch.tensor(c + s * g, dtype=torch.float64), log_variance)
                return float(nll) * math.exp(-g * g / 2) / math.sqrt(2 * math.pi)

            total += integrate.quad(integrand, -12, 12, epsabs=1e-11, epsrel=1e-11, limit=200)[0]
        assert total == pytest.approx(float(exact[i]), abs=12e-9)


def test_a_decoder_too_narrow_for_the_quadrature_is_refused():
    variance = SMALL.fixed_variance("fixed-large")
    variance[1] = 1e-14
    with pytest.raises(ValueError, match="too narrow"):
        gaussian().expected_terms(SMALL, variance, images(1))


# The bound over the data


def test_expected_divergences_over_the_data_average_those_of_images():
    # quadratic in x_0 as well: average the images of a cubature over the data
    data = gaussian()
    variance = SMALL.fixed_variance("fixed-large")
    points, weight = cubature(12)
    x = data.mean + ((points * data.eigenvalues.sqrt()) @ data.basis.T).reshape(-1, 3, 2, 2)
    by_image, exact = data.expected_terms(SMALL, variance, x), data.expected_bound(SMALL, variance)
    torch.testing.assert_close(by_image.terms[:, 1:].sum(0) * weight, exact.terms[0, 1:], rtol=1e-10, atol=0)
    torch.testing.assert_close(
        by_image.x_0_squared_error.sum(0) * weight, exact.x_0_squared_error[0], rtol=1e-10, atol=0
    )
    torch.testing.assert_close(by_image.prior.sum()[None] * weight, exact.prior, rtol=1e-10, atol=0)


def test_expected_error_is_the_trace_of_the_posterior_covariance():
    data = gaussian()
    exact = data.expected_bound(SMALL, SMALL.fixed_variance("fixed-large")).x_0_squared_error[0]
    for t in range(1, 13):
        a = float(SMALL.alpha_bar[t])
        covariance = data.covariance.numpy()
        posterior = covariance - math.sqrt(a) * dense_gain(data, SMALL, t) @ covariance
        assert float(exact[t - 1]) == pytest.approx(np.trace(posterior) / 12, rel=1e-9)


@pytest.mark.parametrize(("mean", "deviation"), [(0.1, 0.05), (0.9, 0.4), (-2.0, 1.0), (0.995, 0.01)])
def test_expected_decoder_term_over_one_pixel_matches_adaptive_integration(mean, deviation):
    data = one_pixel(mean, deviation)
    variance = PAPER.fixed_variance("fixed-large")
    exact = float(data.expected_bound(PAPER, variance).terms[0, 0])
    nodes, weights = special.roots_hermitenorm(80)
    noise = torch.from_numpy(nodes).reshape(-1, 1, 1, 1)
    process, time = process_of(data, PAPER, "x0"), torch.tensor([1])

    def integrand(z):
        x_0 = torch.full_like(noise, mean + deviation * z)
        x_1 = q_sample(PAPER, x_0, time, noise)
        terms = bound_term(PAPER, process(x_1, time), x_0, x_1, time.expand(80)).numpy()
        return float(weights @ terms) / weights.sum() * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    edges = [(s * (1 - 1 / 255) - mean) / deviation for s in (-1, 1)]  # where the kind of bin changes
    cuts = [-9.0, *(e for e in edges if abs(e) < 9), 9.0]
    found = sum(
        integrate.quad(integrand, a, b, epsabs=1e-10, epsrel=1e-10)[0] for a, b in itertools.pairwise(cuts)
    )
    assert found == pytest.approx(exact, abs=2e-9)  # the mass beyond 9 deviations is 1e-19


def test_expected_decoder_term_over_correlated_pixels_averages_that_of_continuous_images():
    data = gaussian((1, 1, 2), scale=0.5, seed=3)
    variance = PAPER.fixed_variance("fixed-large")
    x = data.draw(0, torch.arange(40_000))
    by_image = data.expected_terms(PAPER, variance, x).terms[:, 0]
    error = float(by_image.std()) / math.sqrt(len(x))
    exact = float(data.expected_bound(PAPER, variance).terms[0, 0])
    assert error < 0.01 * exact
    assert abs(float(by_image.mean()) - exact) < 4 * error


def test_constant_elements_are_the_limit_of_nearly_constant_ones():
    full = gaussian()
    mask = torch.ones(12, dtype=torch.float64)
    mask[[0, 5, 11]] = 0.0  # as the corners of digits
    mean = full.mean.clone()
    mean.view(-1)[:6] = -1.0
    variance, x = SMALL.fixed_variance("fixed-large"), images(2)
    exact, near = (
        Gaussian.from_moments(mean, full.covariance * mask * mask[:, None] + extra * torch.diag(1 - mask))
        for extra in (0.0, 1e-13)
    )
    assert (exact.covariance.diagonal()[[0, 5, 11]].abs() < 1e-16).all()
    for method in ("expected_bound", "expected_terms"):
        arguments = (SMALL, variance) if method == "expected_bound" else (SMALL, variance, x)
        a, b = getattr(exact, method)(*arguments), getattr(near, method)(*arguments)
        assert torch.isfinite(a.terms).all()
        torch.testing.assert_close(a.terms, b.terms, rtol=1e-6, atol=1e-6)


def test_optimal_variance_minimises_every_divergence():
    data = gaussian()
    best = data.optimal_variance(SMALL)
    terms = data.expected_bound(SMALL, best).terms[0, 1:]
    for factor in (0.99, 1.01):
        assert (data.expected_bound(SMALL, best * factor).terms[0, 1:] > terms).all()
    for name in ("fixed-large", "fixed-small"):
        assert (data.expected_bound(SMALL, SMALL.fixed_variance(name)).terms[0, 1:] >= terms).all()


# Its own likelihood


def test_dequantised_nll_is_the_mean_negative_log_density_over_the_bin():
    data, x = gaussian(), images(1)
    covariance = data.covariance.numpy() + (2 / 255) ** 2 / 12 * np.eye(12)
    law = stats.multivariate_normal(data.mean.flatten().numpy(), covariance)
    rng = np.random.default_rng(0)
    u = rng.uniform(-1 / 255, 1 / 255, (20_000, 12))
    nll = -law.logpdf(x.flatten().numpy() + u) - 12 * math.log(2 / 255)
    assert abs(nll.mean() - float(data.dequantised_nll(x))) < 4 * nll.std() / math.sqrt(len(u))


def test_dequantised_nll_of_the_fitted_images_is_the_entropy_of_the_gaussian():
    x = images(40, (1, 2, 2))
    data = Gaussian.fit([x])
    covariance = data.covariance.numpy() + (2 / 255) ** 2 / 12 * np.eye(4)
    entropy = stats.multivariate_normal(np.zeros(4), covariance).entropy() - 4 * math.log(2 / 255)
    assert float(data.dequantised_nll(x).mean()) == pytest.approx(entropy, rel=1e-12)


def test_dequantised_nll_bounds_the_bins_probability_from_above():
    deviation = math.sqrt(0.1**2 + (2 / 255) ** 2 / 12)
    data = Gaussian.from_moments(torch.zeros(1, 1, 1), torch.full((1, 1), 0.01))
    x = torch.arange(40, 216).double().reshape(-1, 1, 1, 1) / 127.5 - 1
    flat = x.flatten().numpy()
    exact = -np.log(
        stats.norm.cdf((flat + 1 / 255) / deviation) - stats.norm.cdf((flat - 1 / 255) / deviation)
    )
    gap = data.dequantised_nll(x).numpy() - exact
    # Jensen's gap is half the variance of the log density over the bin, to leading order
    # (x / sigma^2)^2 (2/255)^2 / 24
    leading = (flat / deviation**2 * (2 / 255)) ** 2 / 24
    assert (gap > -1e-12).all()
    np.testing.assert_allclose(gap, leading, rtol=0.05, atol=1e-5)


# The sampler


@pytest.mark.parametrize("prediction", ["eps", "x0", "mu"])
@pytest.mark.parametrize("variance", ["fixed-large", "fixed-small"])
def test_sampler_output_follows_from_the_affine_steps_of_the_production_code(prediction, variance):
    data = gaussian((1, 2, 2))
    process = process_of(data, SMALL, prediction, variance)
    mean, covariance = np.zeros(4), np.eye(4)
    for t in range(12, 0, -1):
        probe = torch.cat([torch.zeros(1, 4), torch.eye(4)]).double().reshape(5, 1, 2, 2)
        value = process(probe, torch.tensor([t])).mean.flatten(1).numpy()
        matrix = (value[1:] - value[0]).T
        mean = value[0] + matrix @ mean
        covariance = matrix @ covariance @ matrix.T + (float(process.variance[t]) if t > 1 else 0) * np.eye(4)
    output = data.sampler_output(SMALL, SMALL.fixed_variance(variance))
    np.testing.assert_allclose(output.mean.flatten(), mean, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(output.covariance, covariance, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_ddim_output_follows_from_the_affine_steps_of_the_production_code(eta):
    data = gaussian((1, 2, 2))
    sampler = DDIMSampler(process_of(data, SMALL, "eps"), seed=0, eta=eta)
    mean, covariance = np.zeros(4), np.eye(4)
    ids = torch.zeros(5, dtype=torch.int64)  # one id, so that all probes share their noise
    for t in range(12, 0, -1):
        probe = torch.cat([torch.zeros(1, 4), torch.eye(4)]).double().reshape(5, 1, 2, 2)
        time = torch.tensor([t])
        value = sampler.step(sampler.process(probe, time), probe, time, ids).flatten(1).numpy()
        sigma = eta * math.sqrt(float(SMALL.beta_tilde[t]))
        noise = normal(0, Stream.SAMPLE, ids[:1], time, (4,), torch.float64)[0].numpy()
        matrix = (value[1:] - value[0]).T
        mean = value[0] - sigma * noise + matrix @ mean
        covariance = matrix @ covariance @ matrix.T + sigma**2 * np.eye(4)
    output = data.ddim_output(SMALL, eta)
    np.testing.assert_allclose(output.mean.flatten(), mean, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(output.covariance, covariance, rtol=1e-9, atol=1e-11)


def test_the_sampler_approaches_the_data_as_steps_are_added():
    data = gaussian()
    distances = [
        frechet_distance(data, data.sampler_output(chain, chain.fixed_variance("fixed-small")))
        for chain in (PAPER.respaced(evenly_spaced(1000, n)) for n in (10, 50, 250, 1000))
    ]
    assert all(a > 2 * b for a, b in itertools.pairwise(distances))
    assert distances[-1] < 1e-3 * float(data.eigenvalues.sum())


# The Frechet distance


def test_frechet_distance_matches_the_matrix_square_root():
    a, b = gaussian(seed=1), gaussian(seed=2)
    root = linalg.sqrtm(a.covariance.numpy() @ b.covariance.numpy()).real
    expected = float((a.mean - b.mean).square().sum()) + np.trace(
        a.covariance.numpy() + b.covariance.numpy() - 2 * root
    )
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-13)


def test_frechet_distance_of_commuting_and_singular_covariances():
    data = gaussian()
    other = Gaussian(data.mean + 0.1, torch.linspace(0, 2, 12, dtype=torch.float64), data.basis)
    expected = 12 * 0.01 + float((data.eigenvalues.sqrt() - other.eigenvalues.sqrt()).square().sum())
    assert frechet_distance(data, other) == pytest.approx(expected, rel=1e-12)
    point = Gaussian(data.mean, torch.zeros(12, dtype=torch.float64), torch.eye(12, dtype=torch.float64))
    assert frechet_distance(data, point) == pytest.approx(float(data.eigenvalues.sum()), rel=1e-12)


# Real data


@pytest.mark.slow
def test_a_gaussian_fitted_to_cifar10(cifar10_npz):
    with np.load(cifar10_npz) as stored:
        levels = torch.from_numpy(stored["x_test"][:4000])
    x = to_model_range(levels).double()
    data = Gaussian.fit(x.split(500))
    np.testing.assert_allclose(data.mean, x.mean(0), atol=1e-12)
    # on the images that it was fitted to, the dequantised likelihood is the Gaussian's own entropy
    log_determinant = torch.log(2 * torch.pi * (data.eigenvalues + (2 / 255) ** 2 / 12)).sum()
    entropy = 0.5 * (float(log_determinant) + 3072) - 3072 * math.log(2 / 255)
    assert float(data.dequantised_nll(x).mean()) == pytest.approx(entropy, rel=1e-9)
    assert 4 < entropy / (3072 * math.log(2)) < 6
    # production terms of 8 images at a few times, against their expectations: one draw of 3072 elements is
    # precise
    images_8 = x[:8]
    process = process_of(data, PAPER, "eps")
    exact = data.expected_terms(PAPER, PAPER.fixed_variance("fixed-large"), images_8)
    for t in (1, 2, 10, 100, 1000):
        time = torch.tensor([t])
        noise = torch.randn(images_8.shape, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        x_t = q_sample(PAPER, images_8, time, noise)
        terms = bound_term(PAPER, process(x_t, time), images_8, x_t, time.expand(8))
        # relative spread of a sum of 3072 squares: sqrt(2 / 3072) = 2.6%, of the mean of eight images 0.9%
        torch.testing.assert_close(terms.mean(), exact.terms[:, t - 1].mean(), rtol=0.04, atol=0)
