"""Every stage has one name, by which plans ask for it."""

from counted_run import again
from tiny import TINY

from ddpm_eval.protocol import COMPARED, PROTOCOLS
from ddpm_eval.stages.base import is_done
from ddpm_eval.stages.bound_stage import BoundStage
from ddpm_eval.stages.quality_stages import FeatureSource, QualityStage
from ddpm_eval.stages.registry import stages

NAMES = {
    "train",
    "reference-images",
    "baseline",
    "simple-codes",
    "bound-train",
    "bound-test",
    "bound-test-protocols",
    "bound-test-stratified",
    "bound-test-protocols-stratified",
    "bound-train-stratified",
    "bound-test-chains",
    "sample",
    "progressive",
    "shared-latents",
    "interpolate",
    "interpolate-times",
    "quality",
    "coverage",
    "quality-time",
    "quality-steps-ancestral",
    "quality-steps-ddim",
    "quality-other-variance",
    "neighbours",
}


def test_every_stage_has_a_name(run):
    assert set(stages(run)) == NAMES


def test_every_stage_says_whether_it_is_done(run):
    curious = again(run, evaluation__n_curve=5)
    for name, parts in stages(curious).items():
        assert all(is_done(stage, curious) for stage in parts) == (name == "train")


def test_every_result_has_a_place_of_its_own(run):
    """Two stages share a result only where it is the same one, such as that of a compared protocol."""
    outputs = {}
    for parts in stages(run).values():
        for stage in parts:
            for output in stage.outputs(run):
                assert outputs.setdefault(output.name, output) == output


def test_the_chains_are_the_shorter_ones(run):
    assert [stage.num_steps for stage in stages(run)["bound-test-chains"]] == [10]
    assert TINY.diffusion.timesteps == 20  # not among the shorter ones
    long = again(run, diffusion__timesteps=1000)
    assert [stage.num_steps for stage in stages(long)["bound-test-chains"]] == [10, 20, 50, 100, 200, 500]
    mu = again(run, diffusion__prediction="mu")
    assert not any(stage.applies(mu) for stage in stages(mu)["bound-test-chains"])


def test_the_bounds_are_of_the_named_and_of_the_compared_protocols(run):
    named = (PROTOCOLS["paper"], PROTOCOLS["exact"])
    assert stages(run)["bound-test"] == (BoundStage("test", named),)
    assert stages(run)["bound-test-protocols"] == (BoundStage("test", COMPARED),)
    assert stages(run)["bound-test-protocols-stratified"] == (BoundStage("test", COMPARED, "stratified"),)
    assert stages(run)["bound-train-stratified"] == (BoundStage("train", named[:1], "stratified"),)


def test_quality_is_measured_with_the_weights_that_are_given(run, tmp_path):
    assert stages(run)["quality"] == (QualityStage(),)
    path = tmp_path / "weights.pth"
    assert stages(run, path)["quality"] == (QualityStage(FeatureSource(path)),)
    assert stages(run, path)["neighbours"][0].source == FeatureSource(path)
