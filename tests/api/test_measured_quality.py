"""Sample quality against any labelled images, by their own classifier or by Inception."""

import numpy as np
import pytest
from stored_results import make_samples
from tiny import digits

from ddpm_eval.api import measured_quality
from ddpm_eval.api.measured_quality import evaluate_quality
from ddpm_eval.data.image_set import from_array
from ddpm_eval.metrics import quality
from ddpm_eval.metrics.coverage import evaluate_coverage
from ddpm_eval.reporting.intervals import share_interval
from ddpm_eval.results.records import Samples


def quiet(samples, images, **options):
    return evaluate_quality(samples, images, progress=False, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("classifier")


@pytest.fixture(scope="module")
def found(folder):
    return quiet(digits("test").array, digits(), cache=folder)


def test_real_images_are_close_and_noise_is_far(found, folder):
    noise = np.random.default_rng(0).integers(0, 256, (360, 1, 8, 8)).astype(np.uint8)
    far = quiet(noise, digits(), cache=folder)
    assert found.record.frechet_distance.high < far.record.frechet_distance.low
    assert found.record.score.low > far.record.score.high


def test_the_classifier_is_of_the_reference_images_and_kept_under_their_digest(found, folder):
    (path,) = folder.iterdir()
    assert path.name.startswith("digits-classifier-")
    assert found.record.distance_name == "Frechet distance (digits classifier)"
    assert found.record.classifier_test_accuracy > 0.9
    other = from_array(255 - digits().array, labels=digits().labels)
    quiet(other.array[:100], other, cache=folder)
    assert len(list(folder.iterdir())) == 2


def test_the_table_lists_what_was_measured(found):
    table = found.table().set_index("metric")
    assert list(table.columns) == ["value", "low", "high", "n", "features", "reference"]
    row = table.loc["frechet_distance"]
    assert tuple(row[["value", "low", "high"]]) == found.record.frechet_distance[:3]
    assert (row["n"], row["reference"]) == (360, "train")
    assert "Frechet distance (digits classifier)" in repr(found)


def test_numbers_are_those_of_the_estimator(digits_classifier):
    samples = digits("test").array
    found = quiet(samples, digits(), features=digits_classifier, test=digits("test"))
    expected = quality.evaluate_quality(samples, digits(), digits_classifier, test=digits("test"))
    assert found.record.frechet_distance == expected.frechet_distance
    assert found.record.reference_distance == expected.reference_distance


def test_density_and_coverage_are_measured_too(digits_classifier):
    samples = digits("test").array
    found = quiet(samples, digits(), features=digits_classifier)
    expected = evaluate_coverage(samples, digits(), digits_classifier)
    assert (found.coverage.density, found.coverage.coverage) == (expected.density, expected.coverage)
    rows = found.table().set_index("metric")
    assert rows.loc["coverage", ["value", "low", "high"]].tolist() == list(expected.coverage[:3])
    assert rows.index[-2:].tolist() == ["density", "coverage"]


def test_samples_may_be_a_record(digits_classifier):
    images = digits("test").array
    zeros = np.zeros(len(images))
    record = Samples(images=images, out_of_range=zeros, seconds=zeros, method="ddim", num_steps=5, seed=0)
    found = quiet(record, digits(), features=digits_classifier)
    assert found.record.n_samples == 360


def test_samples_that_are_not_finite_are_refused(digits_classifier):
    with pytest.raises(ValueError, match="2 samples are not finite, the first is sample 3"):
        quiet(make_samples(100, broken=[3, 99]), digits(), features=digits_classifier)


def test_the_accuracy_is_of_the_images_kept_from_the_classifiers_training(found, folder):
    kept = -(-len(digits()) // measured_quality.ACCURACY_EVERY)
    accuracy = found.record.classifier_test_accuracy
    assert found.record.n_classifier_test == kept
    held_out = quiet(digits("test").array, digits(), cache=folder, test=digits("test"))
    for each in (found, held_out):
        row = each.table().set_index("metric").loc["classifier_test_accuracy"]
        assert row["n"] == kept
        assert tuple(row[["value", "low", "high"]]) == (accuracy, *share_interval(accuracy, kept))


def test_inception_is_used_from_a_file(inception_weights, monkeypatch):
    class Reached(Exception):
        pass

    def evaluate(samples, reference, extractor, **options):
        assert extractor.is_inception
        raise Reached

    monkeypatch.setattr(quality, "evaluate_quality", evaluate)
    with pytest.raises(Reached):
        quiet(digits("test").array, digits(), features=inception_weights)


def test_dinov2_and_clip_are_used_by_name(digits_classifier, monkeypatch):
    loaded = []

    def load(name, runtime):
        loaded.append(name)
        return digits_classifier

    monkeypatch.setattr(measured_quality, "load_embedding", load)
    quiet(digits("test").array, digits(), features="dinov2-vit-l-14")
    assert loaded == ["dinov2-vit-l-14"]
    with pytest.raises(ValueError, match=r"features is 'dinov2', but must be a file .* clip-vit-b-32"):
        quiet(digits("test").array, digits(), features="dinov2")


def test_what_cannot_be_measured_is_refused(digits_classifier):
    with pytest.raises(ValueError, match=r"no labels, which a classifier is trained on \(load_images"):
        quiet(digits("test").array, digits().array)
    with pytest.raises(ValueError, match="no quality protocol 'papers'"):
        quiet(digits("test").array, digits(), protocol="papers")
    with pytest.raises(ValueError, match="images are too few"):
        quiet(digits("test").array[:10], digits(), features=digits_classifier)
