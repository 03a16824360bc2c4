"""The bound of a run: of which images, under which protocols, in restartable work items, once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from counted_run import (
    CountedRun,
    Killed,
    again,
    bring_about,
    delete_results,
    measure_bound,
    names,
    partial_files,
)
from tiny import TINY
from two_processes import side_by_side, together

from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.metrics import bound, timestep_sampling
from ddpm_eval.metrics.bound import NotFinite, evaluate_bound
from ddpm_eval.metrics.measured_model import Model
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.protocol import PROTOCOLS, combine
from ddpm_eval.results.bound_terms import FullBoundTerms, StratifiedBoundTerms, bound_name
from ddpm_eval.results.fields import array_fields
from ddpm_eval.stages.base import ensure, is_done
from ddpm_eval.stages.bound_stage import (
    BoundStage,
    Pairing,
    evaluations_for_total,
    optimal_variance,
    scored_positions,
    training_errors,
)
from ddpm_eval.stages.sampling_stages import SamplesStage

T = TINY.diffusion.timesteps
PAPER, EXACT = PROTOCOLS["paper"], PROTOCOLS["exact"]
OPTIMAL = combine(EXACT, variance="optimal")
N_TEST, INEXACT = 20, (3, 7)
N = N_TEST - len(INEXACT)
BOTH = BoundStage("test", (PAPER, EXACT))
SAMPLED = BoundStage("test", (PAPER, EXACT), "stratified")
PER_IMAGE = TINY.evaluation.evaluations_per_image
PILOT = timestep_sampling.PILOT_IMAGES * len(timestep_sampling.pilot_times(T))


def assert_same_terms(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert type(a) is type(b)
        for field in array_fields(type(b)):
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


def read(run, stage):
    return [stage.read(run, protocol) for protocol in stage.protocols]


# What is measured


def test_the_bound_is_measured_of_every_exact_image_at_every_step(run):
    found = measure_bound(run, PAPER, EXACT)
    kept = [i for i in range(N_TEST) if i not in INEXACT]
    assert run.evaluations == N * T  # two protocols, one evaluation
    images = to_model_range(torch.from_numpy(run.test_images.array)).double()
    for protocol, terms in zip((PAPER, EXACT), found, strict=True):
        np.testing.assert_array_equal(terms.image_id, kept)
        assert (terms.split, terms.dimensions, terms.inexact_left_out) == ("test", 64, 2)
        assert terms.protocol == protocol and terms.variance == "fixed-large"
        for row, t in [(0, 1), (5, 13), (17, T)]:  # stored as float32; a batch of one rounds differently
            pair = (images[[kept[row]]], torch.tensor([kept[row]]), torch.tensor([t]))
            term, error = bound.evaluate_terms([run.model().under(protocol)], *pair, seed=run.spec.seed)
            assert terms.terms[row, t - 1] == pytest.approx(float(term), rel=1e-4)
            assert terms.x_0_squared_error[row, t - 1] == pytest.approx(float(error), rel=1e-4)
    count = run.evaluations
    measure_bound(run, PAPER, EXACT)
    assert run.evaluations == count


@pytest.mark.parametrize("stage", [BOTH, SAMPLED], ids=["full", "stratified"])
def test_a_bare_network_and_an_array_give_the_stages_numbers(run, stage):
    """Without a folder: the same terms of the same images, to the bit."""
    expected = read(run, bring_about(run, stage))
    diffusion = run.spec.diffusion
    model = Model(run.trained_network, make_schedule(diffusion), diffusion.prediction, diffusion.variance)
    found = evaluate_bound(
        model,
        run.test_images.array,
        stage.protocols,
        positions=stage.positions(run),
        estimator=bound.Estimator(stage.estimator, PER_IMAGE),
        seed=run.spec.seed,
        batch_size=run.batch_size,
    )
    assert_same_terms(found, expected)


def test_the_training_images_are_a_fixed_subset(run):
    first = measure_bound(run, PAPER, split="train")[0].image_id
    assert len(set(first)) == TINY.evaluation.n_train_images == len(first) and first.max() < 40
    assert not np.array_equal(first, np.arange(len(first)))  # not the first ones, which may be alike
    more = again(run, evaluation__n_train_images=10)
    assert set(first) < set(measure_bound(more, PAPER, split="train")[0].image_id)


def test_a_result_of_fewer_images_lies_beside_that_of_all(run):
    (every,) = measure_bound(run, PAPER)
    fewer = again(run, evaluation__n_test_images=5)
    assert not is_done(BoundStage("test", (PAPER,)), fewer)
    (some,) = measure_bound(fewer, PAPER)
    assert len(some.image_id) == 5 and set(some.image_id) < set(every.image_id)
    assert len([entry for entry in run.results.store.entries() if entry.name == "bound/full/test/paper"]) == 2
    for settings, expected in [({}, every), ({"evaluation__n_test_images": 5}, some)]:
        unchanged = again(run, limit=0, **settings)
        assert_same_terms(measure_bound(unchanged, PAPER), [expected])


def test_only_what_is_missing_is_measured_and_named(run):
    (alone,) = measure_bound(run, EXACT)
    assert {name for name in names(run) if name.startswith("bound")} == {"bound/full/test/exact"}
    count = run.evaluations
    paper, exact = measure_bound(run, PAPER, EXACT)
    assert run.evaluations == 2 * count
    assert_same_terms([exact], [alone])
    assert paper.protocol == PAPER
    measure_bound(again(run, limit=0), EXACT, PAPER)


def test_draws_are_evaluated_and_counted(run):
    twice = combine(PAPER, draws=2)
    (found,) = measure_bound(run, twice)
    assert run.evaluations == 2 * T * N == found.network_evaluations


def test_protocols_of_other_draws_are_evaluated_apart(run):
    """Each group has work items of its own, although they are of the same images."""
    protocols = (PAPER, combine(EXACT, draws=2), EXACT)
    found = measure_bound(run, *protocols)
    assert run.evaluations == (1 + 2) * T * N
    for protocol, terms in zip(protocols, found, strict=True):
        fresh = again(run)
        delete_results(fresh)
        assert_same_terms(measure_bound(fresh, protocol), [terms])


# The stratified estimator


def test_the_stratified_bound_reads_the_full_ones_terms_at_a_fraction(run):
    sampled = measure_bound(run, PAPER, EXACT, estimator="stratified")
    assert run.evaluations == N * PER_IMAGE + PILOT
    for some, every in zip(sampled, measure_bound(again(run), PAPER, EXACT), strict=True):
        assert isinstance(some, StratifiedBoundTerms) and isinstance(every, FullBoundTerms)
        assert some.network_evaluations == run.evaluations
        row, column = np.nonzero(some.t)
        for a, b in ((some.terms, every.terms), (some.x_0_squared_error, every.x_0_squared_error)):
            # float32 networks in batches of another make-up, stored in float32
            np.testing.assert_allclose(a[row, column], b[row, some.t[row, column] - 1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(some.prior, every.prior, rtol=1e-12)
        assert (some.split, some.inexact_left_out) == ("test", 2)


def test_a_stratified_bound_does_not_depend_on_what_is_measured_with_it(run):
    """What is stored of one of two protocols leaves the second to be measured alone."""
    _, expected = measure_bound(run, PAPER, EXACT, estimator="stratified")
    delete_results(run)
    assert_same_terms(measure_bound(again(run), EXACT, estimator="stratified"), [expected])


def test_another_number_of_evaluations_is_another_result(run):
    found = [
        measure_bound(run, PAPER, estimator="stratified", evaluations_per_image=count)[0] for count in (3, 5)
    ]
    assert [terms.t.shape[1] for terms in found] == [3, 5]
    stage = BoundStage("test", (PAPER,), "stratified", 3)
    assert is_done(stage, run) and not is_done(SAMPLED, run)
    assert_same_terms(read(run, stage), found[:1])


def test_evaluations_are_given_over_all_images(run):
    assert evaluations_for_total(run, SAMPLED, PILOT + 5 * N + 3) == 5
    with pytest.raises(ValueError, match=rf"each image needs at least 2, together {PILOT + 2 * N}"):
        evaluations_for_total(run, SAMPLED, PILOT + 2 * N - 1)


# Kills and processes


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_killed_bound_continues_without_repeating_finished_items(run, share):
    expected = measure_bound(again(run), PAPER, EXACT)
    delete_results(run)
    first = again(run, limit=int(share * N * T))
    with pytest.raises(Killed):
        measure_bound(first, PAPER, EXACT)
    assert not {name for name in names(run) if name.startswith("bound")}
    second = again(run)
    found = measure_bound(second, PAPER, EXACT)
    item = 4 * T
    assert second.evaluations == N * T - first.evaluations // item * item
    assert_same_terms(found, expected)
    assert not partial_files(run)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_killed_stratified_bound_continues_without_repeating_finished_items(run, share):
    reference = again(run)
    expected = measure_bound(reference, PAPER, EXACT, estimator="stratified")
    whole = reference.evaluations
    delete_results(run)
    with pytest.raises(Killed):
        measure_bound(again(run, limit=int(share * whole)), PAPER, EXACT, estimator="stratified")
    second = again(run)
    found = measure_bound(second, PAPER, EXACT, estimator="stratified")
    assert share == 0 or second.evaluations < whole
    assert_same_terms(found, expected)
    assert not partial_files(run)


def test_a_damaged_item_of_a_killed_bound_is_measured_again(run):
    expected = measure_bound(again(run), PAPER)
    delete_results(run)
    with pytest.raises(Killed):
        measure_bound(again(run, limit=9 * T), PAPER)
    first, _ = sorted(partial_files(run))
    content = first.read_bytes()
    first.unlink()
    first.write_bytes(content[:-100] + bytes(100))
    fresh = again(run)
    assert_same_terms(measure_bound(fresh, PAPER), expected)
    assert fresh.evaluations == (N - 4) * T


@pytest.mark.parametrize("stage", [BOTH, SAMPLED], ids=["full", "stratified"])
def test_two_processes_share_a_bound_and_each_shows_all_of_it(run, stage):
    alone = again(run)
    expected = read(alone, bring_about(alone, stage))
    delete_results(run)
    processes, seen = together(run), ([], [])
    for rank, process in enumerate(processes):
        process.progress = lambda stage, done, total, rank=rank: seen[rank].append((done, total))
    side_by_side(lambda process: ensure(stage, process), processes)
    assert_same_terms(read(run, stage), expected)
    assert sum(process.evaluations for process in processes) == alone.evaluations
    assert min(process.evaluations for process in processes) > alone.evaluations / 3
    whole = N * (PER_IMAGE if stage.estimator == "stratified" else T)
    for work in seen:
        assert work == sorted(work) and work[0] == (0, whole) and work[-1] == (whole, whole)


@pytest.mark.parametrize("stage", [BOTH, SAMPLED], ids=["full", "stratified"])
def test_an_output_that_is_not_finite_ends_both_processes_with_the_reason(run, stage, monkeypatch):
    original = CountedRun.respond
    monkeypatch.setattr(
        CountedRun,
        "respond",
        lambda self, x_t, t: original(self, x_t, t) * (torch.nan if self.runtime.rank else 1.0),
    )

    def measure(process):
        with pytest.raises(NotFinite) as caught:
            ensure(stage, process)
        return str(caught.value)

    said = side_by_side(measure, together(run))
    assert "on another process" in said[0] and "not finite at t = " in said[1]
    assert names(run) == {"training", "schedule"}


@pytest.mark.parametrize(
    ("factor", "said"), [(torch.nan, "output is not finite at t = "), (1e30, "at t = 1 ")]
)
def test_what_is_not_finite_is_refused_with_the_network_and_the_step(run, factor, said):
    """Terms of a finite output overflow, too, where nothing is clipped."""
    respond = run.respond
    run.respond = lambda x_t, t: respond(x_t, t) * factor
    with pytest.raises(NotFinite, match=rf"run, eps-mse-fixed-large: .*{said}"):
        measure_bound(run, EXACT)
    assert names(run) == {"training", "schedule"}


def test_an_overflow_in_bf16_names_the_remedy(run):
    run.respond = lambda x_t, t: x_t * torch.inf
    run.runtime = replace(run.runtime, precision="bf16")
    with pytest.raises(NotFinite, match=r"not finite at t = .* \(computed in bf16: --precision fp32 is the"):
        measure_bound(run, EXACT)


def test_more_test_images_than_there_are_are_refused(run):
    with pytest.raises(ValueError, match=f"has {N_TEST} test images of 8x8 pixels, but 21 are asked for"):
        is_done(BOTH, again(run, evaluation__n_test_images=N_TEST + 1))


def test_all_terms_are_measured_of_fewer_images_if_asked(run):
    few = again(run, evaluation__n_full_images=5, evaluation__n_train_images=10)
    for split, n in (("test", N), ("train", 10)):
        full, sampled = (BoundStage(split, (PAPER,), name).positions(few) for name in ("full", "stratified"))
        assert (len(full), len(sampled)) == (5, n)
        assert set(full) <= set(sampled)


def test_the_choices_of_a_measurement_are_stored_with_it(run):
    for stage, expected in [
        (BOTH, {"n_images": N}),
        (replace(SAMPLED, evaluations_per_image=3), {"n_images": N, "evaluations_per_image": 3}),
    ]:
        bring_about(run, stage)
        assert run.results.entry(stage.name).provenance["choices"] == expected


# The optimal variance


def test_the_optimal_variance_minimises_every_term_of_the_images_it_is_estimated_from(run):
    """sigma^2 = beta_tilde + E|mu_tilde - mu|^2 / D is each KL term's minimum (Bao et al. 2022)."""
    variants = [combine(EXACT, variance=name) for name in ("optimal", "fixed-small", "fixed-large")]
    measured = measure_bound(run, *variants, split="train")
    optimal, *others = (terms.terms[:, 1:].mean(0, dtype=np.float64) for terms in measured)
    for other in others:
        assert (optimal <= other + 1e-4 * np.abs(other)).all()
    assert (optimal < 0.99 * np.minimum(*others)).any()
    variance, schedule = optimal_variance(run, variants[0]), make_schedule(run.spec.diffusion)
    (exact,) = measure_bound(run, EXACT, split="train")
    error = exact.x_0_squared_error.mean(0, dtype=np.float64)
    a, previous = schedule.alpha_bar[1:].numpy(), schedule.alpha_bar[:-1].numpy()
    weight = np.sqrt(previous) * schedule.beta[1:].numpy() / (1 - a)  # of x_0 in mu_tilde, Eq. 7
    np.testing.assert_allclose(variance[1:], schedule.beta_tilde[1:].numpy() + weight**2 * error, rtol=1e-10)


def test_the_optimal_variance_is_estimated_from_training_images_first(run):
    """With x_0 estimates clipped where the protocol clips them."""
    clipped = combine(PAPER, variance="optimal")
    stage = BoundStage("test", (OPTIMAL, clipped))
    assert list(stage.requires(run)) == [BoundStage("train", (EXACT,)), BoundStage("train", (PAPER,))]
    assert list(BOTH.requires(run)) == []
    found = read(run, bring_about(run, stage))
    assert {"bound/full/train/exact", "bound/full/train/paper"} < names(run)
    assert [terms.variance for terms in found] == ["optimal", "optimal"]
    assert training_errors(clipped) == BoundStage("train", (PAPER,))
    assert not np.array_equal(optimal_variance(run, OPTIMAL), optimal_variance(run, clipped))


# Shorter chains


def test_a_shorter_chain_has_a_bound_of_its_own(run):
    (short,) = measure_bound(run, PAPER, num_steps=5)
    assert run.evaluations == 5 * N
    assert run.results.has(
        bound_name("test", PAPER, num_steps=5), BoundStage("test", (PAPER,), num_steps=5).key(run)
    )
    assert short.terms.shape == (N, 5)
    (full,) = measure_bound(run, PAPER)
    np.testing.assert_array_equal(short.prior, full.prior)  # the chains end in the same x_T
    keys = [BoundStage("test", (PAPER,), num_steps=steps).key(run) for steps in (None, 4, 5)]
    assert len(set(keys)) == 3


def test_a_shorter_chain_of_a_network_that_predicts_mu_is_refused(run):
    mu = again(run, diffusion__prediction="mu")
    stage = BoundStage("test", (PAPER,), num_steps=5)
    assert not stage.applies(mu) and is_done(stage, mu) and stage.applies(run)
    with pytest.raises(ValueError, match="the network knows the mean of its own chain only"):
        ensure(stage, mu)


def test_a_paired_bound_has_the_other_runs_noise_and_times_and_a_name_of_its_own(run):
    (own,) = measure_bound(run, PAPER)
    (same,) = measure_bound(run, PAPER, pairing=Pairing(run.spec.seed))
    (other,) = measure_bound(run, PAPER, pairing=Pairing(run.spec.seed + 1))
    assert_same_terms([same], [own])
    assert not np.array_equal(other.terms, own.terms)
    (expected,) = evaluate_bound(
        run.model(), run.test_images, [PAPER], seed=run.spec.seed + 1, batch_size=run.batch_size
    )
    assert_same_terms([other], [expected])
    (sampled,) = measure_bound(run, PAPER, estimator="stratified")
    shared = Pairing(run.spec.seed, tuple(sampled.inclusion))
    (paired,) = measure_bound(run, PAPER, estimator="stratified", pairing=shared)
    assert_same_terms([paired], [sampled])
    assert {name for name in names(run) if name.startswith("bound")} == {
        *("bound/full/test/paper", "bound/full-paired/test/paper"),
        *("bound/stratified/test/paper", "bound/stratified-paired/test/paper"),
    }
    pairings = (None, Pairing(1), Pairing(2), shared)
    keys = {BoundStage("test", (PAPER,), "stratified", pairing=pairing).key(run) for pairing in pairings}
    assert len(keys) == len(pairings)


# What it costs


@pytest.mark.parametrize(
    "stage",
    [
        BOTH,
        SAMPLED,
        BoundStage("train", (PAPER,)),
        BoundStage("test", (PAPER,), num_steps=5),
        BoundStage("test", (PAPER,), "stratified", num_steps=5),
        BoundStage("test", (PAPER,), "stratified", pairing=Pairing(1, (0.2,) * T)),
        BoundStage("test", (PAPER, combine(PAPER, draws=3))),
    ],
    ids=lambda stage: f"{stage.split}-{stage.estimator}-{stage.num_steps}-{len(stage.protocols)}",
)
def test_the_cost_is_the_number_of_network_evaluations(run, stage):
    cost = stage.network_evaluations(run)
    ensure(stage, run)
    assert run.evaluations == cost
    assert stage.network_evaluations(run) == 0


def test_what_is_planned_or_stored_costs_nothing(run):
    wide = BoundStage("test", (PAPER, EXACT, combine(PAPER, draws=2)))
    assert wide.network_evaluations(run) == 3 * N * T
    assert wide.network_evaluations(run, [BOTH]) == 2 * N * T
    assert wide.network_evaluations(run, [BOTH, wide]) == 0
    assert wide.network_evaluations(run, [SamplesStage()]) == 3 * N * T
    ensure(BOTH, run)
    assert wide.network_evaluations(run) == 2 * N * T


def test_scored_positions_leave_out_what_is_inexact(run):
    images = run.test_images
    every = scored_positions(images, None)
    assert set(images.ids[every]) == set(range(N_TEST)) - set(INEXACT)
    np.testing.assert_array_equal(scored_positions(images, 100), every)
    some = scored_positions(images, 7)
    assert len(some) == 7 and set(some) < set(every) and (np.diff(some) > 0).all()
