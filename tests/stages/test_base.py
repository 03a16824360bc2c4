"""What brings a stage about: computed once, in order, by all processes together, and stored in one step."""

import dataclasses

import numpy as np
import pytest
from counted_run import Killed, again, bring_about, names, partial_files
from tiny import HERE, TINY
from two_processes import side_by_side, together

from ddpm_eval.protocol import COMPARED, PROTOCOLS, combine
from ddpm_eval.results.records import ReferenceImages
from ddpm_eval.results.store import Store
from ddpm_eval.stages.base import Output, Stage, ensure, is_done, result_key
from ddpm_eval.stages.bound_stage import BoundStage
from ddpm_eval.stages.image_stages import ReferenceImagesStage
from ddpm_eval.stages.sampling_stages import InterpolationStage, SamplesStage, TrajectoryStage
from ddpm_eval.stages.shared_work import SharedWork
from ddpm_eval.stages.training_stage import TrainingStage

PAPER, EXACT = PROTOCOLS["paper"], PROTOCOLS["exact"]
T = TINY.diffusion.timesteps


class FakeStage(Stage):
    """A stage that notes when it is computed."""

    record = ReferenceImages

    def __init__(self, name, log, requires=(), applies=True):
        self.name, self.log, self.required, self.can = name, log, requires, applies

    def requires(self, run):
        return self.required

    def applies(self, run):
        return self.can

    def key(self, run):
        return result_key(run, self.name)

    def compute(self, run, work):
        self.log.append((self.name, run.runtime.rank))
        pixels = np.full((1, 1, 8, 8), len(self.log), np.uint8)
        return ReferenceImages(images=pixels, name=self.name, split="train") if run.runtime.main else None


def test_the_decoder_of_training_is_no_part_of_a_results_key(run):
    """The weights say it, and results from before there was the choice keep their keys."""
    diffusion = run.spec.diffusion.model_copy(update={"training_decoder": "tanh"})
    other = dataclasses.replace(run, spec=run.spec.model_copy(update={"diffusion": diffusion}))
    assert result_key(other, "samples") == result_key(run, "samples")


def test_what_is_required_is_done_first_and_nothing_twice(run):
    log = []
    first = FakeStage("first", log)
    second = FakeStage("second", log, [first])
    third = FakeStage("third", log, [first, second])
    ensure(third, run)
    assert [name for name, _ in log] == ["first", "second", "third"]
    assert all(is_done(stage, run) for stage in (first, second, third))
    content = run.results.store.path.read_bytes()
    for stage in (third, second, first):
        ensure(stage, again(run))
    assert len(log) == 3 and run.results.store.path.read_bytes() == content


def test_a_stage_that_does_not_apply_is_done_but_not_stored(run):
    stage = FakeStage("never", [], applies=False)
    assert is_done(stage, run) and not stage.is_stored(run)


def test_all_processes_compute_and_the_main_one_stores(run):
    log = []
    both = together(run)
    side_by_side(lambda process: ensure(FakeStage("shared", log), process), both)
    assert sorted(log) == [("shared", 0), ("shared", 1)]
    assert run.results.has("shared", FakeStage("shared", log).key(run))
    side_by_side(lambda process: ensure(FakeStage("shared", log), process), both)
    assert len(log) == 2


def test_processes_agree_whether_there_is_something_to_do(run, monkeypatch):
    """One that finds the result stored computes all the same if another does not: they share the work."""
    log = []
    ensure(FakeStage("shared", log), run)
    monkeypatch.setattr(FakeStage, "is_stored", lambda stage, process: process.runtime.main)
    side_by_side(lambda process: ensure(FakeStage("shared", log), process), together(run))
    assert sorted(log[1:]) == [("shared", 0), ("shared", 1)]


def test_a_kill_just_before_the_result_is_stored_costs_nothing(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_all", _killed)
        with pytest.raises(Killed):
            bring_about(run, SamplesStage(10))
    assert partial_files(run)
    second = again(run, limit=0)
    assert len(bring_about(second, SamplesStage(10)).read(second).images) == 10
    assert not partial_files(run)


def _killed(*arguments, **options):
    raise Killed


def test_items_that_a_kill_left_after_their_result_was_stored_are_removed_at_the_next_start(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(SharedWork, "clear", _killed)
        with pytest.raises(Killed):
            ensure(SamplesStage(10), run)
    assert SamplesStage(10).is_stored(run) and partial_files(run)
    ensure(SamplesStage(10), again(run, limit=0))
    assert not (run.folder / "partial" / "samples").exists()


def test_items_of_unfinished_work_stay_though_a_smaller_result_is_stored(run):
    """More samples have the key of fewer: their unfinished items are not those of the stored ones."""
    ensure(SamplesStage(4), run)
    first = again(run, limit=T + 5)
    first.size = 1
    with pytest.raises(Killed):
        ensure(SamplesStage(10), first)
    left = sorted(partial_files(run))
    assert left
    ensure(SamplesStage(4), again(run))
    assert sorted(partial_files(run)) == left


def test_work_in_progress_of_one_stage_outlives_another(run):
    """A long stage that was interrupted goes on, whatever was measured in between."""
    bound = BoundStage("test", (PAPER,))
    first = again(run, limit=9 * T)
    with pytest.raises(Killed):
        ensure(bound, first)
    for other in (BoundStage("test", (PAPER,), "stratified"), SamplesStage(3), SamplesStage(3, 5)):
        ensure(other, again(run))
    second = again(run)
    ensure(bound, second)
    assert second.evaluations == (18 - 8) * T  # two items of four images were finished


# What a result depends on


def keys(run, protocol=PAPER, steps=None, method="ancestral"):
    """Return the keys of all results that a run would store."""
    optimal = combine(protocol, variance="optimal")
    stages = {
        "bound": BoundStage("test", (protocol,)),
        "bound of training images": BoundStage("train", (protocol,)),
        "optimal bound": BoundStage("test", (optimal,)),
        "stratified bound": BoundStage("test", (protocol,), "stratified"),
        "samples": SamplesStage(num_steps=steps, method=method),
        "progressive": TrajectoryStage(),
        "interpolation": InterpolationStage((3,), 2),
        "reference images": ReferenceImagesStage(),
    }
    return {name: stage.key(run) for name, stage in stages.items()}


BOUNDS = {"bound", "bound of training images", "optimal bound", "stratified bound"}
ALL = {*BOUNDS, "samples", "progressive", "interpolation"}


def changed(before, after):
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"evaluation__n_samples": 11}, set()),  # only those that are missing are drawn
        ({"evaluation__n_train_images": 7}, {"bound of training images", "optimal bound"}),
        ({"evaluation__n_test_images": 7}, BOUNDS - {"bound of training images"}),
        ({"evaluation__evaluations_per_image": 5}, {"stratified bound"}),
        ({"evaluation__n_progressive": 3}, set()),  # drawn again only if there are too few
        ({"train__steps": 99}, set()),  # until they are taken
        ({"train__checkpoint_steps": 99}, set()),
        ({"preset": "other"}, set()),
    ],
)
def test_a_setting_changes_the_keys_of_what_it_shapes_and_no_others(run, change, expected):
    assert changed(keys(run), keys(again(run, **change))) == expected


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
    assert changed(keys(run), keys(run, **change)) == expected


CONSTANTS = [
    ("ddpm_eval.stages.sampling_stages.TRAJECTORY_STEPS", 10, {"progressive"}),
    ("ddpm_eval.stages.sampling_stages.INTERPOLATION_WEIGHTS", (0.0, 0.5, 1.0), {"interpolation"}),
    ("ddpm_eval.stages.image_stages.N_REFERENCE_IMAGES", 10, {"reference images"}),
    ("ddpm_eval.metrics.timestep_sampling.DESIGN_CONSTANTS", (9,), {"stratified bound"}),
    ("ddpm_eval.stages.bound_stage.SUBSET_SEED", 1, {"bound of training images", "optimal bound"}),
]


@pytest.mark.parametrize(("constant", "value", "expected"), CONSTANTS)
def test_a_constant_changes_the_keys_of_what_it_shapes_and_no_others(
    run, monkeypatch, constant, value, expected
):
    before = keys(run)
    monkeypatch.setattr(constant, value)
    assert changed(before, keys(run)) == expected


def test_precision_and_weights_change_every_measured_key_and_the_number_of_processes_none(run):
    before = keys(run)
    run.runtime = dataclasses.replace(HERE, precision="bf16")
    assert changed(before, keys(run)) == ALL
    run.runtime = dataclasses.replace(HERE, rank=1, world_size=4)
    assert keys(run) == before
    longer = again(run, train__steps=8)
    longer.runtime = HERE
    ensure(TrainingStage(), longer)
    assert changed(before, keys(longer)) == ALL


def test_what_is_stored_has_the_names_and_keys_of_the_outputs(run):
    stage = FakeStage("one", [])
    assert stage.outputs(run) == (Output("one", stage.key(run)),)
    ensure(stage, run)
    assert names(run) == {"training", "schedule", "one"}


def test_compared_protocols_have_names_of_their_own():
    assert len({protocol.name for protocol in COMPARED}) == len(COMPARED) == 6
