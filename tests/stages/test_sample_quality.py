"""Quality of a run: the samples' own, over the reverse process, over numbers of steps, and against copies."""

import dataclasses
import shutil

import numpy as np
import pytest
from tiny import HERE, TINY

from ddpm_eval.metrics import quality
from ddpm_eval.metrics.neighbours import neighbours
from ddpm_eval.results.records import Neighbours, Quality, QualityCurve, Samples, Trajectory
from ddpm_eval.spec_text import override
from ddpm_eval.stages.pipeline import Run
from ddpm_eval.stages.sample_quality import SampleQuality

N, T = 70, TINY.diffusion.timesteps  # one more than the classifier's 64 features must there be
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def spec():
    settings = {"n_samples": N + 10, "n_curve": N, "n_progressive": 3, "n_score_splits": 5}
    return override(TINY, {f"evaluation.{key}": str(value) for key, value in settings.items()})


@pytest.fixture(scope="module")
def trained(spec, digits_classifier, tmp_path_factory):
    """A trained run beside which the classifier lies ready."""
    runs = tmp_path_factory.mktemp("runs")
    shutil.copytree(digits_classifier.weights_path.parent, runs / "classifiers")
    run = Run(runs / "tiny" / "run", spec, HERE)
    run.train()
    run.progressive()
    run.sample()
    return run


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained.folder.parent.parent, tmp_path / "runs")
    return Run(tmp_path / "runs" / "tiny" / "run", trained.spec, HERE)


def test_following_samples_draws_them(run):
    """The first samples are those whose estimates were kept; the last estimate is the mean that becomes the
    sample.
    """
    images, path = run.store.get("samples", Samples).images, run.store.get("progressive", Trajectory)
    assert len(images) == N + 10 and path.x_0_hat.shape[1] == N
    assert np.abs(path.x_0_hat[-1].astype(int) - images[:N]).max() <= 1  # rounding
    fresh = Run(run.folder.parent / "fresh", run.spec, HERE)
    shutil.copytree(run.folder, fresh.folder, ignore=shutil.ignore_patterns("results.h5"))
    fresh.train()
    np.testing.assert_array_equal(fresh.sample(), images)  # without having been followed
    fresh.progressive()
    assert len(fresh.store.get("samples", Samples).images) == N + 10  # none of them is lost


def test_following_more_samples_than_are_stored_replaces_them_by_more(run):
    few = Run(run.folder, override(run.spec, {"evaluation.n_curve": "0"}), HERE)
    assert few.has_trajectories()  # of more than the three that are needed
    more = Run(
        run.folder, override(run.spec, {"evaluation.n_curve": "90", "evaluation.n_samples": "90"}), HERE
    )
    assert not more.has_trajectories() and not more.has_samples()
    before = run.store.get("samples", Samples).images
    more.progressive()
    assert more.has_trajectories() and more.has_samples()
    np.testing.assert_array_equal(more.store.get("samples", Samples).images[: N + 10], before)


def test_the_curve_over_time_has_the_quality_of_each_estimate(run, digits_classifier):
    SampleQuality(run).over_time()
    curve, path = run.store.get("quality-time", QualityCurve), run.store.get("progressive", Trajectory)
    np.testing.assert_array_equal(curve.position, path.t)
    assert (curve.axis, curve.n_samples) == ("t", N) and np.isnan(curve.seconds_per_image).all()
    for k in (0, len(path.t) // 2, len(path.t) - 1):
        alone = measured(run, path.x_0_hat[k], digits_classifier)
        for name in ("frechet_distance", "frechet_distance_low", "score", "score_high"):
            np.testing.assert_allclose(getattr(curve, name)[k], getattr(alone, name), rtol=1e-6)


def measured(run, images, extractor):
    protocol = quality.PROTOCOLS["paper"].model_copy(update={"splits": 5})
    return quality.measure(
        images, run.train_images, extractor, protocol=protocol, metrics=("frechet_distance", "score")
    )


def test_the_curve_over_steps_has_the_quality_of_each_chains_samples(run, digits_classifier):
    for method, steps in (("ancestral", [10, T]), ("ddim", [10])):
        SampleQuality(run).over_steps(method)
        curve = run.store.get(f"quality-steps-{method}", QualityCurve)
        assert list(curve.position) == steps and (curve.axis, curve.method) == ("steps", method)
        assert (curve.seconds_per_image > 0).all()
        for k, count in enumerate(steps):
            alone = measured(run, run.sample(N, count, method), digits_classifier)
            np.testing.assert_allclose(curve.frechet_distance[k], alone.frechet_distance, rtol=1e-6)
    ancestral, ddim = (
        run.store.get(f"samples-{method}-10", Samples).images for method in ("ancestral", "ddim")
    )
    assert not np.array_equal(ancestral, ddim)


def test_the_time_of_a_sample_is_its_batchs(run, monkeypatch):
    """A clock that stands still but for one hour while each batch of 35 is drawn."""
    now = iter(range(0, 10**9, 3600))
    monkeypatch.setattr("ddpm_eval.pipeline.time.monotonic", lambda: float(next(now)))
    monkeypatch.setattr(Run, "batch_size", 35)
    run.sample(N, 5)
    np.testing.assert_array_equal(
        run.store.get("samples-ancestral-5", Samples).seconds, np.full(N, 3600 / 35)
    )


def test_neighbours_are_those_of_the_first_samples(run, digits_classifier):
    SampleQuality(run).nearest()
    found = run.store.get("neighbours", Neighbours)
    expected = neighbours(run.sample(N), run.train_images, run.test_images, digits_classifier)
    np.testing.assert_array_equal(found.pixel_id, expected.pixel_id)
    np.testing.assert_array_equal(found.feature_id, expected.feature_id)
    assert found.n_samples == N and found.pixel_memorisation == expected.pixel_memorisation


def test_a_result_is_made_once_and_anew_when_what_it_depends_on_changes(run, monkeypatch):
    task = SampleQuality(run)
    assert not task.done("quality")
    task.measure()
    assert task.done("quality")
    monkeypatch.setattr(SampleQuality, "_extractor", lambda task: pytest.fail("it was measured again"))
    SampleQuality(Run(run.folder, run.spec, HERE)).measure()
    other = Run(run.folder, override(run.spec, {"evaluation.n_score_splits": "4"}), HERE)
    assert not SampleQuality(other).done("quality")
    fewer = Run(run.folder, override(run.spec, {"evaluation.n_samples": "75"}), HERE)
    assert not SampleQuality(fewer).done("quality")


def test_what_a_run_cannot_give_is_not_waited_for(run):
    none = SampleQuality(Run(run.folder, override(run.spec, {"evaluation.n_curve": "0"}), HERE))
    assert none.done("quality-time") and none.done("neighbours") and none.done("quality-steps-ddim")
    assert not none.done("quality")
    mu = SampleQuality(Run(run.folder, override(run.spec, {"diffusion.prediction": "mu"}), HERE))
    assert (
        mu.done("quality-steps-ddim") and mu.done("quality-steps-ancestral") and not mu.done("quality-time")
    )


def test_too_few_samples_are_refused_before_they_are_drawn(run):
    few = Run(run.folder, override(run.spec, {"evaluation.n_curve": "64"}), HERE)
    with pytest.raises(
        ValueError, match=r"evaluation\.n_curve: 64 images are too few .* 0 leaves the curves out"
    ):
        SampleQuality(few).check()
    fewer = Run(run.folder, override(run.spec, {"evaluation.n_samples": "64"}), HERE)
    with pytest.raises(ValueError, match="64 images are too few"):
        SampleQuality(fewer).check()
    SampleQuality(run).check()


def test_the_quality_of_the_samples_is_that_of_the_library(run, digits_classifier):
    SampleQuality(run).measure()
    found = run.store.get("quality", Quality)
    alone = measured(run, run.sample(), digits_classifier)
    assert found.n_samples == N + 10 and found.n_test == 360
    np.testing.assert_allclose(found.frechet_distance, alone.frechet_distance, rtol=1e-6)


def test_the_command_keeps_what_it_measures_of_all_samples_of_a_run(run):
    from experiments import image_quality

    subject = image_quality.samples_of(run, inception_weights=None, inception=False)
    text = image_quality.measure(subject, ["paper"], ["train"], allow_singular=False)
    found = run.store.get("quality", Quality)
    assert SampleQuality(run).done("quality") and f"{found.frechet_distance:.5g}" in text
    more = Run(run.folder, override(run.spec, {"evaluation.n_samples": "85"}), HERE)
    more.sample()
    image_quality.measure(
        image_quality.samples_of(run, inception_weights=None, inception=False), ["paper"], ["train"], False
    )
    assert run.store.get("quality", Quality).n_samples == N + 10  # 85 images are not this specification's 80


def test_samples_of_earlier_weights_are_not_judged_as_the_present_ones(run):
    from experiments import image_quality

    longer = Run(run.folder, override(run.spec, {"train.steps": "9"}), HERE)
    longer.train()
    assert not longer.has_samples()
    with pytest.raises(ValueError, match="holds no samples of the run's present weights"):
        image_quality.samples_of(longer, inception_weights=None, inception=False)
    with pytest.raises(ValueError, match="holds no samples of the run's present weights"):
        SampleQuality(longer).measure()
    assert not SampleQuality(longer).done("quality")


def test_without_labels_there_is_nothing_to_judge_by(run, monkeypatch, inception_weights):
    unlabelled = dataclasses.replace(run.train_images, labels=None)
    run.__dict__["train_images"] = unlabelled
    task = SampleQuality(run)
    task.check()  # training is not refused for it
    assert all(task.done(name) for name in ("quality", "quality-time", "neighbours"))
    assert not SampleQuality(run, inception_weights).done("quality")
