"""Jobs: what each still needs and costs, brought about once, side by side or by two processes alike."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from counted_run import CountedRun, again, bring_about, delete_results
from tiny import HERE, TINY
from two_processes import ROOT, torchrun

from ddpm_eval.metrics import timestep_sampling
from ddpm_eval.protocol import COMPARED, PROTOCOLS
from ddpm_eval.results import bound_terms, records
from ddpm_eval.results.bound_terms import bound_name
from ddpm_eval.results.fields import array_fields
from ddpm_eval.results.obstacles import reasons_left_out
from ddpm_eval.results.records import Samples, TrainingLog
from ddpm_eval.results.store import Store
from ddpm_eval.runtime import ProgressEvent
from ddpm_eval.spec_text import override
from ddpm_eval.stages import scheduler
from ddpm_eval.stages.image_stages import ReferenceImagesStage
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.sampling_stages import InterpolationStage
from ddpm_eval.stages.scheduler import Job
from ddpm_eval.stages.training_stage import TrainingStage, stored_log
from ddpm_eval.training import loop, trainer
from experiments.paper.presets import preset, run_name
from experiments.plan import RATE_DISTORTION, REPRODUCE

T = TINY.diffusion.timesteps
PAPER, EXACT = PROTOCOLS["paper"], PROTOCOLS["exact"]
N_TEST, N_TRAIN = 18, TINY.evaluation.n_train_images
PILOT = timestep_sampling.PILOT_IMAGES * len(timestep_sampling.pilot_times(T))
STAGES = (
    "train",
    "reference-images",
    "bound-train",
    "bound-test-protocols",
    "bound-test-stratified",
    "progressive",
    "sample",
)


def silent(event):
    """Ignore an event."""


def job_of(run, *names, **settings):
    """Return the job that brings a run through some stages, under other settings."""
    return Job(run.folder, again(run, **settings).spec, names, device="cpu")


def results(job):
    return Store(job.folder / "results.h5")


# What is pending, and what it costs


def test_the_cost_of_the_bounds_is_that_of_their_images(run):
    cost = scheduler.pending(
        job_of(run, "train", "bound-train", "bound-test", "bound-test-stratified", "bound-test-protocols")
    )
    assert cost == {
        "bound-train": N_TRAIN * T,
        "bound-test": N_TEST * T,
        "bound-test-stratified": N_TEST * TINY.evaluation.evaluations_per_image + PILOT,
        "bound-test-protocols": N_TEST * T,  # four more protocols
    }
    fewer = scheduler.pending(job_of(run, "bound-test", "bound-train", evaluation__n_test_images=5))
    assert fewer == {"bound-test": 5 * T, "bound-train": N_TRAIN * T}


def test_shorter_chains_and_the_curve_over_steps_are_not_free(run):
    cost = scheduler.pending(
        job_of(
            run,
            "bound-test-chains",
            "sample",
            "quality-steps-ancestral",
            "quality-steps-ddim",
            evaluation__n_curve=8,
        )
    )
    pilot = timestep_sampling.PILOT_IMAGES * len(timestep_sampling.pilot_times(10))
    chain = N_TEST * TINY.evaluation.evaluations_per_image + pilot
    assert cost == {
        "bound-test-chains": chain + N_TRAIN * T,  # variance optimal needs the training images' bound first
        "sample": TINY.evaluation.n_samples * T,
        "quality-steps-ancestral": 8 * 10,
        "quality-steps-ddim": 8 * 10,
    }


def test_samples_that_another_stage_draws_are_counted_once(run):
    cost = scheduler.pending(job_of(run, "progressive", "sample", "quality"))
    followed = TINY.evaluation.n_progressive
    assert cost == {
        "progressive": followed * T,
        "sample": (TINY.evaluation.n_samples - followed) * T,
        "quality": 0,
    }
    assert scheduler.pending(job_of(run, "quality")) == {"quality": TINY.evaluation.n_samples * T}


def test_what_was_counted_is_what_is_evaluated(run, monkeypatch):
    """The sum over the stages of a job, and every stage by itself."""
    without = ("coverage", "neighbours")
    names = [name for name in REPRODUCE if "quality" not in name and name not in without]
    cost = scheduler.pending(job_of(run, *names))
    assert set(cost) == set(names) - {"train"}
    counted = {}
    for name in names:
        process = CountedRun(run.folder, run.spec, HERE)
        for stage in scheduler.stages(process)[name]:
            bring_about(process, stage)
        counted[name] = process.evaluations
    assert {name: count for name, count in counted.items() if name != "train"} == cost
    assert scheduler.pending(job_of(run, *names)) == {}


def test_training_costs_its_images_and_all_else_is_counted_before_it(spec, tmp_path):
    job = Job(tmp_path / "run", spec, STAGES, device="cpu")
    cost = scheduler.pending(job)
    assert list(cost) == list(STAGES)
    assert cost["train"] == 3 * TINY.train.steps * TINY.train.batch_size
    assert cost["bound-test-protocols"] == N_TEST * T and cost["reference-images"] == 0
    assert not (tmp_path / "run").exists()


def test_asking_what_is_pending_trains_nothing(run, monkeypatch):
    """Not even a run whose checkpoint is complete while its results are gone."""
    monkeypatch.setattr(loop, "train", lambda *arguments, **options: pytest.fail("it trained"))
    monkeypatch.setattr(Run, "network", property(lambda run: pytest.fail("it evaluated the network")))
    delete_results(run)
    before = sorted(run.folder.rglob("*"))
    assert list(scheduler.pending(job_of(run, "train", "sample", "quality"))) == [
        "train",
        "sample",
        "quality",
    ]
    assert list(scheduler.pending(job_of(run, "train", "sample", train__steps=99))) == ["train", "sample"]
    assert sorted(run.folder.rglob("*")) == before


def test_another_run_in_the_folder_is_refused(run):
    stranger = job_of(run, "train", seed=5)
    with pytest.raises(ValueError, match=r"belongs to another run \(seed: 3, not 5\)"):
        scheduler.pending(stranger)


# Bringing jobs through


def test_a_job_is_brought_through_its_stages_once(spec, tmp_path):
    job, seen = Job(tmp_path / "run", spec, STAGES, device="cpu"), []
    assert list(scheduler.pending(job)) == list(STAGES)
    scheduler.execute(job, None, seen.append)
    assert scheduler.pending(job) == {}
    store = results(job)
    expected = {"training", "schedule", "reference-images", "samples", "progressive"}
    expected |= {bound_name("train", p) for p in (PAPER, EXACT)} | {bound_name("test", p) for p in COMPARED}
    expected |= {bound_name("test", p, "stratified") for p in (PAPER, EXACT)}
    assert {entry.name for entry in store.entries()} == expected
    content = store.path.read_bytes()
    scheduler.execute(job, None, lambda event: pytest.fail("something was done twice"))
    assert store.path.read_bytes() == content
    assert {event.job for event in seen} == {"run"}
    for stage in {"train", "bound-train", "bound-test-protocols", "bound-test-stratified", "sample"}:
        work = [(e.done, e.total) for e in seen if e.stage == stage and not e.stored]
        assert work == sorted(work) and work[-1][0] == work[-1][1], (
            stage
        )  # it ends at all and never goes back
    assert {event.stage for event in seen} == set(STAGES)
    assert [event.stage for event in seen if event.stored] == list(STAGES)
    assert all(event.done == event.total for event in seen if event.stored)


def test_stages_that_do_not_apply_are_left_out(run):
    mu = Run(run.folder.parent / "mu", override(run.spec, {"diffusion.prediction": "mu"}), HERE)
    job = Job(mu.folder, mu.spec, ("train", "bound-test-chains", "quality-steps-ddim"), device="cpu")
    assert list(scheduler.pending(job)) == ["train"]
    scheduler.execute(job, None, silent)
    assert {entry.name for entry in results(job).entries()} == {"training", "schedule"}


def test_of_the_parts_of_a_stage_those_that_apply_are_brought_about(run, monkeypatch):
    parts = (ReferenceImagesStage(), InterpolationStage(pairs=99))
    monkeypatch.setattr(scheduler, "stages", lambda run, inception_weights=None: {"mixed": parts})
    job = job_of(run, "mixed")
    scheduler.execute(job, None, silent)
    assert {entry.name for entry in results(job).entries()} == {"training", "schedule", "reference-images"}
    assert scheduler.pending(job) == {}


def _diverge(one, batch):
    one.log[:, one.step] = torch.nan
    one.step += 1


def test_a_diverged_training_is_over_and_nothing_else_is_measured(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.Trainer, "update", _diverge)
    job = Job(tmp_path / "run", spec, ("train", "sample"), device="cpu")
    assert list(scheduler.pending(job)) == ["train", "sample"]
    scheduler.execute(job, None, silent)
    store = results(job)
    assert {entry.name for entry in store.entries()} == {"training", "schedule"}
    assert store.get("training", TrainingLog).diverged and scheduler.pending(job) == {}


def test_a_job_whose_samples_diverge_ends_there(run, monkeypatch):
    network = Run.network.func
    monkeypatch.setattr(Run, "network", property(lambda run: lambda x_t, t: network(run)(x_t, t) * torch.nan))
    job = job_of(run, "train", "sample", "progressive")
    scheduler.execute(job, None, silent)
    store = results(job)
    assert store.get("training", TrainingLog).diverged
    assert "progressive" not in {entry.name for entry in store.entries()} and scheduler.pending(job) == {}


def test_too_few_samples_are_refused_before_training(digits_classifier, tmp_path):
    """Not after hours: the classifier has 64 features, and ten samples are asked for."""
    shutil.copytree(digits_classifier.weights_path.parent, tmp_path / "classifiers")
    job = Job(tmp_path / "run", TINY, ("train", "sample", "quality"), device="cpu")
    with pytest.raises(ValueError, match="10 images are too few"):
        scheduler.execute(job, None, silent)
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_training_the_classifier_tells_its_progress_before_the_stages_begin(tmp_path):
    enough = override(TINY, {"evaluation.n_samples": "70", "train.steps": "1"})
    seen = []
    with pytest.raises(KeyboardInterrupt):
        scheduler.execute(
            Job(tmp_path / "run", enough, ("train", "sample", "quality"), device="cpu"), None, until(seen, 3)
        )
    assert [(e.job, e.stage, e.done) for e in seen] == [
        ("run", "training the classifier", done) for done in (0, 1, 2)
    ]


def until(seen, count):
    """Return a function that notes events, and interrupts at the last of so many."""

    def note(event):
        seen.append(event)
        if len(seen) == count:
            raise KeyboardInterrupt

    return note


def test_a_job_whose_folder_is_in_use_is_refused(run):
    job = job_of(run, "train")
    with scheduler.locked_folder(run.folder), pytest.raises(ValueError, match="is in use by another process"):
        scheduler.execute(job, None, silent)


@pytest.mark.slow
def test_jobs_run_side_by_side_as_they_would_alone(spec, tmp_path, run):
    jobs = [
        Job(tmp_path / name, override(spec, {"seed": seed}), ("train", "sample"), device="cpu")
        for name, seed in [("a", "3"), ("b", "4")]
    ]
    missing = {job.name: scheduler.pending(job) for job in jobs}
    seen, done = [], []
    scheduler.run_all(jobs, missing, 2, seen.append, lambda job: done.append(job.name))
    assert sorted(done) == ["a", "b"] and {event.job for event in seen} == {"a", "b"}
    assert all(isinstance(event, ProgressEvent) for event in seen)
    for job in jobs:
        alone = Run(tmp_path / "alone" / job.name, job.spec, HERE)
        bring_about(alone, TrainingStage())
        found = results(job).get("training", TrainingLog)
        np.testing.assert_allclose(found.loss, stored_log(alone).loss, rtol=1e-4)  # other numbers of threads
        samples = results(job).get("samples", Samples)
        assert samples.images.shape == (TINY.evaluation.n_samples, 1, 8, 8)
        assert scheduler.pending(job) == {}
    stranger = Job(run.folder, override(spec, {"seed": "5"}), ("train",), device="cpu")
    with pytest.raises(ValueError, match=r"belongs to another run \(seed: 3, not 5\)"):
        scheduler.run_all([stranger], {stranger.name: {"train": 1}}, 2, silent, lambda job: None)


# Two processes


TORCH_FIDELITY = ("--protocol", "torch-fidelity")  # which is not kept with the run: it is measured each time
SMALL = {
    "network.base_channels": "8",
    "diffusion.timesteps": "12",
    "train.steps": "20",
    "train.batch_size": "16",
    "train.warmup_steps": "5",
    "evaluation.n_samples": "600",
    "evaluation.n_train_images": "40",
}


def stored_record(store, entry):
    """Read the record that an entry describes."""
    module = bound_terms if hasattr(bound_terms, entry.record) else records
    return store.get(entry.name, getattr(module, entry.record), entry.key)


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(tmp_path, monkeypatch):
    """Training to rounding, samples and terms of the same weights bit by bit: the items are the same.

    Two processes add the gradients of two halves of a batch: float32 rounding, about 1e-7 of a gradient.
    Adam's division makes this up to 1e-3 of a learning rate where a gradient is small, and 20 updates carry
    it on: losses are equal to 1e-3.
    """
    monkeypatch.undo()  # items of the usual size, as the processes have
    spec = preset("digits", settings=SMALL)
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    folders = ["--runs", tmp_path / "runs", "--reports", tmp_path / "reports"]
    choices = ["--preset", "digits", "--device", "cpu", *settings]
    output = torchrun("rate-distortion", *folders, *choices)
    assert output.count("Report:") == 1  # one process speaks
    both = tmp_path / "runs" / "digits" / run_name(spec)
    torchrun("sample", both, "--device", "cpu")
    measured = torchrun("quality", both, "--device", "cpu", *TORCH_FIDELITY)

    one = Run(tmp_path / "alone", spec, HERE)
    bring_about(one, TrainingStage())
    log, alone = Store(both / "results.h5").get("training", TrainingLog), stored_log(one)
    assert (log.status, log.steps, log.images) == (alone.status, alone.steps, alone.images) == ("ok", 20, 320)
    np.testing.assert_allclose(log.loss, alone.loss, rtol=1e-3)
    np.testing.assert_allclose(log.gradient_norm, alone.gradient_norm, rtol=1e-2)
    assert not np.array_equal(log.loss, alone.loss)  # it was another computation

    (tmp_path / "same").mkdir()
    shutil.copy(both / "checkpoint.safetensors", tmp_path / "same")
    scheduler.execute(Job(tmp_path / "same", spec, (*RATE_DISTORTION, "sample"), device="cpu"), None, silent)
    found, reference = Store(both / "results.h5"), Store(tmp_path / "same" / "results.h5")
    entries = [entry for entry in found.entries() if entry.name != "coverage"]  # of quality
    kinds = {(entry.name, entry.key): entry.record for entry in entries}
    assert kinds == {(entry.name, entry.key): entry.record for entry in reference.entries()}
    assert {"FullBoundTerms", "StratifiedBoundTerms", "Samples", "TrainingLog"} <= set(kinds.values())
    for entry in entries:
        a, b = stored_record(found, entry), stored_record(reference, entry)
        for field in (field for field in array_fields(type(a)) if field.name != "seconds"):
            np.testing.assert_array_equal(
                getattr(a, field.name), getattr(b, field.name), err_msg=f"{entry.name} {field.name}"
            )
    assert {entry.provenance["device"] for entry in found.entries()} == {"CPU, 2 processes of 1 threads"}
    assert not list((both / "partial").rglob("*.h5"))
    statistics_cache = both.parent.parent / "classifiers" / "statistics.h5"
    statistics_cache.unlink()
    command = [sys.executable, "cli.py", "quality", str(both), *TORCH_FIDELITY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == measured  # the same features, and one process speaks
    assert statistics_cache.exists()


def test_it_is_noted_why_a_stage_was_left_out_until_it_is_brought_about(run, monkeypatch):
    job = job_of(run, "interpolate")
    with monkeypatch.context() as patch:
        patch.setattr(InterpolationStage, "obstacle", lambda stage, run: "too few images")
        scheduler.execute(job, None, silent)
    assert reasons_left_out(run.folder) == {"interpolate": "too few images"}
    with monkeypatch.context() as patch:
        patch.setattr(InterpolationStage, "compute_all", _fail)
        with pytest.raises(ValueError, match="the disk is gone"):
            scheduler.execute(job, None, silent)
    assert reasons_left_out(run.folder) == {"interpolate": "the stage interpolate failed: the disk is gone"}
    scheduler.execute(job, None, silent)
    assert reasons_left_out(run.folder) == {}


def _fail(*arguments):
    raise ValueError("the disk is gone")


def test_a_test_set_too_small_for_the_pairs_is_said(run):
    assert InterpolationStage(pairs=11).obstacle(run) == (
        "interpolations need 22 test images, but there are 20"
    )
    assert InterpolationStage(pairs=10).obstacle(run) == ""
