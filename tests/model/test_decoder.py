"""The decoder's 256 probabilities and gradients: sums, entropies, numerical integration and differences."""

import math

import literal_bound as literal
import numpy as np
import pytest
import torch

from ddpm_eval.model.decoder import decoder_nll
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.spec import DiffusionSpec

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1
PAPER = make_schedule(DiffusionSpec())
BITS = math.log(2)


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("decoder", ["exact", "tanh"])
@pytest.mark.parametrize("mean", [-3.0, -1.0, -0.999, 0.0, 0.123, 0.997, 1.0, 2.5])
@pytest.mark.parametrize("sigma", [1e-4, 0.00739, 0.1, 1.0, 30.0])
def test_the_decoders_256_bins_sum_to_one(decoder, mean, sigma):
    means = torch.full_like(LEVELS, mean)
    nll = decoder_nll(LEVELS, means, torch.tensor(2 * math.log(sigma), dtype=torch.float64), decoder)
    # exact: 256 relative errors of a few 1e-16, and edges of neighbours that differ by 1e-16 / sigma;
    # tanh: the sum telescopes, but each probability is raised to at least 1e-12
    tolerance = 1e-12 if decoder == "exact" else 256e-12 + 1e-12
    assert float(torch.exp(-nll).sum()) == pytest.approx(1.0, abs=tolerance)


def test_a_quantised_gaussian_of_the_decoders_width_has_entropy_2_02_bits():
    # averaged over means anywhere within a level, far from the outer bins
    offsets = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64)[:-1, None] / 127.5
    log_variance = PAPER.fixed_variance("fixed-large")[1].log()
    nll = decoder_nll(LEVELS.expand(100, -1), (LEVELS[128] + offsets).expand(-1, 256), log_variance)
    entropy = (torch.exp(-nll) * nll).sum(1) / BITS
    assert float(entropy.mean()) == pytest.approx(2.02, abs=5e-3)


@pytest.mark.parametrize("sigma", [0.002, 0.00739, 0.0397, 0.05, 0.5])
def test_exact_decoder_is_the_integral_of_the_density_even_in_the_far_tails(sigma):
    log_variance = torch.tensor(2 * math.log(sigma), dtype=torch.float64)
    for level in (0, 1, 100, 254, 255):
        for mean in (-8.0, -1.01, -0.5, -0.25, 0.0, 0.2, 0.996, 1.0, 6.0):
            expected = literal.decoder_nll(level, mean, sigma**2)
            found = decoder_nll(LEVELS[level], torch.tensor(mean, dtype=torch.float64), log_variance)
            # quadrature asks for 1e-12; edges at u = (x - mean) / sigma <= 4500 are rounded to 1e-16 u; the
            # value is u^2 / 2
            assert float(found) == pytest.approx(expected, rel=1e-11, abs=1e-11)


def test_tanh_decoder_is_the_authors_and_close_to_the_exact_one():
    mean = LEVELS + 0.01 * randn(256)
    log_variance = torch.tensor(-9.8, dtype=torch.float64)
    found = decoder_nll(LEVELS, mean, log_variance, "tanh")
    expected = [literal.tanh_decoder_nll(k, float(mean[k]), math.exp(-9.8)) for k in range(256)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    # the tanh CDF is within 3e-4 of the normal one (Choudhury 2014), a bin's mass within twice that
    exact = decoder_nll(LEVELS, mean, log_variance, "exact")
    gap = (torch.exp(-found) - torch.exp(-exact)).abs().max()
    assert 1e-6 < float(gap) < 6e-4
    far = decoder_nll(LEVELS[:1], LEVELS[128:129], log_variance, "tanh")
    assert float(far) == pytest.approx(-math.log(1e-12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_levels_0_and_255_have_open_bins(dtype):
    # a mean far outside costs nothing for the open bin alone
    for level, mean in ((0, -50.0), (255, 50.0)):
        nll = decoder_nll(
            LEVELS.to(dtype), torch.full((256,), mean, dtype=dtype), torch.tensor(0.0, dtype=dtype)
        )
        assert (nll < 1e-6).nonzero().tolist() == [[level]]


def decoder_gradients(x_0, mean, log_variance):
    mean, log_variance = mean.clone().requires_grad_(), log_variance.clone().requires_grad_()
    return torch.autograd.grad(decoder_nll(x_0, mean, log_variance).sum(), (mean, log_variance))


def decoder_cases(dtype=torch.float64):
    """Return every level with means near and far and log variances small and large.

    The shape is [log variance, mean, level].
    """
    offsets = torch.tensor(
        [-100.0, -3, -0.5, -0.05, -0.004, 0, 0.0039, 0.02, 0.3, 2, 50], dtype=torch.float64
    )
    log_variances = torch.tensor([-30.0, -20, -14, -9.8, -6, -2, 0, 4, 10, 30], dtype=torch.float64)
    shape = (len(log_variances), len(offsets), 256)
    mean, x_0 = (LEVELS + offsets[:, None]).expand(shape), LEVELS.expand(shape)
    return x_0.to(dtype), mean.to(dtype), log_variances[:, None, None].expand(shape).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decoder_and_its_gradient_are_finite_everywhere(dtype):
    cases = decoder_cases(dtype)
    assert torch.isfinite(decoder_nll(*cases)).all() and (decoder_nll(*cases) >= 0).all()
    assert all(torch.isfinite(gradient).all() for gradient in decoder_gradients(*cases))


def test_decoder_gradient_matches_numerical_differences():
    x_0, mean, log_variance = decoder_cases()
    for wanted, gradient in zip(
        (mean, log_variance), decoder_gradients(x_0, mean, log_variance), strict=True
    ):
        step = (3e-4 * (torch.exp(log_variance / 2) if wanted is mean else torch.ones_like(mean))).clamp(
            max=1e-2
        )
        up, down = (
            decoder_nll(x_0, mean + s, log_variance)
            if wanted is mean
            else decoder_nll(x_0, mean, log_variance + s)
            for s in (step, -step)
        )
        # central differences: rounding of the value (1e-15 of it) over the step, and the step's square times
        # the gradient's own scale; a mean of 100 also holds the step to 1e-14 only
        value = decoder_nll(x_0, mean, log_variance)
        noise = 4e-14 * (value + 1) / step + (gradient * 1e-13 * mean.abs() / step).abs()
        scale = (value + 1) / (torch.exp(log_variance / 2) if wanted is mean else 1)
        error = (gradient - (up - down) / (2 * step)).abs()
        assert (error <= noise + 1e-6 * scale).all(), float((error / (noise + 1e-6 * scale)).max())


def test_decoder_gradient_keeps_its_digits_in_single_precision():
    x_0, mean, log_variance = decoder_cases(torch.float32)
    single = decoder_gradients(x_0, mean, log_variance)
    double = decoder_gradients(x_0.double(), mean.double(), log_variance.double())
    # x_0 - mean is exact to 6e-8 of the larger; divided by sigma this moves the gradient by its own slope, at
    # most 1 per sigma
    sigma = torch.exp(log_variance.double() / 2)
    slack = 2e-7 * torch.maximum(x_0.abs(), mean.abs()) / sigma**2
    assert ((single[0] - double[0]).abs() <= slack + 3e-6 * (double[0].abs() + 1 / sigma)).all()


def test_decoder_passes_gradcheck():
    x_0 = LEVELS[[0, 0, 77, 78, 200, 255, 255]]
    mean = (x_0 + torch.tensor([-0.02, 0.03, 0.001, -0.04, 0.02, 0.01, -0.03])).requires_grad_()
    log_variance = torch.full((7,), -8.0, dtype=torch.float64).requires_grad_()
    for decoder in ("exact", "tanh"):  # the tanh decoder's floor is met by none of these

        def nll(mean, log_variance, decoder=decoder):
            return decoder_nll(x_0, mean, log_variance, decoder)

        assert torch.autograd.gradcheck(nll, (mean, log_variance), eps=1e-7, rtol=1e-4)
