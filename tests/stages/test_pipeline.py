"""The order of stages: nothing is done twice, nothing stale is kept, and one process or two give the same
results.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import HERE, TINY, digits

from ddpm_eval.metrics import bound, timestep_sampling
from ddpm_eval.metrics.bound import NotFinite
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.protocol import COMPARED, PROTOCOLS, combine
from ddpm_eval.results import records
from ddpm_eval.results.records import (
    FullBoundTerms,
    Interpolations,
    Samples,
    StratifiedBoundTerms,
    TrainingLog,
    Trajectory,
    array_fields,
    bound_name,
)
from ddpm_eval.results.store import Store
from ddpm_eval.runtime import Runtime
from ddpm_eval.spec_text import override
from ddpm_eval.stages import likelihood, scheduler
from ddpm_eval.stages.likelihood import Likelihood
from ddpm_eval.stages.pipeline import Run, open_run, stages
from ddpm_eval.stages.scheduler import Job
from ddpm_eval.training import loop
from ddpm_eval.training import trainer as trainers

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[2]
T = TINY.diffusion.timesteps
PAPER, EXACT = PROTOCOLS["paper"], PROTOCOLS["exact"]
N_TEST, INEXACT = 20, (3, 7)


class Killed(Exception):
    """Stands for a kill: nothing that was not written is left."""


class Counted(Run):
    """A run that counts its network evaluations, and is killed when they exceed ``limit``; small batches and
    chunks.
    """

    evaluations = 0
    limit = 10**9
    size = 8

    def evaluate(self, x_t, timestep):
        if self.evaluations + len(x_t) > self.limit:
            raise Killed
        self.evaluations += len(x_t)
        return super().evaluate(x_t, timestep)

    @property
    def batch_size(self):
        return self.size


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(likelihood, "CHUNK_IMAGES", 4)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """The tiny run on 60 real digits, two of whose test images are declared inexact."""
    path = tmp_path_factory.mktemp("data") / "few.npz"
    labels = {"y_train": digits().labels[:40], "y_test": digits("test").labels[:N_TEST]}
    images = {"x_train": digits().array[:40], "x_test": digits("test").array[:N_TEST]}
    np.savez(path, **images, **labels, inexact_test=np.array(INEXACT))
    return override(TINY, {"data.name": f"npz:{path}"})


@pytest.fixture(scope="module")
def trained(spec, tmp_path_factory):
    """A folder with the tiny run, trained."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert Run(folder, spec, HERE).train().status == "ok"
    return folder


@pytest.fixture
def run(trained, spec, tmp_path):
    """A fresh copy of the trained run."""
    shutil.copytree(trained, tmp_path / "run")
    return Counted(tmp_path / "run", spec, HERE)


def again(run, limit=10**9, **settings):
    """Return what a new process would see of a run, with other settings."""
    changes = {key.replace("__", "."): str(value) for key, value in settings.items()}
    fresh = Counted(run.folder, override(run.spec, changes), run.runtime)
    fresh.limit = limit
    return fresh


def atoms(run, split="test", protocol=PAPER, few=False):
    return run.store.get(bound_name(split, protocol, few), StratifiedBoundTerms if few else FullBoundTerms)


def names(run):
    return {entry.name for entry in run.store.entries()}


# Training


def test_training_stores_its_log_and_the_chains_tables(run):
    log = run.store.get("training", TrainingLog)
    assert (log.status, log.steps) == ("ok", TINY.train.steps) and names(run) == {"training", "schedule"}
    facts = {entry.name: entry.provenance for entry in run.store.entries()}["training"]
    assert facts["spec"] == run.spec.model_dump(mode="json") and facts["run"] == run.spec.training_digest()
    assert (
        facts["device"].startswith("CPU") and facts["precision"] == "fp32" and facts["weights"] == run.weights
    )


def test_a_checkpoint_that_its_log_does_not_know_is_not_called_trained(run):
    """Killed between a checkpoint and the log: what the log says is of other weights."""
    before = (run.folder / "results.h5").read_bytes()
    longer = again(run, train__steps=9)
    longer.train()
    (run.folder / "results.h5").write_bytes(before)
    assert not again(run, train__steps=9).trained() and not again(run).trained()
    again(run, train__steps=9).record_training()
    assert again(run, train__steps=9).trained()


def test_training_is_done_once(run, monkeypatch):
    assert run.trained()
    monkeypatch.setattr(loop, "train", lambda *arguments, **options: pytest.fail("trained again"))
    assert run.train().steps == TINY.train.steps


def test_a_longer_training_makes_new_weights_and_measures_anew(run):
    run.sample(4)
    longer = again(run, train__steps=8)
    assert not longer.trained() and longer.weights == run.weights
    assert longer.train().steps == 8 and longer.trained()
    assert longer.weights != run.weights
    longer.sample(4)
    assert longer.evaluations == 4 * T


def test_a_stopped_training_is_not_done(spec, tmp_path):
    first = Run(tmp_path, spec, HERE)
    assert first.train(max_minutes=1e-9).status == "stopped" and not first.trained()
    second = Run(tmp_path, spec, HERE)
    assert second.train().status == "ok" and second.trained()


def test_a_diverged_training_is_over_and_nothing_else_is_measured(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(
        trainers, "training_loss", lambda process, objective, x_0, t, eps: torch.full((len(t),), torch.nan)
    )
    monkeypatch.setattr(trainers.Trainer, "update", _diverge)
    job = Job(tmp_path / "run", spec, ("train", "sample"), device="cpu")
    assert scheduler.pending(job) == ["train", "sample"]
    scheduler.execute(job, None, lambda *arguments: None)
    store = Store(tmp_path / "run" / "results.h5")
    assert {entry.name for entry in store.entries()} == {"training", "schedule"}
    assert store.get("training", TrainingLog).diverged and scheduler.pending(job) == []


def _diverge(trainer, batch):
    trainer.log[:, trainer.step] = torch.nan
    trainer.step += 1


def test_the_training_of_a_checkpoint_is_recorded_as_it_is(spec, tmp_path):
    """A stopped run that is measured is not trained on the way, and its results are known to be of its
    present weights.
    """
    Run(tmp_path, spec, HERE).train(max_minutes=1e-9)
    Store(tmp_path / "results.h5").path.unlink()
    content = (tmp_path / "checkpoint.safetensors").read_bytes()
    run = open_run(tmp_path, HERE)
    run.record_training()
    log = run.store.get("training", TrainingLog)
    assert (
        log.status == "stopped"
        and 0 < log.steps < TINY.train.steps
        and names(run) == {"training", "schedule"}
    )
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == content and not run.trained()
    before = run.store.path.stat().st_mtime_ns
    run.record_training()
    assert run.store.path.stat().st_mtime_ns == before


def test_a_folder_without_a_run_and_the_run_of_another_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"holds no checkpoint\.safetensors \(train the run first"):
        open_run(tmp_path / "nothing", HERE)
    assert open_run(run.folder, HERE).spec == run.spec
    other = again(run, diffusion__prediction="mu")
    for use in (
        other.train,
        other.record_training,
        lambda: other.sample(4),
        lambda: other.likelihood("test", [PAPER]),
    ):
        with pytest.raises(
            ValueError, match=r"belongs to another run \(diffusion\.prediction: eps, not mu\)"
        ):
            use()
    assert names(run) == {"training", "schedule"}


# The bound


def test_the_bound_is_measured_of_every_exact_image_at_every_step(run):
    run.likelihood("test", [PAPER, EXACT])
    kept = [i for i in range(N_TEST) if i not in INEXACT]
    assert run.evaluations == len(kept) * T  # two protocols, one evaluation
    load = Likelihood(run, "test")._load
    for protocol in (PAPER, EXACT):
        found = atoms(run, protocol=protocol)
        np.testing.assert_array_equal(found.image_id, kept)
        assert (found.split, found.dimensions, found.inexact_left_out) == ("test", 64, 2)
        assert found.protocol == protocol.model_dump_json()
        for row, t in [(0, 1), (5, 13), (17, T)]:  # stored as float32; a batch of one rounds differently
            pair = (load(np.array([kept[row]])), torch.tensor([kept[row]]), torch.tensor([t]))
            term, error = bound.evaluate([run.model().reading(protocol)], *pair, seed=run.spec.seed)
            assert found.terms[row, t - 1] == pytest.approx(float(term), rel=1e-4)
            assert found.x_0_squared_error[row, t - 1] == pytest.approx(float(error), rel=1e-4)
    count = run.evaluations
    run.likelihood("test", [PAPER, EXACT])
    assert run.evaluations == count


def test_the_training_images_are_a_fixed_subset(run):
    run.likelihood("train", [PAPER])
    first = atoms(run, "train").image_id
    assert len(set(first)) == TINY.evaluation.n_train_images == len(first) and first.max() < 40
    assert not np.array_equal(first, np.arange(len(first)))  # not the first ones, which may be alike
    more = again(run, evaluation__n_train_images=10)
    more.likelihood("train", [PAPER])
    assert set(first) < set(atoms(more, "train").image_id)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_killed_bound_continues_without_repeating_finished_chunks(run, share):
    whole = N_TEST - len(INEXACT)
    reference = again(run)
    reference.likelihood("test", [PAPER, EXACT])
    expected = [atoms(reference, protocol=p) for p in (PAPER, EXACT)]
    run.store.path.unlink()
    first = again(run, limit=int(share * whole * T))
    with pytest.raises(Killed):
        first.likelihood("test", [PAPER, EXACT])
    assert not {name for name in names(run) if name.startswith("bound")}
    second = again(run)
    second.likelihood("test", [PAPER, EXACT])
    chunk = 4 * T
    finished = first.evaluations // chunk * chunk
    assert second.evaluations == whole * T - finished
    for before, protocol in zip(expected, (PAPER, EXACT), strict=True):
        found = atoms(second, protocol=protocol)
        np.testing.assert_array_equal(found.terms, before.terms)
        np.testing.assert_array_equal(found.x_0_squared_error, before.x_0_squared_error)
    assert not list((run.folder / "partial").glob("*"))


def test_draws_are_evaluated_and_counted(run):
    run.likelihood("test", [combine(PAPER, draws=2)])
    assert run.evaluations == 2 * T * (N_TEST - len(INEXACT))


def test_the_stratified_bound_reads_the_full_ones_terms_at_a_fraction(run):
    run.likelihood("test", [PAPER, EXACT], few=True)
    n, count = N_TEST - len(INEXACT), TINY.evaluation.evaluations_per_image
    pilot = min(n, timestep_sampling.PILOT_IMAGES) * len(timestep_sampling.pilot_times(T))
    assert run.evaluations == n * count + pilot
    full = again(run)
    full.likelihood("test", [PAPER, EXACT])
    for protocol in (PAPER, EXACT):
        few, every = atoms(run, protocol=protocol, few=True), atoms(full, protocol=protocol)
        assert few.network_evaluations == run.evaluations
        row, column = np.nonzero(few.t)
        for a, b in ((few.terms, every.terms), (few.x_0_squared_error, every.x_0_squared_error)):
            # float32 networks in batches of another make-up, stored in float32
            np.testing.assert_allclose(a[row, column], b[row, few.t[row, column] - 1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(few.prior, every.prior, rtol=1e-12)
        assert (few.split, few.inexact_left_out) == ("test", 2)


def test_a_stratified_bound_does_not_depend_on_what_is_measured_with_it(run):
    """A kill between two protocols' results leaves the second to be measured alone."""
    run.likelihood("test", [PAPER, EXACT], few=True)
    together = atoms(run, protocol=EXACT, few=True)
    run.store.path.unlink()
    alone = again(run).likelihood("test", [EXACT], few=True).result(EXACT)
    np.testing.assert_array_equal(alone.t, together.t)
    np.testing.assert_array_equal(alone.terms, together.terms)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_killed_stratified_bound_continues_without_repeating_finished_chunks(run, share):
    reference = again(run)
    reference.likelihood("test", [PAPER, EXACT], few=True)
    expected, whole = atoms(reference, few=True), reference.evaluations
    run.store.path.unlink()
    first = again(run, limit=int(share * whole))
    with pytest.raises(Killed):
        first.likelihood("test", [PAPER, EXACT], few=True)
    second = again(run)
    second.likelihood("test", [PAPER, EXACT], few=True)
    assert share == 0 or second.evaluations < whole
    for field in array_fields(StratifiedBoundTerms):
        np.testing.assert_array_equal(
            getattr(atoms(second, few=True), field.name), getattr(expected, field.name)
        )
    assert not list((run.folder / "partial").glob("*"))


class Together(Runtime):
    """One of two processes that meet at ``gate``, as threads."""

    gate, votes = threading.Barrier(2), [False, False]

    def barrier(self):
        self.gate.wait(timeout=60)

    def any_process(self, value):
        self.votes[self.rank] = value
        self.barrier()
        agreed = any(self.votes)
        self.barrier()
        return agreed


def together(run):
    """Return a run as two processes see it."""
    both = [again(run), again(run)]
    for rank, process in enumerate(both):
        process.runtime = Together(HERE.device, rank, world_size=2)
    return both


@pytest.mark.parametrize("few", [False, True])
def test_two_processes_share_a_bound_and_each_shows_all_of_it(run, few):
    alone = again(run)
    alone.likelihood("test", [PAPER], few=few)
    expected = atoms(alone, few=few)
    run.store.path.unlink()
    both, seen = together(run), ([], [])
    for rank, process in enumerate(both):
        process.progress = lambda stage, done, total, rank=rank: seen[rank].append((done, total))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda process: process.likelihood("test", [PAPER], few=few), both))
    for field in array_fields(type(expected)):
        np.testing.assert_array_equal(getattr(atoms(run, few=few), field.name), getattr(expected, field.name))
    assert sum(process.evaluations for process in both) == alone.evaluations
    assert min(process.evaluations for process in both) > alone.evaluations / 3
    whole = (N_TEST - len(INEXACT)) * (TINY.evaluation.evaluations_per_image if few else T)
    for work in seen:
        assert work == sorted(work) and work[0] == (0, whole) and work[-1] == (whole, whole)


@pytest.mark.parametrize("few", [False, True])
def test_an_output_that_is_not_finite_ends_both_processes_with_the_reason(run, few, monkeypatch):
    original = Counted.evaluate
    monkeypatch.setattr(
        Counted,
        "evaluate",
        lambda self, x_t, t: original(self, x_t, t) * (torch.nan if self.runtime.rank else 1.0),
    )

    def measure(process):
        with pytest.raises(NotFinite) as caught:
            process.likelihood("test", [PAPER], few=few)
        return str(caught.value)

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(measure, together(run)))
    assert "on another process" in said[0] and "not finite at t = " in said[1]
    assert names(run) == {"training", "schedule"}


def test_evaluations_are_given_over_all_images(run):
    n, pilot = N_TEST - len(INEXACT), timestep_sampling.PILOT_IMAGES * len(timestep_sampling.pilot_times(T))
    assert Likelihood(run, "test").with_evaluations(pilot + 5 * n + 3).evaluation.evaluations_per_image == 5
    with pytest.raises(ValueError, match=rf"each image needs at least 2, together {pilot + 2 * n}"):
        Likelihood(run, "test").with_evaluations(pilot + 2 * n - 1)


def test_the_optimal_variance_minimises_every_term_of_the_images_it_is_estimated_from(run):
    """sigma^2 = beta_tilde + E|mu_tilde - mu|^2 / D is each KL term's minimum over a common variance (Bao et
    al. 2022).
    """
    variants = [combine(EXACT, variance=name) for name in ("optimal", "fixed-small", "fixed-large")]
    run.likelihood("train", variants)
    optimal, *others = (atoms(run, "train", p).terms[:, 1:].mean(0, dtype=np.float64) for p in variants)
    for other in others:
        assert (optimal <= other + 1e-4 * np.abs(other)).all()
    assert (optimal < 0.99 * np.minimum(*others)).any()
    variance, schedule = (
        Likelihood(run, "test").optimal_variance(variants[0]),
        make_schedule(run.spec.diffusion),
    )
    error = atoms(run, "train", EXACT).x_0_squared_error.mean(0, dtype=np.float64)
    a, previous = schedule.alpha_bar[1:].numpy(), schedule.alpha_bar[:-1].numpy()
    weight = np.sqrt(previous) * schedule.beta[1:].numpy() / (1 - a)  # of x_0 in mu_tilde, Eq. 7
    np.testing.assert_allclose(variance[1:], schedule.beta_tilde[1:].numpy() + weight**2 * error, rtol=1e-10)


def test_a_shorter_chain_has_a_bound_of_its_own(run):
    run.likelihood("test", [PAPER], chain=5)
    n = N_TEST - len(INEXACT)
    assert run.evaluations == 5 * n
    short = run.store.get(bound_name("test", PAPER, chain=5), FullBoundTerms)
    assert short.terms.shape == (n, 5)
    run.likelihood("test", [PAPER])
    full = atoms(run)
    np.testing.assert_array_equal(short.prior, full.prior)  # the chains end in the same x_T
    kinds = [Likelihood(run, "test", chain=chain).key(PAPER) for chain in (None, 4, 5)]
    assert len(set(kinds)) == 3
    mu = again(run, diffusion__prediction="mu")
    with pytest.raises(ValueError, match="a network that predicts mu knows the mean of its own chain only"):
        mu.model(5)


# Samples


def test_samples_are_drawn_once(run):
    images = run.sample(10)
    assert images.shape == (10, 1, 8, 8) and images.dtype == np.uint8 and run.evaluations == 10 * T
    np.testing.assert_array_equal(run.sample(10), images)
    assert run.evaluations == 10 * T
    record = run.store.get("samples", Samples)
    assert (record.method, record.sampling_steps, record.seed) == ("ancestral", T, TINY.seed)


def test_a_sample_depends_neither_on_their_number_nor_on_the_batches(run):
    """Batches of another size round differently in float32: by one level of 256 at the most, in few
    elements.
    """
    images = run.sample(10)
    for size, n in [(3, 10), (8, 5), (16, 13)]:
        run.store.path.unlink()
        other = again(run)
        other.size = size
        found = other.sample(n)
        difference = np.abs(found[:10].astype(int) - images[: len(found)])
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_killed_sampling_continues_without_repeating_finished_chunks(run, share):
    n = 30  # in chunks of 8, 8, 8, 6
    expected = again(run).sample(n)
    run.store.path.unlink()
    first = again(run, limit=int(share * n * T))
    with pytest.raises(Killed):
        first.sample(n)
    second = again(run)
    np.testing.assert_array_equal(second.sample(n), expected)
    assert second.evaluations == n * T - first.evaluations // (8 * T) * 8 * T


def test_a_kill_just_before_the_result_is_stored_costs_nothing(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", _killed)
        with pytest.raises(Killed):
            run.sample(10)
    second = again(run, limit=0)
    assert len(second.sample(10)) == 10


def _killed(*arguments, **options):
    raise Killed


@pytest.mark.parametrize("n", [9, 13])
def test_another_number_of_samples_does_not_take_over_an_incomplete_last_chunk(run, monkeypatch, n):
    """Ten samples lie in chunks of eight and two; nine or thirteen must not be made of these."""
    expected = again(run).sample(n)
    run.store.path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", _killed)
        with pytest.raises(Killed):
            again(run).sample(10)
    found = again(run).sample(n)
    assert len(found) == n
    np.testing.assert_array_equal(found, expected)


def test_more_samples_are_drawn_behind_those_that_are_stored(run):
    few = run.sample(10)
    more = again(run)
    images = more.sample(13)
    assert more.evaluations == 3 * T
    np.testing.assert_array_equal(images[:10], few)
    np.testing.assert_array_equal(again(run, limit=0).sample(5), few[:5])
    assert len(run.store.get("samples", Samples).images) == 13


def test_strided_and_ddim_samples_are_results_of_their_own(run):
    run.sample(4)
    run.sample(4, steps=5)
    run.sample(4, steps=5, method="ddim")
    run.sample(4, method="ddim")
    assert run.evaluations == 4 * (T + 5 + 5 + T)
    expected = {"samples", "samples-ancestral-5", "samples-ddim-5", f"samples-ddim-{T}"}
    assert {name for name in names(run) if name.startswith("samples")} == expected
    with pytest.raises(ValueError, match=f"a chain of {T} steps allows 2 to {T}"):
        run.sample(4, steps=T + 1)


def test_samples_that_are_not_finite_are_a_result(run, monkeypatch):
    """One of ten: it is named, counted, and the run shows as diverged; nothing is measured of it after
    that.
    """
    original = Counted.evaluate

    def evaluate(self, x_t, timestep):
        output = original(self, x_t, timestep)
        if len(x_t) == 2:  # the second batch: samples 8 and 9
            output[1] = torch.nan
        return output

    monkeypatch.setattr(Counted, "evaluate", evaluate)
    run.sample(10)
    assert list(np.isnan(run.store.get("samples", Samples).out_of_range)) == [False] * 9 + [True]
    log = run.store.get("training", TrainingLog)
    assert log.diverged and log.reason == "1 of 10 samples are not finite, the first is 9 (seed 3)"
    assert again(run).train().diverged


def test_the_trajectory_ends_in_the_samples(run):
    run.progressive()
    images, path = run.sample(10), run.store.get("progressive", Trajectory)
    assert path.t[0] == T and path.t[-1] == 1 and (np.diff(path.t) < 0).all()
    assert path.x_0_hat.shape == (len(path.t), TINY.evaluation.n_progressive, 1, 8, 8)
    difference = np.abs(path.x_0_hat[-1].astype(int) - images[: TINY.evaluation.n_progressive])
    assert difference.max() <= 1  # other batches
    count = run.evaluations
    run.progressive()
    assert run.evaluations == count


def test_interpolations_are_between_test_images(run):
    run.interpolate(pairs=2)
    found = run.store.get("interpolation", Interpolations)
    np.testing.assert_array_equal(found.source, run.test_images.array[:2])
    np.testing.assert_array_equal(found.target, run.test_images.array[2:4])
    assert found.t == T // 4 and found.images.shape == (11, 2, 1, 8, 8)
    for t, pairs in [(T + 1, 2), (None, 0), (None, 11)]:
        with pytest.raises(ValueError, match=r"this chain has times 1 to|pairs asked for"):
            run.interpolate(t, pairs)


# What a result depends on


def keys(run, protocol=PAPER, steps=T, method="ancestral"):
    """Return the keys of all results that a run would store."""
    optimal = combine(protocol, variance="optimal")
    return {
        "bound": Likelihood(run, "test").key(protocol),
        "bound of training images": Likelihood(run, "train").key(protocol),
        "optimal bound": Likelihood(run, "test").key(optimal),
        "stratified bound": Likelihood(run, "test", few=True).key(protocol),
        "samples": run.sample_key(steps, method)[1],
        "progressive": run._progressive_key(),
        "interpolation": run._interpolation_key(3, 2),
        "reals": run._reals_key(),
    }


ALL = {
    "bound",
    "bound of training images",
    "optimal bound",
    "stratified bound",
    "samples",
    "progressive",
    "interpolation",
}
BOUNDS = {name for name in ALL if "bound" in name}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"evaluation__n_samples": 11}, set()),  # only those that are missing are drawn
        ({"evaluation__n_train_images": 7}, {"bound of training images", "optimal bound"}),
        ({"evaluation__evaluations_per_image": 5}, {"stratified bound"}),
        ({"evaluation__n_progressive": 3}, set()),  # drawn again only if there are too few
        ({"train__steps": 99}, set()),  # until they are taken
        ({"train__checkpoint_steps": 99}, set()),
        ({"preset": "other"}, set()),
    ],
)
def test_a_setting_changes_the_keys_of_what_it_shapes_and_no_others(run, change, expected):
    before, after = keys(run), keys(again(run, **change))
    assert {name for name in before if before[name] != after[name]} == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"protocol": EXACT}, BOUNDS),
        ({"protocol": combine(PAPER, draws=2)}, BOUNDS),
        ({"protocol": combine(PAPER, clip=False)}, BOUNDS),
        ({"protocol": combine(PAPER, decoder="exact")}, BOUNDS),
        ({"steps": 5}, {"samples"}),
        ({"method": "ddim"}, {"samples"}),
    ],
)
def test_a_choice_changes_the_keys_of_what_it_shapes_and_no_others(run, change, expected):
    before, after = keys(run), keys(run, **change)
    assert {name for name in before if before[name] != after[name]} == expected


def test_precision_and_weights_change_every_measured_key_and_the_number_of_processes_none(run):
    before = keys(run)
    run.runtime = dataclasses.replace(HERE, precision="bf16")
    assert {name for name, key in keys(run).items() if key != before[name]} == ALL
    run.runtime = dataclasses.replace(HERE, rank=1, world_size=4)
    assert keys(run) == before
    longer = again(run, train__steps=8)
    longer.runtime = HERE
    longer.train()
    assert {name for name, key in keys(longer).items() if key != before[name]} == ALL


def test_results_of_another_precision_are_kept_beside_the_first(run):
    run.likelihood("test", [PAPER])
    run.sample(4)
    run.interpolate(pairs=1)
    lower = again(run)
    lower.runtime = dataclasses.replace(HERE, precision="bf16")
    found = lower.likelihood("test", [PAPER]).result(PAPER)
    lower.sample(4)
    lower.interpolate(pairs=1)
    measured = {"bound/test/paper", "samples", "interpolation"}
    assert names(run) == {"training", "schedule", *measured, *(f"bf16/{name}" for name in measured)}
    full = atoms(run)
    np.testing.assert_array_equal(full.prior, found.prior)  # the arithmetic around the network is the same
    difference = np.abs(full.terms - found.terms).max() / np.abs(full.terms).max()
    assert 0 < difference < 0.1  # bf16 has eight bits
    count = run.evaluations
    run.likelihood("test", [PAPER])
    run.sample(4)
    assert run.evaluations == count


def test_compared_protocols_have_names_of_their_own():
    assert len({protocol.name for protocol in COMPARED}) == len(COMPARED) == 6


# Jobs


STAGES = (
    "train",
    "reals",
    "bound-train",
    "bound-test-protocols",
    "bound-test-stratified",
    "progressive",
    "sample",
)


def test_a_job_is_brought_through_its_stages_once(spec, tmp_path):
    job, seen = Job(tmp_path / "run", spec, STAGES, device="cpu"), []
    assert scheduler.pending(job) == list(STAGES)
    scheduler.execute(job, None, lambda stage, done, total: seen.append((stage, done, total)))
    assert scheduler.pending(job) == []
    store = Store(tmp_path / "run" / "results.h5")
    expected = {"training", "schedule", "reals", "samples", "progressive"}
    expected |= {bound_name("train", p) for p in (PAPER, EXACT)} | {bound_name("test", p) for p in COMPARED}
    expected |= {bound_name("test", p, few=True) for p in (PAPER, EXACT)}
    assert {entry.name for entry in store.entries()} == expected
    content = store.path.read_bytes()
    scheduler.execute(job, None, lambda *arguments: pytest.fail("something was done twice"))
    assert store.path.read_bytes() == content
    for stage in {"train", "bound-train", "bound-test-protocols", "bound-test-stratified", "sample"}:
        work = [(done, total) for name, done, total in seen if name == stage]
        assert work == sorted(work) and work[-1][0] == work[-1][1], (
            stage
        )  # it ends at all of it, and never goes back
    assert {name for name, *_ in seen} <= {*STAGES, *(stage + scheduler.STORED for stage in STAGES)}
    assert [name for name, *_ in seen if name.endswith(scheduler.STORED)] == [
        stage + scheduler.STORED for stage in STAGES
    ]


def test_a_job_whose_samples_diverge_ends_there(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "evaluate", lambda self, x_t, timestep: x_t * torch.nan)
    job = Job(tmp_path / "run", TINY, ("train", "sample", "progressive"), device="cpu")
    scheduler.execute(job, None, lambda *arguments: None)
    store = Store(tmp_path / "run" / "results.h5")
    assert store.get("training", TrainingLog).diverged
    assert "progressive" not in {entry.name for entry in store.entries()} and scheduler.pending(job) == []


def test_every_stage_says_whether_it_is_done(run):
    curious = again(run, evaluation__n_curve=5)
    for name, stage in stages().items():
        assert stage.done(curious) == (name == "train")


@pytest.mark.slow
def test_jobs_run_side_by_side_as_they_would_alone(spec, tmp_path, run):
    listed = [
        Job(tmp_path / name, override(spec, {"seed": seed}), ("train", "sample"), device="cpu")
        for name, seed in [("a", "3"), ("b", "4")]
    ]
    missing = {job.name: scheduler.pending(job) for job in listed}
    seen, done = [], []
    scheduler.run_all(
        listed, missing, 2, lambda *event: seen.append(event), lambda job: done.append(job.name)
    )
    assert sorted(done) == ["a", "b"] and {name for name, *_ in seen} == {"a", "b"}
    for job in listed:
        alone = Run(tmp_path / "alone" / job.name, job.spec, HERE)
        log = alone.train()
        found = Store(job.folder / "results.h5")
        np.testing.assert_allclose(
            found.get("training", TrainingLog).loss, log.loss, rtol=1e-4
        )  # of another number of threads
        assert found.get("samples", Samples).images.shape == (TINY.evaluation.n_samples, 1, 8, 8)
        assert scheduler.pending(job) == []
    stranger = Job(run.folder, override(spec, {"seed": "5"}), ("train",), device="cpu")
    with pytest.raises(ValueError, match=r"belongs to another run \(seed: 3, not 5\)"):
        scheduler.run_all([stranger], {stranger.name: ["train"]}, 2, lambda *event: None, lambda job: None)


# Two processes


JUDGED = ("--protocol", "torch-fidelity")  # which is not kept with the run, so it is measured each time
SMALL = {
    "network.base_channels": "8",
    "diffusion.timesteps": "12",
    "train.steps": "20",
    "train.batch_size": "16",
    "train.warmup_steps": "5",
    "evaluation.n_samples": "600",
    "evaluation.n_train_images": "40",
}


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", "cli.py", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(tmp_path, monkeypatch):
    """Training to rounding, samples and atoms of the same weights bit by bit: the pieces are the same,
    whoever takes them.

    Two processes add the gradients of two halves of a batch: float32 rounding, about 1e-7 of a gradient.
        Adam's division makes
    this up to 1e-3 of a learning rate where a gradient is small, and 20 updates carry it on: losses are equal
    to 1e-3.
    """
    from experiments.paper.presets import preset, run_name
    from experiments.rate_distortion import STAGES as STAGES_TOGETHER

    monkeypatch.undo()  # chunks of the usual size, as the processes have
    spec = preset("digits", settings=SMALL)
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    folders = ["--runs", tmp_path / "runs", "--reports", tmp_path / "reports"]
    output = torchrun("rate-distortion", *folders, "--device", "cpu", *settings)
    assert output.count("Report:") == 1  # one process speaks
    both = tmp_path / "runs" / "digits" / run_name(spec)
    torchrun("sample", both, "--device", "cpu")
    judged = torchrun("quality", both, "--device", "cpu", *JUDGED)

    log, alone = (
        Store(both / "results.h5").get("training", TrainingLog),
        Run(tmp_path / "alone", spec, HERE).train(),
    )
    assert (log.status, log.steps, log.images) == (alone.status, alone.steps, alone.images) == ("ok", 20, 320)
    np.testing.assert_allclose(log.loss, alone.loss, rtol=1e-3)
    np.testing.assert_allclose(log.gradient_norm, alone.gradient_norm, rtol=1e-2)
    assert not np.array_equal(log.loss, alone.loss)  # it was another computation

    (tmp_path / "same").mkdir()
    shutil.copy(both / "checkpoint.safetensors", tmp_path / "same")
    scheduler.execute(
        Job(tmp_path / "same", spec, (*STAGES_TOGETHER, "sample"), device="cpu"), None, lambda *event: None
    )
    found, reference = Store(both / "results.h5"), Store(tmp_path / "same" / "results.h5")
    results = {entry.name: entry.record for entry in found.entries()}
    assert results == {entry.name: entry.record for entry in reference.entries()}
    assert {"FullBoundTerms", "StratifiedBoundTerms", "Samples", "TrainingLog"} <= set(results.values())
    for name, record in results.items():
        a, b = (store.get(name, getattr(records, record)) for store in (found, reference))
        for field in (field for field in array_fields(type(a)) if field.name != "seconds"):
            np.testing.assert_array_equal(
                getattr(a, field.name), getattr(b, field.name), err_msg=f"{name} {field.name}"
            )
    assert {entry.provenance["device"] for entry in found.entries()} == {"CPU, 2 processes of 1 threads"}
    assert not list((both / "partial").rglob("*.h5"))
    statistics_cache = both.parent.parent / "classifiers" / "statistics.h5"
    statistics_cache.unlink()
    alone = subprocess.run(
        [sys.executable, "cli.py", "quality", str(both), *JUDGED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert alone.returncode == 0 and alone.stdout == judged, (
        alone.stderr
    )  # the same features, and one process speaks
    assert statistics_cache.exists()
