"""Quality of a run: the samples' own, over the reverse process, over numbers of steps, and against copies."""

import dataclasses
import shutil

import numpy as np
import pytest
from tiny import HERE, TINY

from ddpm_eval.metrics import classifier
from ddpm_eval.metrics.coverage import evaluate_coverage
from ddpm_eval.metrics.distances import PROTOCOLS
from ddpm_eval.metrics.drawing import draw_samples
from ddpm_eval.metrics.measured_model import Model
from ddpm_eval.metrics.neighbours import find_neighbours
from ddpm_eval.metrics.quality import evaluate_quality
from ddpm_eval.model.samplers import AncestralSampler
from ddpm_eval.results.records import Coverage, Neighbours, Quality, QualityCurve, Samples, Trajectory
from ddpm_eval.results.store import Store
from ddpm_eval.spec_text import override
from ddpm_eval.stages import quality_stages
from ddpm_eval.stages.base import ensure, is_done
from ddpm_eval.stages.quality_stages import (
    CURVE_METRICS,
    CoverageStage,
    FeatureSource,
    NeighboursStage,
    OtherVarianceQualityStage,
    QualityOverStepsStage,
    QualityOverTimeStage,
    QualityStage,
    check_sample_counts,
    classifiers_folder,
)
from ddpm_eval.stages.run import SAMPLING, Run
from ddpm_eval.stages.sampling_stages import SamplesStage, TrajectoryStage
from ddpm_eval.stages.training_stage import TrainingStage

N, T = 70, TINY.diffusion.timesteps  # the classifier has 64 features, and one sample more must there be
CLASSIFIER = FeatureSource()
STAGES = (
    QualityStage(),
    CoverageStage(),
    QualityOverTimeStage(),
    QualityOverStepsStage(),
    QualityOverStepsStage(method="ddim"),
    NeighboursStage(),
)


@pytest.fixture(scope="module")
def spec():
    settings = {"n_samples": N + 10, "n_curve": N, "n_progressive": 3, "n_score_splits": 5}
    return override(TINY, {f"evaluation.{key}": str(value) for key, value in settings.items()})


@pytest.fixture(scope="module")
def trained(spec, digits_classifier, tmp_path_factory):
    """A trained run with samples, beside which the classifier lies ready."""
    runs = tmp_path_factory.mktemp("runs")
    shutil.copytree(digits_classifier.weights_path.parent, runs / "classifiers")
    run = Run(runs / "tiny" / "run", spec, HERE)
    for stage in (TrainingStage(), TrajectoryStage(), SamplesStage()):
        ensure(stage, run)
    return run


@pytest.fixture(scope="module")
def statistics_cache(tmp_path_factory):
    """Statistics of the reference images for the numbers that a test expects."""
    return Store(tmp_path_factory.mktemp("statistics") / "statistics.h5")


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained.folder.parent.parent, tmp_path / "runs")
    return Run(tmp_path / "runs" / "tiny" / "run", trained.spec, HERE)


@pytest.fixture
def measured(run, digits_classifier, statistics_cache):
    """A function that measures images with the library."""
    protocol = PROTOCOLS["paper"].model_copy(update={"splits": 5, "metrics": CURVE_METRICS})

    def measure(images):
        return evaluate_quality(
            images,
            run.train_images,
            digits_classifier,
            protocol=protocol,
            statistics_cache=statistics_cache,
        )

    return measure


def changed(run, **settings):
    """Return a run with another evaluation."""
    changes = {f"evaluation.{key}": str(value) for key, value in settings.items()}
    return Run(run.folder, override(run.spec, changes), HERE)


# What is measured


def test_the_quality_of_the_samples_is_that_of_the_library(run, measured):
    ensure(QualityStage(), run)
    found = run.results.get("quality", Quality)
    alone = measured(SamplesStage().read(run).images)
    assert found.n_samples == N + 10 and found.n_test == 360
    for name in CURVE_METRICS:
        np.testing.assert_allclose(getattr(found, name)[:3], getattr(alone, name)[:3], rtol=1e-6)
    assert found.reference_distance.known and found.kid.known and found.precision.known
    assert (found.features, found.protocol) == ("digits-classifier", "paper")


def test_the_curve_over_time_has_the_quality_of_each_estimate(run, measured):
    ensure(QualityOverTimeStage(), run)
    curve, path = run.results.get("quality-time", QualityCurve), run.results.get("progressive", Trajectory)
    np.testing.assert_array_equal(curve.position, path.t)
    assert (curve.axis, curve.method, curve.n_samples) == ("t", "ancestral", N)
    assert np.isnan(curve.seconds_per_image).all()
    for k in (0, len(path.t) // 2, len(path.t) - 1):
        alone = measured(path.x_0_hat[k])
        for name in CURVE_METRICS:
            np.testing.assert_allclose(getattr(curve, name)[k], getattr(alone, name)[:3], rtol=1e-6)


@pytest.mark.parametrize(("method", "steps"), [("ancestral", [10, T]), ("ddim", [10])])
def test_the_curve_over_steps_has_the_quality_of_each_chains_samples(run, measured, method, steps):
    ensure(QualityOverStepsStage(method=method), run)
    curve = run.results.get(f"quality-steps-{method}", QualityCurve)
    assert list(curve.position) == steps and (curve.axis, curve.method) == ("steps", method)
    for k, count in enumerate(steps):
        samples = SamplesStage(N, count, method).read(run)
        alone = measured(samples.images[:N])
        np.testing.assert_allclose(curve.frechet_distance[k], alone.frechet_distance[:3], rtol=1e-6)
        np.testing.assert_allclose(curve.seconds_per_image[k], samples.seconds[:N].mean())
    ancestral = SamplesStage(N).read(run).images[:N]
    assert not np.array_equal(SamplesStage(N, 10, method).read(run).images, ancestral)


def test_the_curve_over_steps_says_a_spacing_that_is_not_the_usual_one(run):
    leading = Run(run.folder, override(run.spec, {"evaluation.spacing": "leading"}), HERE)
    stage = QualityOverStepsStage(method="ddim")
    assert stage.key(leading) != stage.key(run)
    ensure(stage, leading)
    curve = leading.results.get(stage.name, QualityCurve, stage.key(leading))
    assert curve.caption.endswith("; steps of leading spacing")
    assert SamplesStage(N, 10, "ddim", "leading").is_stored(run)


def test_coverage_is_that_of_the_runs_samples(run, digits_classifier):
    ensure(CoverageStage(), run)
    found = run.results.get("coverage", Coverage)
    images = SamplesStage().read(run).images[: N + 10]
    alone = evaluate_coverage(images, run.train_images, digits_classifier)
    assert (found.n_samples, found.density, found.coverage) == (N + 10, alone.density, alone.coverage)
    assert found.class_counts.tolist() == alone.class_counts.tolist()


def test_samples_with_the_other_fixed_variance_are_those_of_a_model_that_has_it(run, measured):
    """The same network and the same noise, drawn by the library under the other variance."""
    ensure(OtherVarianceQualityStage(), run)
    samples = run.results.get("samples-other-variance", Samples)
    model = Model(run.network, run.schedule(), "eps", "fixed-small")
    sampler = AncestralSampler(model.under(SAMPLING).process, run.spec.seed)
    alone = draw_samples(sampler, run.shape, range(N), batch_size=run.batch_size)
    np.testing.assert_array_equal(samples.images, alone["images"])
    assert not np.array_equal(samples.images, SamplesStage().read(run).images[:N])
    found, expected = run.results.get("quality-other-variance", Quality), measured(samples.images)
    assert found.n_samples == N and found.frechet_distance[:3] == pytest.approx(expected.frechet_distance[:3])
    assert is_done(OtherVarianceQualityStage(), run)


@pytest.mark.parametrize("changes", [{"objective": "vlb"}, {"objective": "vlb", "variance": "learned"}])
def test_the_other_variance_is_not_sampled_where_training_depended_on_it(run, changes):
    other = override(run.spec, {f"diffusion.{key}": value for key, value in changes.items()})
    assert not OtherVarianceQualityStage().applies(Run(run.folder, other, HERE))


def test_the_samplers_of_short_chains_differ(run):
    drawn = []
    for method in ("ancestral", "ddim"):
        stage = SamplesStage(5, 10, method)
        ensure(stage, run)
        drawn.append(stage.read(run).images)
    assert not np.array_equal(*drawn)


def test_neighbours_are_those_of_the_first_samples(run, digits_classifier):
    ensure(NeighboursStage(), run)
    found = run.results.get("neighbours", Neighbours)
    samples = SamplesStage().read(run).images[:N]
    expected = find_neighbours(samples, run.train_images, run.test_images, digits_classifier)
    np.testing.assert_array_equal(found.pixel_id, expected.pixel_id)
    np.testing.assert_array_equal(found.feature_id, expected.feature_id)
    assert found.n_samples == N and found.pixel_memorisation == expected.pixel_memorisation
    assert not found.mirrored  # as in training


def test_samples_are_drawn_where_there_are_none(run):
    """A stage brings about what it requires: here more samples than are stored."""
    more = changed(run, n_samples=85)
    before = SamplesStage().read(run).images
    ensure(QualityStage(), more)
    assert run.results.get("quality", Quality).n_samples == 85
    np.testing.assert_array_equal(SamplesStage().read(more).images[: N + 10], before)


# When it is measured anew


def test_a_result_is_made_once_and_anew_when_what_it_depends_on_changes(run, monkeypatch):
    stage = QualityStage()
    assert not is_done(stage, run)
    ensure(stage, run)
    assert is_done(stage, run)
    monkeypatch.setattr(FeatureSource, "extractor", lambda source, run: pytest.fail("it was measured again"))
    ensure(stage, Run(run.folder, run.spec, HERE))
    assert not is_done(stage, changed(run, n_score_splits=4))
    assert not is_done(stage, changed(run, n_samples=75))
    assert is_done(stage, changed(run, n_curve=20))


def test_quality_is_stale_when_the_classifiers_recipe_changes(run, monkeypatch):
    """As are the curves and the neighbours: all are in the features of that classifier."""
    before = {stage.name: stage.key(run) for stage in STAGES}
    ensure(NeighboursStage(), run)
    recipe = classifier.training_recipe
    for change in ({"steps": 7}, {"version": 99}, {"learning_rate": 1.0}):
        monkeypatch.setattr(
            classifier,
            "training_recipe",
            lambda train, change=change: dataclasses.replace(recipe(train), **change),
        )
        assert not is_done(NeighboursStage(), run)
        assert all(stage.key(run) != before[stage.name] for stage in STAGES)


CURVES = {"quality-time", "quality-steps-ancestral", "quality-steps-ddim"}
EVERY = {"quality", "coverage", *CURVES, "neighbours"}


@pytest.mark.parametrize(
    ("constant", "value", "expected"),
    [
        ("ddpm_eval.stages.quality_stages.NEIGHBOURS", 3, {"neighbours"}),
        ("ddpm_eval.metrics.coverage.NEIGHBOURS", 3, {"coverage"}),
        ("ddpm_eval.stages.quality_stages.SHOWN", 3, {"neighbours"}),
        ("ddpm_eval.stages.quality_stages.CURVE_METRICS", ("frechet_distance",), CURVES),
        ("ddpm_eval.stages.quality_stages.SAMPLING_STEPS", (5, 10), CURVES - {"quality-time"}),
        ("ddpm_eval.stages.quality_stages.ESTIMATOR_CONSTANTS", (), {"quality", *CURVES}),
        ("ddpm_eval.stages.sampling_stages.TRAJECTORY_STEPS", 5, {"quality-time"}),
    ],
)
def test_a_constant_changes_the_keys_of_what_it_shapes_and_no_others(
    run, monkeypatch, constant, value, expected
):
    before = {stage.name: stage.key(run) for stage in STAGES}
    monkeypatch.setattr(constant, value)
    assert {stage.name for stage in STAGES if stage.key(run) != before[stage.name]} == expected


def test_longer_training_and_another_extractor_make_other_results(run, inception_weights, tmp_path):
    before = {stage.name: stage.key(run) for stage in STAGES}
    source = FeatureSource(inception_weights)
    assert source.key(run) != CLASSIFIER.key(run)
    assert QualityStage(source).key(run) != before["quality"]
    ensure(QualityStage(), run)
    longer = Run(run.folder, override(run.spec, {"train.steps": "9"}), HERE)
    ensure(TrainingStage(), longer)
    assert {stage.name for stage in STAGES if stage.key(longer) != before[stage.name]} == EVERY
    assert not is_done(QualityStage(), longer)


# What a run cannot give


def test_what_a_run_cannot_give_is_not_waited_for(run):
    none = changed(run, n_curve=0)
    assert [is_done(stage, none) for stage in STAGES] == [False, False, True, True, True, True]
    mu = Run(run.folder, override(run.spec, {"diffusion.prediction": "mu"}), HERE)
    assert [stage.applies(mu) for stage in STAGES] == [True, True, True, False, False, True]
    short = Run(run.folder, override(run.spec, {"diffusion.timesteps": "8"}), HERE)
    assert QualityOverStepsStage().applies(short)  # of all its steps
    assert not QualityOverStepsStage(method="ddim").applies(short)


def test_without_labels_there_are_no_features(run, inception_weights):
    unlabelled = dataclasses.replace(run.train_images, labels=None, digest="0123456789ab")
    run.__dict__["train_images"] = unlabelled
    check_sample_counts(run, CLASSIFIER)  # training is not refused for it
    assert all(is_done(stage, run) for stage in STAGES)
    assert not is_done(QualityStage(FeatureSource(inception_weights)), run)
    with pytest.raises(ValueError, match="label"):
        ensure(QualityStage(), run)


def test_missing_inception_weights_are_a_sentence(run, tmp_path):
    with pytest.raises(ValueError, match=r"there is no weights file .*absent\.pth"):
        is_done(QualityStage(FeatureSource(tmp_path / "absent.pth")), run)


def test_too_few_samples_are_refused_before_they_are_drawn(run):
    message = r"evaluation\.n_curve: 64 images are too few .* 0 leaves the curves out"
    with pytest.raises(ValueError, match=message):
        check_sample_counts(changed(run, n_curve=64), CLASSIFIER)
    with pytest.raises(ValueError, match="64 images are too few"):
        check_sample_counts(changed(run, n_samples=64), CLASSIFIER)
    check_sample_counts(run, CLASSIFIER)
    check_sample_counts(changed(run, n_curve=0), CLASSIFIER)


# The classifier


def test_runs_of_a_preset_share_their_classifier(run, digits_classifier, monkeypatch):
    assert classifiers_folder(run) == run.folder.parent.parent / "classifiers"
    elsewhere = Run(run.folder.parent.parent / "mine", run.spec, HERE)
    assert classifiers_folder(elsewhere) == classifiers_folder(run)
    monkeypatch.setattr(classifier, "_train", lambda *arguments: pytest.fail("trained again"))
    found = CLASSIFIER.extractor(run)
    assert found.weights_path.parent == classifiers_folder(run)
    assert found.weights_digest == digits_classifier.weights_digest


def test_statistics_of_the_reference_are_kept_beside_the_classifier(run):
    ensure(QualityOverTimeStage(), run)
    kept = Store(classifiers_folder(run) / quality_stages.STATISTICS_FILE).entries()
    assert [entry.record for entry in kept] == ["FeatureStatistics"]
