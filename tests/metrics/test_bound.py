"""The bound: noise by (image, t) alone, evaluations shared between readings, draws averaged, nothing that is
not finite.

That each term is the literal one is in test_diffusion; here it is that the right noise, image and time meet,
on any path.
"""

import math

import numpy as np
import pytest
import torch

from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.metrics import bound
from ddpm_eval.model.diffusion import bound_term, make_schedule, q_sample
from ddpm_eval.model.gaussian import Gaussian
from ddpm_eval.protocol import PROTOCOLS, Protocol, combine
from ddpm_eval.randomness import Stream, normal
from ddpm_eval.spec import DiffusionSpec

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (1, 4, 4)
T = 12
SCHEDULE = make_schedule(DiffusionSpec(timesteps=T, beta_start=1e-3, beta_end=0.6))
IDS = np.array([40, 7, 2**31, 12, 0, 99])  # ids are not positions
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (len(IDS), *SHAPE)).astype(np.uint8))
IMAGES = to_model_range(PIXELS).double()


class Recorder:
    """An eps network of exact operations on each element, which notes what it is asked."""

    def __init__(self, channels=1):
        self.inputs, self.times, self.channels = [], [], channels

    def __call__(self, x_t, timestep):
        self.inputs.append(x_t.clone())
        self.times.append(timestep.clone())
        return (0.5 * x_t).repeat(1, self.channels, 1, 1)

    @property
    def evaluations(self):
        return sum(len(x) for x in self.inputs)


def model(network=None, schedule=SCHEDULE, variance="fixed-large", prediction="eps"):
    return bound.Model(network or Recorder(), schedule, prediction, variance)


def load(positions):
    return IMAGES[torch.from_numpy(positions)]


def evaluate_pairs(readings, pairs, *, draws=1, batch_size=5, seed=3, progress=lambda n: None):
    return bound.evaluate_pairs(
        readings, load, IDS, np.array(pairs), seed=seed, draws=draws, batch_size=batch_size, progress=progress
    )


def all_pairs():
    return [(i, t) for i in range(len(IDS)) for t in range(1, T + 1)]


# The noise


def test_noise_is_a_function_of_image_and_time_on_any_path():
    """Every x_t that the network sees is the one that the image's id and the time determine, in batches of
    any make-up.
    """
    rng = np.random.default_rng(1)
    for batch_size in (1, 5, 1000):
        network, pairs = Recorder(), rng.permutation(all_pairs())
        evaluate_pairs([model(network).reading(PROTOCOLS["exact"])], pairs, batch_size=batch_size)
        x_t, timestep = torch.cat(network.inputs), torch.cat(network.times)
        for row, (position, t) in enumerate(pairs):
            time = torch.tensor([t])
            noise = normal(3, Stream.BOUND, torch.tensor([IDS[position]]), time, SHAPE, torch.float64)
            expected = q_sample(SCHEDULE, IMAGES[[position]], time, noise)[0]
            torch.testing.assert_close(x_t[row], expected, rtol=1e-14, atol=1e-14)
            assert timestep[row] == t - 1


def test_terms_do_not_depend_on_the_batches():
    reading = [model().reading(PROTOCOLS["exact"])]
    terms, errors = evaluate_pairs(reading, all_pairs(), batch_size=1000)
    order = np.random.default_rng(2).permutation(len(all_pairs()))
    shuffled = evaluate_pairs(reading, np.array(all_pairs())[order], batch_size=7)
    np.testing.assert_allclose(shuffled[0], terms[:, order], rtol=1e-12)
    np.testing.assert_allclose(shuffled[1], errors[:, order], rtol=1e-12)
    few = evaluate_pairs(reading, [(4, 3), (1, 1), (4, 3)], batch_size=2)
    np.testing.assert_allclose(few[0][0], terms[0, [4 * T + 2, 1 * T, 4 * T + 2]], rtol=1e-12)


def test_terms_are_those_of_the_definition():
    """Each pair by itself, from the noise's definition through `diffusion.bound_term`."""
    reading = model().reading(PROTOCOLS["exact"])
    pairs = [(0, 1), (0, T), (3, 2), (5, 7), (5, 1)]
    terms, errors = evaluate_pairs([reading], pairs)
    for k, (position, t) in enumerate(pairs):
        x_0, time = IMAGES[[position]], torch.tensor([t])
        eps = normal(3, Stream.BOUND, torch.tensor([IDS[position]]), time, SHAPE, torch.float64)
        x_t = q_sample(SCHEDULE, x_0, time, eps)
        step = reading.process(x_t, time)
        assert terms[0, k] == pytest.approx(float(bound_term(SCHEDULE, step, x_0, x_t, time)), rel=1e-12)
        assert errors[0, k] == pytest.approx(float((step.x_0_hat - x_0).square().mean()), rel=1e-12)


def test_another_seed_gives_other_terms():
    reading = [model().reading(PROTOCOLS["exact"])]
    a, b = (evaluate_pairs(reading, all_pairs(), seed=seed)[0] for seed in (3, 4))
    assert (a != b).all()


def test_a_respaced_chain_sees_the_full_chains_noise_and_times():
    times = [2, 5, 12]
    full, short = Recorder(), Recorder()
    evaluate_pairs([model(full).reading(PROTOCOLS["exact"])], [(1, t) for t in times])
    evaluate_pairs(
        [model(short, SCHEDULE.respaced(times)).reading(PROTOCOLS["exact"])], [(1, k) for k in (1, 2, 3)]
    )
    torch.testing.assert_close(short.inputs[0], full.inputs[0], rtol=1e-14, atol=1e-14)
    assert torch.equal(short.times[0], full.times[0])


# Readings and draws


READINGS = [
    PROTOCOLS["paper"],
    PROTOCOLS["exact"],
    combine(PROTOCOLS["paper"], variance="fixed-small"),
    combine(PROTOCOLS["exact"], variance="optimal"),
]


def test_several_readings_share_evaluations_and_equal_separate_ones():
    optimal = (SCHEDULE.beta_tilde + 0.01).numpy()
    network = Recorder()
    readings = [model(network).reading(p, optimal if p.variance == "optimal" else None) for p in READINGS]
    together = evaluate_pairs(readings, all_pairs())
    assert network.evaluations == len(all_pairs())
    for k, reading in enumerate(readings):
        alone = evaluate_pairs([reading], all_pairs())
        np.testing.assert_array_equal(together[0][k], alone[0][0])
        np.testing.assert_array_equal(together[1][k], alone[1][0])
    for a in range(len(READINGS)):
        for b in range(a):
            assert not np.allclose(together[0][a], together[0][b]), "two protocols read the same"


def test_draws_are_averaged_and_the_first_is_that_of_a_single_draw():
    reading = model().reading(PROTOCOLS["exact"])
    pairs = np.array(all_pairs())
    x_0, t = load(pairs[:, 0]), torch.from_numpy(pairs[:, 1])
    separate = [
        bound.evaluate([reading], x_0, torch.from_numpy(IDS[pairs[:, 0]]), t, 3, draw) for draw in range(3)
    ]
    terms, errors = evaluate_pairs([reading], pairs, draws=3)
    np.testing.assert_allclose(terms, np.mean([s[0].numpy() for s in separate], 0), rtol=1e-12)
    np.testing.assert_allclose(errors, np.mean([s[1].numpy() for s in separate], 0), rtol=1e-12)
    np.testing.assert_allclose(separate[0][0].numpy(), evaluate_pairs([reading], pairs)[0], rtol=1e-12)
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert not (separate[a][0] == separate[b][0]).any()


def test_progress_counts_network_evaluations():
    seen, network = [], Recorder()
    reading = model(network).reading(PROTOCOLS["exact"])
    evaluate_pairs([reading], all_pairs(), draws=2, batch_size=50, progress=seen.append)
    assert sum(seen) == network.evaluations == 2 * len(all_pairs()) and max(seen) <= 50


def test_no_pairs_are_no_work():
    terms, errors = evaluate_pairs([model().reading(PROTOCOLS["exact"])], np.empty((0, 2), np.int64))
    assert terms.shape == errors.shape == (1, 0)


# Against closed forms


def test_terms_average_to_the_oracles_expectation():
    """400 draws of every (image, t) under the exact denoiser against its expectation, each to five standard
    errors.

    72 comparisons of each kind: by chance one of them is beyond five standard errors once in 12,000 tests.
    """
    rng = np.random.default_rng(3)
    factor = rng.normal(size=(16, 16)) / 8
    gaussian = Gaussian.from_moments(
        torch.zeros(SHAPE), torch.from_numpy(factor @ factor.T) + 0.01 * torch.eye(16)
    )
    variance = SCHEDULE.fixed_variance("fixed-large")
    exact = gaussian.expected_terms(SCHEDULE, variance, IMAGES)
    reading = model(gaussian.network(SCHEDULE, "eps")).reading(PROTOCOLS["exact"])
    pairs = np.array(all_pairs())
    x_0, t, ids = load(pairs[:, 0]), torch.from_numpy(pairs[:, 1]), torch.from_numpy(IDS[pairs[:, 0]])
    draws = [bound.evaluate([reading], x_0, ids, t, 3, draw) for draw in range(400)]
    for index, expected in enumerate((exact.terms, exact.x_0_squared_error)):
        values = torch.stack([d[index][0] for d in draws])
        error = values.mean(0) - expected.flatten()
        assert (error.abs() < 5 * values.std(0) / math.sqrt(400) + 1e-12).all()


def test_prior_terms_are_the_divergence_of_diagonal_gaussians():
    positions = np.array([2, 0, 5])
    found = bound.prior_terms(SCHEDULE, load, positions)
    a = SCHEDULE.alpha_bar[-1]
    q = torch.distributions.Normal(a.sqrt() * IMAGES[positions], (1 - a).sqrt())
    p = torch.distributions.Normal(
        torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    )
    np.testing.assert_allclose(
        found, torch.distributions.kl_divergence(q, p).flatten(1).sum(1).numpy(), rtol=1e-10
    )


# Protocols and what is refused


def test_protocols_become_readings():
    paper, exact = (model().reading(PROTOCOLS[name]) for name in ("paper", "exact"))
    assert paper.process.clip and not exact.process.clip
    assert (paper.decoder, exact.decoder) == ("tanh", "exact")
    for name in ("fixed-large", "fixed-small"):
        expected = SCHEDULE.fixed_variance(name)[1:]
        chosen = model(variance="fixed-large").reading(combine(PROTOCOLS["paper"], variance=name))
        assert torch.equal(chosen.process.variance[1:], expected)
        trained = model(variance=name).reading(PROTOCOLS["paper"])
        assert torch.equal(trained.process.variance[1:], expected)
    for name in ("learned", "learned-range"):
        assert model(variance=name).reading(PROTOCOLS["exact"]).process.variance == name
        over = model(variance=name).reading(combine(PROTOCOLS["exact"], variance="fixed-small"))
        assert isinstance(over.process.variance, torch.Tensor)


@pytest.mark.parametrize(("trained", "asked"), [("fixed-large", "learned"), ("learned", "learned-range")])
def test_a_variance_that_the_model_has_not_is_refused(trained, asked):
    protocol = Protocol(name="mine", variance=asked, clip=False, decoder="exact")
    with pytest.raises(
        ValueError, match=f"variance '{asked}' asked for, but this model was trained with '{trained}'"
    ):
        model(variance=trained).reading(protocol)


def test_the_optimal_variance_needs_an_estimate():
    with pytest.raises(ValueError, match="needs an estimate of the model's errors"):
        model().reading(combine(PROTOCOLS["exact"], variance="optimal"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("head", ["prediction", "variance"])
def test_an_output_that_is_not_finite_names_image_and_time(value, head):
    def network(x_t, timestep):
        output = (0.1 * x_t).repeat(1, 2, 1, 1)
        output[timestep == 4, 0 if head == "prediction" else 1, 1, 2] = value  # t = 5
        return output

    reading = model(network, variance="learned").reading(PROTOCOLS["exact"])
    pairs = [(2, 1), (3, 6), (2, 5), (4, 5)]
    with pytest.raises(ValueError, match=rf"the network's output is not finite at t = 5 for image {IDS[2]}"):
        evaluate_pairs([reading], pairs)
    terms, _ = evaluate_pairs([reading], pairs[:2])
    assert np.isfinite(terms).all()
