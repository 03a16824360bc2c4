"""Image k is a function of (seed, k), and with an exact denoiser the samples have the chain's exact law.

The exact denoiser is that of a Gaussian (`ddpm_eval.model.gaussian`), for which the output of every sampler
is a Gaussian in closed form.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from ddpm_eval.model.diffusion import ReverseProcess, make_schedule, q_sample
from ddpm_eval.model.gaussian import Gaussian
from ddpm_eval.model.respacing import evenly_spaced
from ddpm_eval.model.samplers import (
    AncestralSampler,
    DDIMSampler,
    Sampler,
    draw,
    interpolate,
    make_sampler,
    share_latent,
    trajectory,
)
from ddpm_eval.randomness import Stream, normal
from ddpm_eval.spec import DiffusionSpec

SHAPE = (1, 2, 2)
N = 20_000
NOISY_SAMPLERS = {"ancestral": AncestralSampler, "ddim": partial(DDIMSampler, eta=0.5)}


def schedule(timesteps=12, end=0.6):
    return make_schedule(DiffusionSpec(timesteps=timesteps, beta_start=1e-3, beta_end=end))


def gaussian():
    """Four correlated pixels with standard deviations from 0.02 to 0.9, off centre."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    covariance = (basis * np.array([0.02, 0.1, 0.4, 0.9]) ** 2) @ basis.T
    return Gaussian.from_moments(torch.tensor([[[0.3, -0.2], [0.0, 0.5]]]), torch.from_numpy(covariance))


def process(chain=None, variance="fixed-large", prediction="eps", network=None):
    chain = chain or schedule()
    network = network or gaussian().network(chain, prediction)
    return ReverseProcess(network, chain, prediction, chain.fixed_variance(variance), clip=False)


def elementwise(x, timestep):
    """A network of exact operations on each element: its rows cannot depend on the rest of their batch."""
    return 0.5 * x + 0.25 * (timestep % 2).reshape(-1, 1, 1, 1)


def run_all(sampler, n=N):
    ids = torch.arange(n)
    return sampler.run(sampler.start(ids, SHAPE, torch.float64), ids)


def p_value(x, law):
    """Return the p-value of samples ``[n, ...]`` under a Gaussian law, with Bonferroni's correction.

    Whitened by the law, its samples are independent standard normals. Kolmogorov-Smirnov tests of the
    coordinates and of the squared lengths, which are chi-square, and the correlations, whose squares times n
    are chi-square together, show a wrong mean, scale or correlation.
    """
    white = ((x.double() - law.mean).flatten(1) @ law.basis / law.eigenvalues.sqrt()).numpy()
    coordinates = stats.kstest(white.ravel(), "norm").pvalue
    lengths = stats.kstest((white**2).sum(1), stats.chi2(white.shape[1]).cdf).pvalue
    correlation = np.corrcoef(white.T)[np.triu_indices(white.shape[1], 1)]
    together = stats.chi2.sf(len(white) * (correlation**2).sum(), len(correlation))
    return min(1.0, 3 * min(coordinates, lengths, together))


# What an image depends on


@pytest.mark.parametrize("make", NOISY_SAMPLERS.values(), ids=NOISY_SAMPLERS)
def test_an_image_depends_on_seed_and_number_only(make):
    sampler = make(process(network=elementwise), seed=5)
    whole = draw(sampler, torch.arange(11), SHAPE)
    assert torch.equal(draw(sampler, torch.tensor([3, 10]), SHAPE), whole[[3, 10]])
    assert torch.equal(draw(sampler, torch.arange(11).flip(0), SHAPE), whole.flip(0))
    assert torch.equal(torch.cat([draw(sampler, ids, SHAPE) for ids in torch.arange(11).split(4)]), whole)
    assert len({tuple(image.flatten().tolist()) for image in whole}) == 11
    other = draw(make(sampler.process, seed=6), torch.arange(11), SHAPE)
    assert not (other == whole).flatten(1).all(1).any()


def test_each_step_has_noise_of_its_own():
    """The noises of an image over the steps, and its start, are independent: none is drawn twice."""
    sampler = AncestralSampler(process(network=elementwise), seed=1)
    ids = torch.arange(2000)
    noises = [sampler.start(ids, SHAPE, torch.float64)]
    for t in range(2, 13):
        noises.append(sampler.noise(ids, torch.tensor([t]), noises[0]))
    flat = torch.stack(noises).flatten(1)
    correlation = torch.corrcoef(flat) - torch.eye(len(flat))
    assert correlation.abs().max() < 4.5 / math.sqrt(flat.shape[1])


def test_a_respaced_chain_draws_the_full_chains_noise_at_its_steps():
    full, times = schedule(), evenly_spaced(12, 4)
    short = AncestralSampler(process(full.respaced(times), network=elementwise), seed=1)
    whole = AncestralSampler(process(full, network=elementwise), seed=1)
    assert (short.num_steps, whole.num_steps) == (4, 12)
    ids = torch.arange(3)
    like = whole.start(ids, SHAPE)
    for k, t in enumerate(times, start=1):
        assert torch.equal(
            short.noise(ids, torch.tensor([k]), like), whole.noise(ids, torch.tensor([t]), like)
        )


# The choice by name


def test_samplers_are_made_by_name():
    p = process()
    assert make_sampler(p, 7, "ancestral") == AncestralSampler(p, 7)
    assert make_sampler(p, 7, "ddim") == DDIMSampler(p, 7, eta=0.0)
    with pytest.raises(ValueError, match=r"no sampler 'euler' \(the samplers are ancestral, ddim\)"):
        make_sampler(p, 7, "euler")


def test_a_sampler_needs_a_step():
    with pytest.raises(TypeError, match="abstract"):
        Sampler(process(), 7)


# Ancestral sampling


@pytest.mark.parametrize("variance", ["fixed-large", "fixed-small"])
@pytest.mark.parametrize("prediction", ["eps", "x0", "mu"])
def test_ancestral_samples_of_a_gaussian_have_the_closed_form_law(variance, prediction):
    chain = schedule()
    law = gaussian().sampler_output(chain, chain.fixed_variance(variance))
    x = run_all(AncestralSampler(process(chain, variance, prediction), seed=11))
    assert p_value(x, law) > 0.001
    # a mean has the standard error sqrt(variance / n), a covariance sqrt((s_ii s_jj + s_ij^2) / n)
    flat, exact = x.flatten(1), law.covariance
    assert ((flat.mean(0) - law.mean.flatten()).abs() < 4.5 * (exact.diag() / N).sqrt()).all()
    spread = ((torch.outer(exact.diag(), exact.diag()) + exact**2) / N).sqrt()
    assert ((torch.cov(flat.T) - exact).abs() < 4.5 * spread).all()


def test_the_test_of_the_law_would_see_noise_at_the_last_step_or_another_variance():
    chain = schedule()
    noisy = chain.fixed_variance("fixed-large").clone()
    law = gaussian().sampler_output(chain, noisy)
    x = run_all(AncestralSampler(process(chain, "fixed-large"), seed=11))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    assert p_value(x + noisy[1].sqrt() * noise, law) < 1e-6
    assert p_value(run_all(AncestralSampler(process(chain, "fixed-small"), seed=11)), law) < 1e-6


def test_a_respaced_chain_has_its_own_closed_form_law():
    short = schedule(100, 0.1).respaced(evenly_spaced(100, 9))
    law = gaussian().sampler_output(short, short.fixed_variance("fixed-small"))
    assert p_value(run_all(AncestralSampler(process(short, "fixed-small"), seed=2)), law) > 0.001


def test_the_last_step_is_the_mean_without_noise():
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, ids = process(), torch.arange(5)
    step = p(x, torch.tensor([1]))
    ancestral = [AncestralSampler(p, seed).run(x, ids, first=1) for seed in (0, 1)]
    ddim = [DDIMSampler(p, seed, eta=1.0).run(x, ids, first=1) for seed in (0, 1)]
    assert torch.equal(*ancestral)
    assert torch.equal(*ddim)
    torch.testing.assert_close(ddim[0], step.x_0_hat)  # the last step of DDIM is its estimate
    assert torch.equal(ancestral[0], step.mean)
    before = [AncestralSampler(p, seed).run(x, ids, first=2) for seed in (0, 1)]
    assert not torch.equal(*before)


def test_a_step_is_its_mean_plus_its_deviation_times_the_noise():
    p, ids, t = process(variance="fixed-large"), torch.arange(3), torch.tensor([7])
    x = torch.ones(3, *SHAPE, dtype=torch.float64)
    noise = normal(4, Stream.SAMPLE, ids, t, SHAPE, torch.float64)
    expected = p(x, t).mean + schedule().beta[7].sqrt() * noise
    found = AncestralSampler(p, 4).step(p(x, t), x, t, ids)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


# DDIM


def test_ddim_without_noise_is_the_affine_map_of_its_start():
    """Each eigenvector's coordinate is stretched by the law's deviation, whatever the seed of the steps."""
    chain, ids = schedule(), torch.arange(50)
    law = gaussian().ddim_output(chain)
    sampler = DDIMSampler(process(chain), seed=3)
    start = sampler.start(ids, SHAPE, torch.float64)
    x = sampler.run(start, ids)
    expected = (start.flatten(1) @ law.basis * law.eigenvalues.sqrt()) @ law.basis.T + law.mean.flatten()
    torch.testing.assert_close(x.flatten(1), expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(DDIMSampler(process(chain), seed=99).run(start, ids), x)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_samples_have_the_closed_form_law(eta):
    chain = schedule()
    x = run_all(DDIMSampler(process(chain), seed=12, eta=eta))
    assert p_value(x, gaussian().ddim_output(chain, eta)) > 0.001


def test_ddim_with_full_noise_is_ancestral_sampling_with_the_small_variance():
    """Song et al. 2021, section 4.1, holds path by path; at t = 1 both steps are the estimate of x_0."""
    chain, ids = schedule(), torch.arange(20)
    ancestral_sampler = AncestralSampler(process(chain, "fixed-small"), 3)
    start = ancestral_sampler.start(ids, SHAPE, torch.float64)
    ancestral = ancestral_sampler.run(start, ids)
    ddim = DDIMSampler(process(chain), 3, eta=1.0).run(start, ids)
    torch.testing.assert_close(ddim, ancestral, rtol=1e-9, atol=1e-9)


def test_with_many_steps_ddim_maps_noise_to_the_data():
    """With 1000 steps the law's deviations are the data's to 3%, and 2,000 samples cannot be told from data.

    The error falls as 1 / T and is largest for the narrowest direction, whose width is here as that of the
    last steps' noise.
    """
    chain = make_schedule(DiffusionSpec(timesteps=1000, beta_start=1e-5, beta_end=0.02))
    data = gaussian()
    data = Gaussian(data.mean, data.eigenvalues.clamp(min=0.05**2), data.basis)
    law = data.ddim_output(chain)
    assert ((law.eigenvalues / data.eigenvalues).sqrt() - 1).abs().max() < 0.03
    sampler = DDIMSampler(process(chain, network=data.network(chain, "eps")), seed=8)
    assert p_value(run_all(sampler, 2000), data) > 0.001


# Trajectories


def test_a_trajectory_holds_the_estimates_at_its_times_and_ends_in_the_sample():
    sampler = AncestralSampler(process(), seed=2)
    ids, times = torch.arange(4), [12, 7, 1]
    estimates, x_0 = trajectory(sampler, ids, SHAPE, times)
    assert torch.equal(x_0, draw(sampler, ids, SHAPE))
    x = sampler.start(ids, SHAPE)
    for t in range(12, 0, -1):
        step = sampler.process(x, torch.tensor([t]))
        if t in times:
            assert torch.equal(estimates[times.index(t)], step.x_0_hat)
        x = sampler.step(step, x, torch.tensor([t]), ids)
    # the mean of the last step is its estimate
    torch.testing.assert_close(estimates[-1], x_0, rtol=1e-4, atol=1e-5)


# Interpolation


class Recorder:
    """A network that records the 0-based times at which it is evaluated."""

    def __init__(self, network):
        self.network, self.times = network, []

    def __call__(self, x, timestep):
        self.times.append(int(timestep[0]))
        return self.network(x, timestep)


def pair(n=3):
    source, target = gaussian().draw(1, torch.arange(n)), gaussian().draw(2, torch.arange(n))
    return source, target


@pytest.mark.parametrize("method", ["ancestral", "ddim"])
@pytest.mark.parametrize("t", [1, 2, 7, 12])
def test_the_ends_of_an_interpolation_are_the_decoded_encodings(method, t):
    source, target = pair()
    sampler = make_sampler(process(), 4, method)
    found = interpolate(sampler, source, target, [t], [0.0, 0.3, 1.0], 3)[t]  # a mixture at a time
    ids, time = torch.arange(3), torch.tensor([t])
    noise = normal(4, Stream.INTERPOLATE, ids, time, SHAPE, torch.float64)
    encoded = [q_sample(schedule(), x, time, noise) for x in (source, target)]
    for image, latent in zip(found[[0, 2]], encoded, strict=True):
        assert torch.equal(image, sampler.run(latent, ids, first=t))
    mixed = sampler.run(0.7 * encoded[0] + 0.3 * encoded[1], ids, first=t)
    torch.testing.assert_close(found[1], mixed, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("t", [1, 5, 12])
def test_decoding_starts_at_the_very_time_of_the_encoding(t):
    """The published code decodes one step late, first at the 0-based time t - 2 instead of t - 1."""
    network = Recorder(elementwise)
    interpolate(AncestralSampler(process(network=network), 4), *pair(), [t], [0.5], 3)
    assert network.times == list(range(t - 1, -1, -1))


def test_reconstructions_have_the_law_of_the_chain_and_one_step_late_would_not():
    """Data that are encoded at t = 4 and decoded have the law of affine steps from that of x_4.

    Decoding x_4 as if it were x_3 leaves too much noise in.
    """
    data, t = gaussian(), 4
    sampler = AncestralSampler(process(variance="fixed-small"), 9)
    x_0 = data.draw(3, torch.arange(N))
    decoded = interpolate(sampler, x_0, x_0, [t], [0.0], N)[t][0]
    assert p_value(decoded, chain_law(data, t, t)) > 0.001
    noise = normal(9, Stream.INTERPOLATE, torch.arange(N), torch.tensor([t]), SHAPE, torch.float64)
    late = sampler.run(q_sample(schedule(), x_0, torch.tensor([t]), noise), torch.arange(N), first=t - 1)
    assert p_value(late, chain_law(data, t, t)) < 1e-6
    assert p_value(late, chain_law(data, t, t - 1)) > 0.001


def chain_law(data, encoded, first):
    """Return the law of data diffused to ``encoded`` and decoded from ``first`` with the variance of q."""
    chain, eigenvalues = schedule(), data.eigenvalues
    alpha_bar, centre = chain.alpha_bar, data.mean.flatten() @ data.basis
    mean = alpha_bar[encoded].sqrt() * centre
    spread = alpha_bar[encoded] * eigenvalues + 1 - alpha_bar[encoded]
    for t in range(first, 0, -1):
        a, previous, beta = alpha_bar[t], alpha_bar[t - 1], chain.beta[t]
        weight_x_0 = previous.sqrt() * beta / (1 - a)
        weight_x_t = (1 - beta).sqrt() * (1 - previous) / (1 - a)
        # x0_hat = centre + gain (x_t - sqrt(a) centre)
        gain = a.sqrt() * eigenvalues / (a * eigenvalues + 1 - a)
        mean = weight_x_0 * (centre + gain * (mean - a.sqrt() * centre)) + weight_x_t * mean
        spread = (weight_x_0 * gain + weight_x_t) ** 2 * spread + beta * (1 - previous) / (1 - a)
    return Gaussian((data.basis @ mean).reshape(SHAPE), spread, data.basis)


def test_all_mixtures_of_a_pair_are_decoded_with_the_same_noise():
    source, _ = pair()
    sampler = AncestralSampler(process(network=elementwise), 4)
    found = interpolate(sampler, source, source, [9], [0.0, 0.4, 1.0], 9)[9]
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_several_times_at_once_are_what_each_is_alone(batch_size):
    sampler = AncestralSampler(process(), 4)
    weights = [0.0, 0.3, 1.0]
    found = interpolate(sampler, *pair(), [3, 12, 7], weights, batch_size)
    assert set(found) == {3, 7, 12}
    for t, mixed in found.items():
        alone = interpolate(sampler, *pair(), [t], weights, 9)[t]
        torch.testing.assert_close(mixed, alone, rtol=1e-12, atol=1e-12)


# Shared latents


def test_samples_that_share_x_t_part_from_the_chain_at_t():
    """x_t is that of the sample's own chain, and sample j has the same noise at all times."""
    sampler, ids, times = AncestralSampler(process(), 2), torch.arange(2), [12, 7, 3]
    latents, drawn = share_latent(sampler, ids, SHAPE, times, 3, batch_size=100)
    assert list(latents) == times and set(drawn) == set(times)
    assert torch.equal(latents[12], sampler.start(ids, SHAPE))
    torch.testing.assert_close(sampler.run(latents[3], ids, first=3), draw(sampler, ids, SHAPE))
    others = torch.arange(2, 8).reshape(2, 3)
    for t in times:
        assert drawn[t].shape == (2, 3, *SHAPE)
        for chain, sample in [(0, 0), (0, 2), (1, 1)]:
            x = sampler.run(latents[t][chain : chain + 1], others[chain, sample : sample + 1], first=t)
            torch.testing.assert_close(drawn[t][chain, sample], x[0])


def test_samples_of_one_x_t_are_the_closer_the_later_they_part():
    """The spread of x_0 given x_t grows with t."""
    sampler = AncestralSampler(process(), 2)
    _, drawn = share_latent(sampler, torch.arange(20), SHAPE, [12, 7, 3], 4, batch_size=1000)
    spread = [drawn[t].std(dim=1).mean() for t in (3, 7, 12)]
    assert spread[0] < 0.8 * spread[1] < 0.8 * spread[2]
