"""A run's resources: its checkpoint, its network as the specification wants it, and what is stored of it."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from counted_run import again, bring_about, measure_bound, names
from tiny import HERE, TINY

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results.records import ReferenceImages
from ddpm_eval.results.store import Result
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.bound_stage import BoundStage
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.run_folders import open_run
from ddpm_eval.stages.sampling_stages import InterpolationStage, SamplesStage
from ddpm_eval.stages.training_stage import TrainingStage, record_training
from ddpm_eval.training.checkpoint import load

T = TINY.diffusion.timesteps
PAPER = PROTOCOLS["paper"]


def test_a_folder_without_a_run_and_the_run_of_another_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"holds no checkpoint\.safetensors \(train the run first"):
        open_run(tmp_path / "nothing", HERE)
    assert open_run(run.folder, HERE).spec == run.spec
    other = again(run, diffusion__prediction="mu")
    uses = [lambda stage=stage: ensure(stage, other) for stage in (TrainingStage(), SamplesStage(4))]
    uses += [lambda: record_training(other), lambda: ensure(BoundStage("test", (PAPER,)), other)]
    for use in uses:
        message = r"belongs to another run \(diffusion\.prediction: eps, not mu\)"
        with pytest.raises(ValueError, match=message):
            use()
    assert names(run) == {"training", "schedule"}


def test_the_network_has_the_averaged_weights_and_does_not_train(run):
    network = Run(run.folder, run.spec, HERE).network
    assert not network.training
    saved = load(run.checkpoint, prefixes=("ema/", "model/"))
    for name, value in network.state_dict().items():
        assert torch.equal(value, saved.part("ema/")[name])
    assert any(
        not torch.equal(value, saved.part("model/")[name]) for name, value in saved.part("ema/").items()
    )
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 5, T - 1])
    with torch.inference_mode():
        torch.testing.assert_close(run.network(x, t), network(x, t), rtol=0, atol=0)


def test_weights_are_those_of_the_checkpoint_until_they_are_forgotten(run, tmp_path):
    untrained = Run(tmp_path / "new", run.spec, HERE)
    assert untrained.weights == ""
    (tmp_path / "new").mkdir()
    shutil.copy(run.checkpoint, untrained.checkpoint)
    assert untrained.weights == ""  # read once, for all keys of one run of a program
    untrained.forget_weights()
    assert untrained.weights == run.weights != ""
    assert untrained.header.step == TINY.train.steps


def test_a_shorter_chain_is_spaced_evenly_where_the_network_serves_it(run):
    assert run.schedule().timesteps == run.schedule(T).timesteps == T
    short = run.schedule(5)
    assert short.timesteps == 5 and short.network_time[-1] == T - 1
    assert set((short.network_time[2:] - short.network_time[1:-1]).tolist()) <= {4, 5}
    assert torch.equal(short.alpha_bar[-1], run.schedule().alpha_bar[-1])
    assert run.no_fewer_steps == ""
    in_range = {"diffusion__variance": "learned-range", "diffusion__objective": "vlb"}
    assert again(run, **in_range).no_fewer_steps == ""


@pytest.mark.parametrize(
    ("fields", "known"),
    [({"prediction": "mu"}, "mean"), ({"variance": "learned", "objective": "vlb"}, "variance")],
)
def test_a_network_of_its_own_chain_serves_no_shorter_one(run, fields, known):
    own = again(run, **{f"diffusion__{name}": value for name, value in fields.items()})
    assert own.schedule(T).timesteps == T
    with pytest.raises(ValueError, match=f"the network knows the {known} of its own chain only"):
        own.model(5)


def test_samples_are_drawn_with_estimates_clipped_and_the_trained_variance(run):
    process = run.process()
    assert process.clip and process.prediction == "eps"
    assert torch.equal(process.variance[1:], run.schedule().fixed_variance("fixed-large")[1:])


def test_shape_and_batch_size_follow_the_specification(run):
    assert run.shape == (1, 8, 8)
    assert Run(run.folder, run.spec, HERE).batch_size == HERE.batch_size(8, TINY.network.base_channels)


def test_images_are_loaded_once_and_of_their_split(run):
    assert run.train_images is run.train_images
    assert (len(run.train_images), len(run.test_images)) == (40, 20)
    assert (run.train_images.split, run.test_images.split) == ("train", "test")


# What is stored of it


def record():
    return ReferenceImages(images=np.zeros((2, 1, 8, 8), np.uint8), name="digits", split="train")


def test_results_say_how_they_came_about(run):
    run.results.put_all([Result("images", record(), "key")], seconds=1.23456)
    entry = run.results.entry("images")
    assert entry.provenance["spec"] == run.spec.model_dump(mode="json")
    assert entry.provenance["run"] == run.spec.training_digest()
    assert entry.provenance["weights"] == run.weights
    assert entry.provenance["device"].startswith("CPU") and entry.provenance["precision"] == "fp32"
    assert entry.provenance["wall_seconds"] == 1.235
    assert run.results.entry("images", "key") == entry
    assert run.results.entry("images", "other") is None and run.results.entry("nothing") is None


def test_only_the_main_process_stores(run):
    second = again(run)
    second.runtime = dataclasses.replace(HERE, rank=1, world_size=2)
    second.results.put_all([Result("images", record(), "key")], seconds=0.0)
    assert not run.results.has("images", "key")
    run.results.put_all([], seconds=0.0)
    assert names(run) == {"training", "schedule"}


def test_results_of_another_precision_are_kept_beside_the_first(run):
    def measure(one):
        (terms,) = measure_bound(one, PAPER)
        bring_about(one, SamplesStage(4))
        bring_about(one, InterpolationStage(pairs=1))
        return terms

    full = measure(run)
    lower = again(run)
    lower.runtime = dataclasses.replace(HERE, precision="bf16")
    found = measure(lower)
    measured = {"bound/full/test/paper", "samples", "interpolation"}
    assert names(run) == {"training", "schedule", *measured, *(f"bf16/{name}" for name in measured)}
    np.testing.assert_array_equal(full.prior, found.prior)  # the arithmetic around the network is the same
    difference = np.abs(full.terms - found.terms).max() / np.abs(full.terms).max()
    assert 0 < difference < 0.1  # bf16 has eight bits
    count = run.evaluations
    measure(run)
    assert run.evaluations == count


def test_work_in_progress_lies_in_a_folder_for_each_stage(run):
    first, second = run.work("bound/full/test/paper", "a"), run.work("samples", "b")
    assert first.folder == run.folder / "partial" / "bound-full-test-paper"
    assert second.folder == run.folder / "partial" / "samples"
