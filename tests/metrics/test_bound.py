"""The bound: noise by (image, t) alone, evaluations shared between protocols, draws averaged.

That each term is the literal one is in test_diffusion; here the right noise, image and time meet, on
any path.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm_eval.data.image_set import from_array, in_memory_set
from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.metrics import bound, timestep_sampling
from ddpm_eval.metrics.bound import Estimator, NotFinite, evaluate_bound
from ddpm_eval.metrics.measured_model import Model
from ddpm_eval.metrics.work import SerialWork
from ddpm_eval.model.diffusion import bound_term, make_schedule, q_sample
from ddpm_eval.model.gaussian import Gaussian
from ddpm_eval.protocol import PROTOCOLS, combine
from ddpm_eval.randomness import Stream, normal
from ddpm_eval.spec import DiffusionSpec

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
    return Model(network or Recorder(), schedule, prediction, variance, dtype=None)


def exact(network=None, **choices):
    """Return a model under the exact protocol, alone in a list."""
    return [model(network, **choices).under(PROTOCOLS["exact"])]


def load(positions):
    return IMAGES[torch.from_numpy(positions)]


def evaluate_pairs(models, pairs, *, draws=1, batch_size=5, seed=3, progress=lambda n: None):
    return bound.evaluate_pairs(
        models, load, IDS, np.array(pairs), seed=seed, draws=draws, batch_size=batch_size, progress=progress
    )


def all_pairs():
    return [(i, t) for i in range(len(IDS)) for t in range(1, T + 1)]


# The noise


def test_noise_is_a_function_of_image_and_time_on_any_path():
    """In batches of any make-up, every x_t is the one that the image's id and the time determine."""
    rng = np.random.default_rng(1)
    for batch_size in (1, 5, 1000):
        network, pairs = Recorder(), rng.permutation(all_pairs())
        evaluate_pairs(exact(network), pairs, batch_size=batch_size)
        x_t, timestep = torch.cat(network.inputs), torch.cat(network.times)
        for row, (position, t) in enumerate(pairs):
            time = torch.tensor([t])
            noise = normal(3, Stream.BOUND, torch.tensor([IDS[position]]), time, SHAPE, torch.float64)
            expected = q_sample(SCHEDULE, IMAGES[[position]], time, noise)[0]
            torch.testing.assert_close(x_t[row], expected, rtol=1e-14, atol=1e-14)
            assert timestep[row] == t - 1


def test_terms_do_not_depend_on_the_batches():
    models = exact()
    terms, errors = evaluate_pairs(models, all_pairs(), batch_size=1000)
    order = np.random.default_rng(2).permutation(len(all_pairs()))
    shuffled = evaluate_pairs(models, np.array(all_pairs())[order], batch_size=7)
    np.testing.assert_allclose(shuffled[0], terms[:, order], rtol=1e-12)
    np.testing.assert_allclose(shuffled[1], errors[:, order], rtol=1e-12)
    repeated = evaluate_pairs(models, [(4, 3), (1, 1), (4, 3)], batch_size=2)
    np.testing.assert_allclose(repeated[0][0], terms[0, [4 * T + 2, 1 * T, 4 * T + 2]], rtol=1e-12)


def test_terms_are_those_of_the_definition():
    """Each pair by itself, from the noise's definition through `diffusion.bound_term`."""
    (under,) = exact()
    pairs = [(0, 1), (0, T), (3, 2), (5, 7), (5, 1)]
    terms, errors = evaluate_pairs([under], pairs)
    for k, (position, t) in enumerate(pairs):
        x_0, time = IMAGES[[position]], torch.tensor([t])
        eps = normal(3, Stream.BOUND, torch.tensor([IDS[position]]), time, SHAPE, torch.float64)
        x_t = q_sample(SCHEDULE, x_0, time, eps)
        step = under.process(x_t, time)
        assert terms[0, k] == pytest.approx(float(bound_term(SCHEDULE, step, x_0, x_t, time)), rel=1e-12)
        assert errors[0, k] == pytest.approx(float((step.x_0_hat - x_0).square().mean()), rel=1e-12)


def test_another_seed_gives_other_terms():
    models = exact()
    a, b = (evaluate_pairs(models, all_pairs(), seed=seed)[0] for seed in (3, 4))
    assert (a != b).all()


def test_a_respaced_chain_sees_the_full_chains_noise_and_times():
    times = [2, 5, 12]
    full, short = Recorder(), Recorder()
    evaluate_pairs(exact(full), [(1, t) for t in times])
    evaluate_pairs(exact(short, schedule=SCHEDULE.respaced(times)), [(1, k) for k in (1, 2, 3)])
    torch.testing.assert_close(short.inputs[0], full.inputs[0], rtol=1e-14, atol=1e-14)
    assert torch.equal(short.times[0], full.times[0])


# Protocols and draws


EVERY_KIND = [
    PROTOCOLS["paper"],
    PROTOCOLS["exact"],
    combine(PROTOCOLS["paper"], variance="fixed-small"),
    combine(PROTOCOLS["exact"], variance="optimal"),
]


def test_several_protocols_share_evaluations_and_equal_separate_ones():
    network = Recorder()
    measured = replace(model(network), optimal_variance={False: (SCHEDULE.beta_tilde + 0.01).numpy()})
    models = [measured.under(protocol) for protocol in EVERY_KIND]
    together = evaluate_pairs(models, all_pairs())
    assert network.evaluations == len(all_pairs())
    for k, under in enumerate(models):
        alone = evaluate_pairs([under], all_pairs())
        np.testing.assert_array_equal(together[0][k], alone[0][0])
        np.testing.assert_array_equal(together[1][k], alone[1][0])
    for a in range(len(EVERY_KIND)):
        for b in range(a):
            assert not np.allclose(together[0][a], together[0][b]), "two protocols give the same terms"


@pytest.mark.parametrize("variance", ["learned", "learned-range"])
def test_of_a_learned_variance_the_order_of_protocols_does_not_matter(variance):
    learned = model(Recorder(channels=2), variance=variance)
    models = [
        learned.under(combine(PROTOCOLS["paper"], variance=name)) for name in ("fixed-small", "trained")
    ]
    together, _ = evaluate_pairs(models, all_pairs())
    for terms, under in zip(together, models, strict=True):
        np.testing.assert_array_equal(terms, evaluate_pairs([under], all_pairs())[0][0])
    assert not np.allclose(*together)


def test_draws_are_averaged_and_the_first_is_that_of_a_single_draw():
    models = exact()
    pairs = np.array(all_pairs())
    x_0, ids, t = load(pairs[:, 0]), torch.from_numpy(IDS[pairs[:, 0]]), torch.from_numpy(pairs[:, 1])
    separate = [bound.evaluate_terms(models, x_0, ids, t, 3, draw) for draw in range(3)]
    terms, errors = evaluate_pairs(models, pairs, draws=3)
    np.testing.assert_allclose(terms, np.mean([s[0].numpy() for s in separate], 0), rtol=1e-12)
    np.testing.assert_allclose(errors, np.mean([s[1].numpy() for s in separate], 0), rtol=1e-12)
    np.testing.assert_allclose(separate[0][0].numpy(), evaluate_pairs(models, pairs)[0], rtol=1e-12)
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert not (separate[a][0] == separate[b][0]).any()


def test_progress_counts_network_evaluations():
    seen, network = [], Recorder()
    evaluate_pairs(exact(network), all_pairs(), draws=2, batch_size=50, progress=seen.append)
    assert sum(seen) == network.evaluations == 2 * len(all_pairs()) and max(seen) <= 50


def test_no_pairs_are_no_work():
    terms, errors = evaluate_pairs(exact(), np.empty((0, 2), np.int64))
    assert terms.shape == errors.shape == (1, 0)


# Against closed forms


def test_terms_average_to_the_gaussian_models_expectation():
    """400 draws of every (image, t) under the exact denoiser, to five standard errors of its expectation.

    72 comparisons of each kind: by chance one of them is beyond five standard errors once in 12,000 tests.
    """
    rng = np.random.default_rng(3)
    factor = rng.normal(size=(16, 16)) / 8
    gaussian = Gaussian.from_moments(
        torch.zeros(SHAPE), torch.from_numpy(factor @ factor.T) + 0.01 * torch.eye(16)
    )
    variance = SCHEDULE.fixed_variance("fixed-large")
    in_closed_form = gaussian.expected_terms(SCHEDULE, variance, IMAGES)
    models = exact(gaussian.network(SCHEDULE, "eps"))
    pairs = np.array(all_pairs())
    x_0, t, ids = load(pairs[:, 0]), torch.from_numpy(pairs[:, 1]), torch.from_numpy(IDS[pairs[:, 0]])
    draws = [bound.evaluate_terms(models, x_0, ids, t, 3, draw) for draw in range(400)]
    for index, expected in enumerate((in_closed_form.terms, in_closed_form.x_0_squared_error)):
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


# What is not finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("head", ["prediction", "variance"])
def test_an_output_that_is_not_finite_names_image_and_time(value, head):
    def network(x_t, timestep):
        output = (0.1 * x_t).repeat(1, 2, 1, 1)
        output[timestep == 4, 0 if head == "prediction" else 1, 1, 2] = value  # t = 5
        return output

    models = exact(network, variance="learned")
    pairs = [(2, 1), (3, 6), (2, 5), (4, 5)]
    with pytest.raises(NotFinite, match=rf"the network's output is not finite at t = 5 for image {IDS[2]}"):
        evaluate_pairs(models, pairs)
    terms, _ = evaluate_pairs(models, pairs[:2])
    assert np.isfinite(terms).all()


# Whole evaluations


def test_a_bare_module_and_an_array_suffice():
    """Without a folder, a store or a specification; each term is that of the definition."""

    class Half(torch.nn.Module):
        def forward(self, x_t, timestep):
            assert x_t.dtype == torch.float32 and timestep.dtype == torch.int64
            return 0.5 * x_t

    paper, precise = evaluate_bound(
        Model(Half(), SCHEDULE), PIXELS.numpy(), [PROTOCOLS["paper"], PROTOCOLS["exact"]], seed=3
    )
    np.testing.assert_array_equal(precise.image_id, np.arange(len(PIXELS)))
    assert (precise.split, precise.dimensions, precise.inexact_left_out) == ("test", 16, 0)
    assert (paper.protocol, precise.protocol) == (PROTOCOLS["paper"], PROTOCOLS["exact"])
    assert (paper.variance, precise.network_evaluations) == ("fixed-large", len(PIXELS) * T)
    (under,) = exact()
    for row, t in [(0, 1), (3, 7), (5, T)]:
        x_0, ids, time = IMAGES[[row]], torch.tensor([row]), torch.tensor([t])
        term, error = bound.evaluate_terms([under], x_0, ids, time, seed=3)
        # the network's input is rounded to float32, and so are the stored terms: 6e-8 each
        assert precise.terms[row, t - 1] == pytest.approx(float(term), rel=1e-5)
        assert precise.x_0_squared_error[row, t - 1] == pytest.approx(float(error), rel=1e-5)
    np.testing.assert_allclose(precise.prior, bound.prior_terms(SCHEDULE, load, np.arange(6)), rtol=1e-12)


def test_only_exact_images_are_evaluated_unless_positions_are_given():
    images = in_memory_set("array", "train", PIXELS.numpy(), IDS, inexact=np.array([7, 0]))
    (terms,) = evaluate_bound(model(), images)
    np.testing.assert_array_equal(terms.image_id, [40, 2**31, 12, 99])
    assert terms.inexact_left_out == 2 and terms.split == "train"
    (chosen,) = evaluate_bound(model(), images, positions=np.array([5, 1]))
    np.testing.assert_array_equal(chosen.image_id, [99, 7])
    np.testing.assert_allclose(chosen.terms[0], terms.terms[3], rtol=1e-6)  # stored as float32


def test_results_do_not_depend_on_the_size_of_batches_and_items(monkeypatch):
    (expected,) = evaluate_bound(model(), PIXELS.numpy(), batch_size=1000)
    monkeypatch.setattr(bound, "ITEM_IMAGES", 2)
    (found,) = evaluate_bound(model(), PIXELS.numpy(), batch_size=5)
    np.testing.assert_allclose(found.terms, expected.terms, rtol=1e-6)  # stored as float32
    np.testing.assert_allclose(found.prior, expected.prior, rtol=1e-12)


def test_protocols_come_back_in_their_order_whatever_their_draws():
    twice = combine(PROTOCOLS["exact"], draws=2)
    protocols = [twice, PROTOCOLS["paper"], PROTOCOLS["exact"]]
    network = Recorder()
    together = evaluate_bound(model(network), PIXELS.numpy(), protocols)
    assert network.evaluations == 3 * len(PIXELS) * T
    assert [terms.protocol for terms in together] == protocols
    for protocol, terms in zip(protocols, together, strict=True):
        (alone,) = evaluate_bound(model(), PIXELS.numpy(), [protocol])
        np.testing.assert_array_equal(terms.terms, alone.terms)
        assert terms.network_evaluations == protocol.draws * len(PIXELS) * T


def test_the_stratified_estimator_reads_terms_of_the_full_one():
    network = Recorder()
    full, sampled = (
        evaluate_bound(model(network), PIXELS.numpy(), [PROTOCOLS["exact"]], estimator=estimator)[0]
        for estimator in ("full", Estimator("stratified", 4))
    )
    row, column = np.nonzero(sampled.t)
    assert len(row) == 4 * len(PIXELS)
    at_time = full.terms[row, sampled.t[row, column] - 1]
    np.testing.assert_allclose(sampled.terms[row, column], at_time, rtol=1e-6)  # stored as float32
    np.testing.assert_array_equal(sampled.prior, full.prior)
    pilot = len(PIXELS) * len(timestep_sampling.pilot_times(T))
    assert sampled.network_evaluations == len(row) + pilot
    assert network.evaluations == full.network_evaluations + sampled.network_evaluations
    np.testing.assert_array_equal(sampled.offset, timestep_sampling.stratified_offsets(len(PIXELS), 0))


def test_models_that_share_their_probabilities_are_evaluated_at_the_same_times_without_a_pilot():
    chosen = Estimator("stratified", 4)
    (first,) = evaluate_bound(model(), PIXELS.numpy(), estimator=chosen)
    network = Recorder()
    shared = Estimator("stratified", 4, tuple(first.inclusion))
    (second,) = evaluate_bound(model(network), PIXELS.numpy(), estimator=shared)
    for name in ("t", "inclusion", "offset", "terms"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name))
    assert network.evaluations == second.network_evaluations == np.count_nonzero(first.t)
    with pytest.raises(ValueError, match=f"probabilities of 3 times do not fit a chain of T = {T} steps"):
        evaluate_bound(model(), PIXELS.numpy(), estimator=Estimator("stratified", 2, (1.0, 0.5, 0.5)))


def test_more_evaluations_than_steps_are_all_steps():
    (full,) = evaluate_bound(model(), PIXELS.numpy())
    (sampled,) = evaluate_bound(model(), PIXELS.numpy(), estimator=Estimator("stratified", 50))
    np.testing.assert_allclose(sampled.values()["total"], full.values()["total"], rtol=1e-6)


def test_progress_is_that_of_all_network_evaluations():
    seen = []
    work = SerialWork(lambda name, done, total: seen.append((name, done, total)))
    evaluate_bound(model(), PIXELS.numpy(), batch_size=5, work=work)
    assert seen[-1] == ("bound test", len(PIXELS) * T, len(PIXELS) * T)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen) and len(seen) > 10


@pytest.mark.parametrize("estimator", ["full", "stratified"])
def test_an_output_that_is_not_finite_ends_the_evaluation(estimator):
    def network(x_t, timestep):
        return torch.where(timestep.reshape(-1, 1, 1, 1) == 2, torch.nan, x_t)

    with pytest.raises(NotFinite, match="not finite at t = 3 for image 0"):
        evaluate_bound(model(network), PIXELS.numpy(), estimator=estimator)


def test_images_that_cannot_be_evaluated_are_refused():
    with pytest.raises(ValueError, match="must be 8-bit levels"):
        evaluate_bound(model(), IMAGES.numpy())
    inexact = in_memory_set("array", "test", PIXELS.numpy(), IDS, inexact=IDS)
    for images in (inexact, from_array(PIXELS.numpy())):
        with pytest.raises(ValueError, match="there are no images to evaluate"):
            evaluate_bound(model(), images, positions=None if images is inexact else np.array([], np.int64))


def test_the_optimal_variance_minimises_the_bound_of_its_own_images():
    """Bao et al. (2022): sigma^2 = beta_tilde + E|mu_tilde - mu|^2 / D is each KL term's minimum."""
    (terms,) = evaluate_bound(model(), PIXELS.numpy(), [PROTOCOLS["exact"]])
    table = bound.optimal_variance(terms, SCHEDULE)
    best = replace(model(), optimal_variance={False: table})
    optimal = combine(PROTOCOLS["exact"], variance="optimal")
    (found,) = evaluate_bound(best, PIXELS.numpy(), [optimal])
    mean = found.terms[:, 1:].mean(0, dtype=np.float64)
    for factor in (0.9, 1.1):
        other = replace(model(), optimal_variance={False: factor * table})
        (worse,) = evaluate_bound(other, PIXELS.numpy(), [optimal])
        assert (mean < worse.terms[:, 1:].mean(0, dtype=np.float64)).all()
