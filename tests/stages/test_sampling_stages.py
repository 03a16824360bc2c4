"""Samples, trajectories and interpolations of a run: drawn once, continued after a kill, extended."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from counted_run import CountedRun, Killed, again, bring_about, delete_results, names, partial_files
from tiny import TINY
from two_processes import side_by_side, together

from ddpm_eval.data.image_set import from_array
from ddpm_eval.data.pixels import to_pixels
from ddpm_eval.metrics import evaluation_memory
from ddpm_eval.metrics.bound import NotFinite
from ddpm_eval.model.samplers import draw, make_sampler
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results.records import Interpolations, Trajectory
from ddpm_eval.results.store import Store
from ddpm_eval.stages.base import ensure, is_done
from ddpm_eval.stages.bound_stage import BoundStage
from ddpm_eval.stages.sampling_stages import (
    InterpolationStage,
    SamplesStage,
    TrajectoryStage,
    different_pairs,
    other_times,
)
from ddpm_eval.stages.training_stage import TrainingStage, stored_log

T = TINY.diffusion.timesteps
N_FOLLOWED = TINY.evaluation.n_progressive


def sample(run, n=None, steps=None, method="ancestral"):
    """Draw what is missing, and return the first n samples."""
    stage = bring_about(run, SamplesStage(n, steps, method))
    return stage.read(run).images[: stage.count(run)]


# Samples


def test_samples_are_drawn_once(run):
    images = sample(run, 10)
    assert images.shape == (10, 1, 8, 8) and images.dtype == np.uint8 and run.evaluations == 10 * T
    np.testing.assert_array_equal(sample(run, 10), images)
    assert run.evaluations == 10 * T
    record = SamplesStage().read(run)
    assert (record.method, record.num_steps, record.seed) == ("ancestral", T, TINY.seed)


def test_a_sample_depends_neither_on_their_number_nor_on_the_batches(run):
    """Batches of another size round differently in float32: by one level of 256, in few elements."""
    images = sample(run, 10)
    for size, n in [(3, 10), (8, 5), (16, 13)]:
        delete_results(run)
        other = again(run)
        other.size = size
        found = sample(other, n)
        difference = np.abs(found[:10].astype(int) - images[: len(found)])
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_killed_sampling_continues_without_repeating_finished_items(run, share):
    n = 30  # in items of 8, 8, 8, 6
    expected = sample(again(run), n)
    delete_results(run)
    first = again(run, limit=int(share * n * T))
    with pytest.raises(Killed):
        sample(first, n)
    second = again(run)
    np.testing.assert_array_equal(sample(second, n), expected)
    assert second.evaluations == n * T - first.evaluations // (8 * T) * 8 * T
    assert not partial_files(run)


def _killed(*arguments, **options):
    raise Killed


@pytest.mark.parametrize("n", [9, 13])
def test_another_number_of_samples_does_not_take_over_an_incomplete_last_item(run, monkeypatch, n):
    """Ten samples lie in items of eight and two; nine or thirteen must not be made of these."""
    expected = sample(again(run), n)
    delete_results(run)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_all", _killed)
        with pytest.raises(Killed):
            sample(again(run), 10)
    found = sample(again(run), n)
    assert len(found) == n
    np.testing.assert_array_equal(found, expected)


def test_more_samples_are_drawn_behind_those_that_are_stored(run):
    first = sample(run, 10)
    more = again(run)
    images = sample(more, 13)
    assert more.evaluations == 3 * T
    np.testing.assert_array_equal(images[:10], first)
    np.testing.assert_array_equal(sample(again(run, limit=0), 5), first[:5])
    assert len(SamplesStage().read(run).images) == 13


def test_samples_of_shorter_chains_and_ddim_are_results_of_their_own(run):
    sample(run, 4)
    sample(run, 4, steps=5)
    sample(run, 4, steps=5, method="ddim")
    sample(run, 4, method="ddim")
    assert run.evaluations == 4 * (T + 5 + 5 + T)
    expected = {"samples", "samples-ancestral-5", "samples-ddim-5", "samples-ddim-all"}
    assert {name for name in names(run) if name.startswith("samples")} == expected
    with pytest.raises(ValueError, match=f"a chain of {T} steps allows 2 to {T}"):
        sample(run, 4, steps=T + 1)


def test_another_spacing_of_the_steps_is_a_result_of_its_own(run):
    usual = sample(run, 4, steps=5, method="ddim")
    leading = SamplesStage(4, 5, "ddim", "leading")
    assert leading.key(run) != SamplesStage(4, 5, "ddim").key(run)
    spaced = bring_about(run, leading).read(run).images
    assert {"samples-ddim-5", "samples-ddim-5-leading"} <= set(names(run))
    assert not np.array_equal(spaced, usual)
    process = run.process(5, "leading")
    assert process.schedule.network_time.tolist() == [-1, 0, 4, 8, 12, 16]
    drawn = draw(make_sampler(process, run.spec.seed, "ddim"), torch.arange(4), run.shape)
    np.testing.assert_array_equal(spaced, to_pixels(drawn).numpy())
    whole = SamplesStage(4, T, "ddim", "leading")
    assert whole.outputs(run) == SamplesStage(4, method="ddim").outputs(run)


def test_a_chain_of_all_steps_is_the_runs_own_however_it_is_named(run):
    images = sample(run, 4)
    np.testing.assert_array_equal(sample(again(run, limit=0), 4, steps=T), images)
    sample(run, 4, method="ddim")
    sample(again(run, limit=0), 4, steps=T, method="ddim")
    mu = again(run, diffusion__prediction="mu")
    assert SamplesStage(4, T).applies(mu) and not SamplesStage(4, 5).applies(mu)


def test_a_shorter_chain_of_a_network_that_predicts_mu_is_refused(run):
    mu = again(run, diffusion__prediction="mu")
    assert is_done(SamplesStage(4, 5), mu)
    with pytest.raises(ValueError, match="the network knows the mean of its own chain only"):
        ensure(SamplesStage(4, 5), mu)


def test_samples_that_are_not_finite_are_a_result(run, monkeypatch):
    """One of ten: it is named, counted, and the run shows as diverged."""
    original = CountedRun.respond

    def respond(self, x_t, timestep):
        output = original(self, x_t, timestep)
        if len(x_t) == 2:  # the second batch: samples 8 and 9
            output[1] = torch.nan
        return output

    monkeypatch.setattr(CountedRun, "respond", respond)
    sample(run, 10)
    assert list(np.isnan(SamplesStage().read(run).out_of_range)) == [False] * 9 + [True]
    log = stored_log(run)
    assert log.diverged and log.reason == "1 of 10 samples are not finite, the first is 9 (seed 3)"
    bring_about(again(run, train__steps=99), TrainingStage())  # which can never go on
    assert stored_log(again(run)).diverged


def overflows(value):
    """Return the response of a network whose output for the second image at t = 3 is ``value``."""

    def respond(self, x_t, timestep):
        output = 0.5 * x_t
        if int(timestep[0]) == 2:
            output[1] = value
        return output

    return respond


@pytest.mark.parametrize("stage", [SamplesStage(4), TrajectoryStage()], ids=["samples", "trajectories"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_samples_that_overflow_in_bf16_are_refused_and_say_nothing_of_the_run(run, stage, value, monkeypatch):
    monkeypatch.setattr(CountedRun, "respond", overflows(value))
    run.runtime = replace(run.runtime, precision="bf16")
    with pytest.raises(NotFinite) as refusal:
        ensure(stage, run)
    assert str(refusal.value) == (
        f"{run.folder}, eps-mse-fixed-large: the network's output is not finite at t = 3 for sample 1 "
        "(computed in bf16: --precision fp32 is the remedy)"
    )
    assert names(run) == {"training", "schedule"} and stored_log(run).status == "ok"


@pytest.mark.parametrize(
    ("stage", "work", "most"),
    [
        (SamplesStage(30_000), "sampling", 30_000),
        (BoundStage("test", (PROTOCOLS["paper"],)), "the bound", 18 * T),
    ],
)
def test_what_does_not_fit_into_memory_is_refused_before_it_starts(run, stage, work, most, monkeypatch):
    """A batch has at most as many images as there are samples, or terms of the bound."""
    monkeypatch.setattr(evaluation_memory, "available_bytes", lambda runtime: 10**7)
    run.size = 10**9
    with pytest.raises(ValueError, match=f"{work} of tiny in batches of {most} needs about"):
        ensure(stage, run)
    assert run.evaluations == 0 and names(run) == {"training", "schedule"}


def test_nothing_is_measured_of_samples_that_are_not_finite(run, monkeypatch):
    monkeypatch.setattr(CountedRun, "respond", overflows(torch.inf))
    sample(run, 4)
    samples = SamplesStage(4).read(run)
    with pytest.raises(ValueError, match="1 samples are not finite, the first is sample 1: nothing can be"):
        samples.finite_images(4)
    np.testing.assert_array_equal(samples.finite_images(1), samples.images[:1])


def test_interpolations_that_are_not_finite_are_refused(run, monkeypatch):
    monkeypatch.setattr(CountedRun, "respond", overflows(torch.inf))
    with pytest.raises(NotFinite, match=rf"latent space of t = {T // 2} is not finite"):
        ensure(InterpolationStage(pairs=2), run)
    assert "interpolation" not in names(run)


def test_samples_of_earlier_weights_are_not_those_of_the_present_ones(run):
    stage = SamplesStage(4)
    sample(run, 4)
    longer = again(run, train__steps=9)
    bring_about(longer, TrainingStage())
    assert stage.n_stored(longer) == 0 and not is_done(stage, longer)
    with pytest.raises(ValueError, match="holds no samples of the run's present weights"):
        stage.read(longer)


def test_two_processes_share_samples(run):
    expected = sample(again(run), 20)
    delete_results(run)
    both = together(run)
    side_by_side(lambda process: ensure(SamplesStage(20), process), both)
    np.testing.assert_array_equal(SamplesStage().read(run).images, expected)
    assert [process.evaluations for process in both] == [(8 + 4) * T, 8 * T]


def test_the_time_of_samples_is_kept(run):
    sample(run, 10)
    seconds = SamplesStage().read(run).seconds
    assert (seconds > 0).all() and len(set(seconds)) == 2  # one for each batch


# Trajectories


def follow(run):
    stage = bring_about(run, TrajectoryStage())
    return run.results.get("progressive", Trajectory, stage.key(run))


def test_the_trajectory_ends_in_the_samples(run):
    path = follow(run)
    images = sample(run, 10)
    assert path.t[0] == T and path.t[-1] == 1 and (np.diff(path.t) < 0).all()
    assert path.x_0_hat.shape == (len(path.t), N_FOLLOWED, 1, 8, 8)
    difference = np.abs(path.x_0_hat[-1].astype(int) - images[:N_FOLLOWED])
    assert difference.max() <= 1  # other batches
    count = run.evaluations
    follow(run)
    assert run.evaluations == count


def test_following_samples_draws_them(run):
    follow(run)
    assert len(SamplesStage().read(run).images) == N_FOLLOWED
    fresh = again(run)
    sample(fresh, 10)
    assert fresh.evaluations == (10 - N_FOLLOWED) * T
    expected = SamplesStage().read(run).images
    delete_results(run)
    found = sample(again(run), 10)  # without having been followed
    assert np.abs(found.astype(int) - expected).max() <= 1  # other batches


def test_following_loses_no_stored_samples_and_adds_what_is_missing(run):
    """Samples that are there stay as they are; those that are followed beyond them are put behind."""
    images = sample(run, 5)
    follow(again(run))
    np.testing.assert_array_equal(SamplesStage().read(run).images, images)
    more = again(run, evaluation__n_curve=8)
    assert not is_done(TrajectoryStage(), more) and not is_done(SamplesStage(8), more)
    follow(more)
    assert is_done(TrajectoryStage(), more) and is_done(SamplesStage(8), more)
    found = SamplesStage().read(run).images
    np.testing.assert_array_equal(found[:5], images)
    np.testing.assert_array_equal(found, sample(more, 8))
    fewer = again(run, evaluation__n_curve=0, limit=0)
    assert is_done(TrajectoryStage(), fewer)  # of more than the two that are needed


def test_killed_trajectories_continue(run):
    some = {"evaluation__n_progressive": 20}
    expected = follow(again(run, **some))
    delete_results(run)
    with pytest.raises(Killed):
        follow(again(run, limit=10 * T, **some))
    second = again(run, **some)
    np.testing.assert_array_equal(follow(second).x_0_hat, expected.x_0_hat)
    assert second.evaluations == 12 * T


# Interpolations


def test_interpolations_are_between_test_images(run):
    bring_about(run, InterpolationStage(pairs=2))
    found = run.results.get("interpolation", Interpolations)
    source, target = different_pairs(run.test_images, 2)
    np.testing.assert_array_equal(found.source, run.test_images.array[source])
    np.testing.assert_array_equal(found.target, run.test_images.array[target])
    assert found.t == T // 2 and found.images.shape == (11, 2, 1, 8, 8)
    np.testing.assert_allclose(found.weight, np.linspace(0, 1, 11))
    assert run.evaluations == InterpolationStage(pairs=2).network_evaluations(run) == 11 * 2 * (T // 2)


def test_each_time_has_a_result_of_its_own(run):
    """T / 2 keeps the name of all results from before there was a choice."""
    bring_about(run, InterpolationStage(pairs=2))
    several = InterpolationStage((T, T // 2, 5), pairs=1)
    assert [output.name for output in several.outputs(run)] == [
        *("interpolation-20", "interpolation", "interpolation-5"),
    ]
    bring_about(run, InterpolationStage((T, 5), pairs=1))
    assert {name for name in names(run) if name.startswith("interpolation")} == {
        *("interpolation-20", "interpolation", "interpolation-5"),
    }
    for t, name in ((T, "interpolation-20"), (T // 2, "interpolation"), (5, "interpolation-5")):
        assert run.results.get(name, Interpolations).t == t
    counted = again(run)
    bring_about(counted, InterpolationStage((5, T), pairs=1))
    assert counted.evaluations == 0


def test_the_times_of_fig_9_are_the_eighths_but_the_half():
    assert other_times(1000) == (125, 250, 375, 625, 750, 875, 1000)
    assert other_times(2) == (2,)


def test_several_times_at_once_cost_what_each_does_alone(run):
    stage = bring_about(run, InterpolationStage(other_times(T), pairs=1))
    assert run.evaluations == stage.network_evaluations(run) == 11 * sum(other_times(T))
    found = run.results.get("interpolation-5", Interpolations)
    alone = again(run)
    delete_results(run)
    bring_about(alone, InterpolationStage((5,), pairs=1))
    np.testing.assert_allclose(
        alone.results.get("interpolation-5", Interpolations).images.astype(int), found.images, atol=1
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 0, 1, 2, 1], [(0, 3), (1, 4), (2, 5)]),
        ([0, 1, 0, 1, 0, 1], [(0, 1), (2, 3), (4, 5)]),
        ([0, 1, 0, 0, 0, 0], [(0, 1), (2, 3), (4, 5)]),  # there are no more of another class
        (None, [(0, 1), (2, 3), (4, 5)]),
    ],
)
def test_pairs_are_of_different_classes_as_long_as_there_are_any(labels, expected):
    images = from_array(np.zeros((6, 1, 8, 8), np.uint8), labels=None if labels is None else np.array(labels))
    assert list(map(tuple, different_pairs(images, 3).T)) == expected
    assert list(map(tuple, different_pairs(images, 1).T)) == expected[:1]


@pytest.mark.parametrize(("t", "pairs"), [(T + 1, 2), (0, 2), (T // 2, 0), (T // 2, 11)])
def test_interpolations_that_cannot_be_are_refused(run, t, pairs):
    message = r"t is \d+, but this chain has times 1 to 20|pairs asked for, but the test set has 20 images"
    with pytest.raises(ValueError, match=message):
        ensure(InterpolationStage((5, t), pairs), run)
    assert "interpolation" not in names(run)


def test_a_test_set_without_enough_pairs_is_left_out_of_plans(run):
    assert InterpolationStage(pairs=10).applies(run) and not InterpolationStage(pairs=11).applies(run)


def test_only_the_main_process_interpolates(run):
    both = together(run)
    side_by_side(lambda process: ensure(InterpolationStage(pairs=1), process), both)
    assert both[0].evaluations > 0 and both[1].evaluations == 0
    assert "interpolation" in names(run)


def test_the_shortest_chain_has_a_time_to_interpolate_at(run):
    assert InterpolationStage().latent_times(again(run, diffusion__timesteps=3)) == (1,)


# What they cost


def test_the_cost_of_samples_is_what_is_missing_of_them(run):
    stage = SamplesStage()
    n = TINY.evaluation.n_samples
    assert stage.network_evaluations(run) == n * T
    assert SamplesStage(7, 5).network_evaluations(run) == 7 * 5
    assert stage.network_evaluations(run, [TrajectoryStage()]) == (n - N_FOLLOWED) * T
    assert stage.network_evaluations(run, [SamplesStage(6), SamplesStage(8, 5)]) == (n - 6) * T
    assert SamplesStage(6).network_evaluations(run, [stage]) == 0
    sample(run, 4)
    assert stage.network_evaluations(run) == (n - 4) * T
    assert stage.network_evaluations(run, [SamplesStage(2)]) == (n - 4) * T


def test_the_cost_of_trajectories_is_all_of_them(run):
    cost = TrajectoryStage().network_evaluations(run)
    follow(run)
    assert run.evaluations == cost == N_FOLLOWED * T
