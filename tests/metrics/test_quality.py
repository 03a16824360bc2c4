"""Sample quality end to end: torch-fidelity's own program, streaming, kept statistics, refusals."""

import dataclasses

import numpy as np
import pytest
import torch
from damage import outcomes
from PIL import Image

from ddpm_eval.metrics import distances, quality
from ddpm_eval.metrics.classifier import DatasetClassifier
from ddpm_eval.metrics.distances import PROTOCOLS
from ddpm_eval.metrics.features import INCEPTION
from ddpm_eval.metrics.inception import load_inception
from ddpm_eval.metrics.quality import evaluate_quality
from ddpm_eval.results.fields import fields_of_kind
from ddpm_eval.results.records import Quality
from ddpm_eval.results.store import Store

PAPER = PROTOCOLS["paper"]
SINGULAR = PAPER.model_copy(update={"allow_singular": True})


def only(*metrics):
    return PAPER.model_copy(update={"metrics": metrics})


def write_png(images, folder):
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(folder / f"{i:05d}.png")
    return str(folder)


def noisy(images, seed=0):
    noise = np.random.default_rng(seed).normal(0, 25, images.shape)
    return np.clip(images + noise, 0, 255).round().astype(np.uint8)


def torch_fidelitys_numbers(samples, real, folder, protocol, **network):
    """What torch-fidelity's own program says of the same images, written as files."""
    import torch_fidelity

    return torch_fidelity.calculate_metrics(
        input1=write_png(samples, folder / "samples"),
        input2=write_png(real, folder / "real"),
        fid=True,
        isc=True,
        kid=True,
        prc=True,
        batch_size=64,
        samples_shuffle=protocol.shuffle,
        kid_subset_size=min(protocol.kid_subset_size, len(samples), len(real)),
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        **network,
    )


def check_equal(ours, theirs):
    # the same network on the same batches; torch-fidelity averages features in float32, hence 1e-6 and not
    # rounding. Precision and recall count images, hence exactly
    assert ours.frechet_distance.value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert ours.score.value == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert ours.score_std == pytest.approx(theirs["inception_score_std"], rel=1e-6)
    assert ours.kid.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert ours.kid_std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6)
    assert (ours.precision.value, ours.recall.value) == (theirs["precision"], theirs["recall"])


def batched(extractor, batch_size):
    return dataclasses.replace(extractor, batch_size=batch_size)


def part(images, index):
    return dataclasses.replace(
        images, ids=images.ids[index], labels=images.labels[index], source=images.array[index]
    )


@pytest.mark.parametrize("name", ["paper", "torch-fidelity"])
def test_numbers_equal_torch_fidelitys_program_with_the_digits_classifier(
    name, digits, digits_classifier, tmp_path
):
    samples, real = noisy(digits[0].take(np.arange(300))), part(digits[0], np.arange(900, 1300))
    theirs = torch_fidelitys_numbers(
        samples,
        real.array,
        tmp_path,
        PROTOCOLS[name],
        feature_extractor=digits_classifier.name,
        feature_extractor_weights_path=str(digits_classifier.weights_path),
    )
    check_equal(
        evaluate_quality(samples, real, batched(digits_classifier, 64), protocol=PROTOCOLS[name]), theirs
    )


@pytest.mark.slow
def test_numbers_equal_torch_fidelitys_program_with_its_inception(digits, inception_weights, tmp_path):
    samples, real = noisy(digits[0].take(np.arange(20))), part(digits[0], np.arange(900, 920))
    theirs = torch_fidelitys_numbers(
        samples,
        real.array,
        tmp_path,
        PROTOCOLS["paper"],
        feature_extractor=INCEPTION,
        feature_extractor_weights_path=str(inception_weights),
    )
    extractor = load_inception(inception_weights)
    ours = evaluate_quality(samples, real, extractor, protocol=SINGULAR)
    check_equal(ours, theirs)
    assert (ours.distance_name, ours.score_name) == ("FID", "Inception score")
    assert "20 images are too few for a Frechet distance of 2048 features" in ours.caveat
    with pytest.raises(ValueError, match="their covariance is singular"):
        evaluate_quality(samples, real, extractor)


def test_quality_says_what_it_measured(digits, digits_classifier):
    train, test = digits
    samples = noisy(train.take(np.arange(512)), seed=1)
    found = evaluate_quality(samples, train, digits_classifier, test=test)
    assert (found.n_samples, found.n_reference, found.n_test, found.reference) == (512, 1437, 360, "train")
    assert found.class_counts.sum() == 512
    assert found.distance_name == "Frechet distance (digits classifier)"
    assert found.score_name == "score (digits classifier)"
    assert found.classifier_test_accuracy == digits_classifier.test_accuracy
    assert "10 sequential splits" in found.caption and "512 samples against the 1437 images" in found.caption
    assert found.frechet_distance.low < found.frechet_distance.value < found.frechet_distance.high
    assert 0 < found.reference_distance.value < found.frechet_distance.value
    own = evaluate_quality(train, train, digits_classifier)
    assert own.frechet_distance.value == pytest.approx(
        0, abs=1e-6 * np.trace(quality.feature_statistics(train, digits_classifier).covariance)
    )


COUNTED_FIRST = 1 + 2
"""Images whose features are computed beforehand, to estimate the memory of a batch."""


class Counting:
    """Images that remember how many were asked for, in all and at once."""

    def __init__(self, images):
        self.images, self.largest, self.taken = images, 0, 0
        self.name, self.split, self.digest = images.name, images.split, images.digest

    def __len__(self):
        return len(self.images)

    def take(self, index):
        self.largest = max(self.largest, len(index))
        self.taken += len(index)
        return self.images.take(index)


def test_images_stream_and_files_instead_of_memory_change_nothing(digits, digits_classifier, monkeypatch):
    counting = Counting(digits[0])
    in_memory = evaluate_quality(counting, digits[1], batched(digits_classifier, 100))
    assert counting.largest == 100
    monkeypatch.setattr(quality, "MEMORY_LIMIT_BYTES", 0)
    monkeypatch.setattr(distances, "ROWS", 97)
    on_disk = evaluate_quality(counting, digits[1], batched(digits_classifier, 100))
    # other blocks of float64 sums: 1e-15 relative per addition, 1,437 additions, cancellation in distances
    # below 100
    for field in ("frechet_distance", "score", "kid", "precision", "recall"):
        ours, theirs = (getattr(found, field) for found in (on_disk, in_memory))
        assert ours[:3] == pytest.approx(theirs[:3], rel=1e-9), field
    assert isinstance(quality.collect_features(counting, digits_classifier).features, np.memmap)


def test_statistics_hold_neither_images_nor_features(digits, digits_classifier):
    # 40,000 images of 512 features are 82 MB in float32; products, batches and their copies need below 16 MB
    import tracemalloc

    rng = torch.Generator().manual_seed(0)
    projection = torch.randn(64, 512, generator=rng)

    def network(images):
        features = images.flatten(1).float() @ projection
        return features, features[:, :10]

    many = dataclasses.replace(
        digits[0], ids=np.arange(40_000), source=lambda i: digits[0].array[i % len(digits[0])]
    )
    wide = dataclasses.replace(digits_classifier, width=512, module=network)
    tracemalloc.start()
    try:
        found = quality.feature_statistics(many, wide)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.n_images == 40_000
    assert peak < 16 * 2**20


def test_only_the_metrics_asked_for_are_measured(digits, digits_classifier):
    train, _ = digits
    reference = Counting(train)
    samples = noisy(train.take(np.arange(60)))
    found = evaluate_quality(samples, reference, digits_classifier, protocol=only("score"))
    assert np.isfinite(found.score.low) and len(found.score_splits) == 10
    assert np.isnan(found.kid_std)
    for field in (
        "frechet_distance",
        "frechet_infinite",
        "kid",
        "precision",
        "recall",
        "reference_distance",
    ):
        assert not getattr(found, field).known, field
        assert np.isnan(getattr(found, field)[:3]).all(), field
    with pytest.raises(ValueError, match="there is no metric 'fid'"):
        evaluate_quality(train, train, digits_classifier, protocol=only("fid"))


def test_reference_statistics_are_kept_under_everything_they_depend_on(digits, digits_classifier, tmp_path):
    statistics_cache, counting = Store(tmp_path / "statistics.h5"), Counting(digits[0])
    first = quality.feature_statistics(counting, digits_classifier, statistics_cache=statistics_cache)
    assert counting.taken == COUNTED_FIRST + len(digits[0])
    again = quality.feature_statistics(counting, digits_classifier, statistics_cache=statistics_cache)
    assert counting.taken == COUNTED_FIRST + len(digits[0])
    np.testing.assert_array_equal(again.covariance, first.covariance)
    np.testing.assert_array_equal(again.mean, first.mean)
    others = [
        (dataclasses.replace(digits[0], digest="another"), digits_classifier),
        (dataclasses.replace(digits[0], split="test"), digits_classifier),
        (digits[0], dataclasses.replace(digits_classifier, name="another")),
        (digits[0], dataclasses.replace(digits_classifier, weights_digest="another")),
        (digits[0], dataclasses.replace(digits_classifier, resize="another")),
    ]
    for images, extractor in others:
        counting = Counting(images)
        quality.feature_statistics(counting, extractor, statistics_cache=statistics_cache)
        assert counting.taken == COUNTED_FIRST + len(images)
    entries = statistics_cache.entries()
    assert len(entries) == len({entry.key for entry in entries}) == 6
    assert {entry.name for entry in entries} == {quality.STATISTICS}


def test_collapsed_samples_are_measured_like_any_others(digits, digits_classifier):
    found = evaluate_quality(np.zeros((512, 1, 8, 8), np.uint8), digits[0], digits_classifier, test=digits[1])
    assert found.score.value == pytest.approx(1, rel=1e-12)
    assert found.frechet_distance.value > 10 * found.reference_distance.value
    assert found.precision.value in (0, 1)
    assert found.class_counts.max() == 512
    estimates = [getattr(found, field.name)[:3] for field in fields_of_kind(Quality, "estimate")]
    assert len(estimates) == 8 and np.isfinite(estimates).all()
    assert np.isfinite([found.score_std, found.kid_std, found.classifier_test_accuracy]).all()


def test_unsuitable_sets_are_refused(digits, digits_classifier):
    train, _ = digits
    images = train.take(np.arange(70))
    with pytest.raises(ValueError, match="there are no images to measure"):
        evaluate_quality(images[:0], train, digits_classifier)
    with pytest.raises(ValueError, match=r"images must be 8-bit levels \(uint8\), but are float32"):
        evaluate_quality(images.astype(np.float32), train, digits_classifier)
    with pytest.raises(ValueError, match=r"but have \[70, 8, 8\]"):
        evaluate_quality(images[:, 0], train, digits_classifier)
    with pytest.raises(ValueError, match="19 images are too few to be measured"):
        evaluate_quality(images[:19], train, digits_classifier)
    with pytest.raises(ValueError, match="64 images are too few for a Frechet distance of 64 features"):
        evaluate_quality(images[:64], train, digits_classifier)
    labelled = evaluate_quality(images[:64], train, digits_classifier, protocol=SINGULAR)
    assert "far too large" in labelled.caveat
    assert np.isnan(labelled.frechet_distance.low) and np.isfinite(labelled.frechet_distance.value)
    assert evaluate_quality(images[:65], train, digits_classifier).caveat == ""


def test_registered_class_is_torch_fidelitys_kind_of_extractor():
    from torch_fidelity import FeatureExtractorBase

    assert issubclass(DatasetClassifier, FeatureExtractorBase)
    for metric in ("isc", "fid", "kid", "prc"):
        layer = DatasetClassifier.get_default_feature_layer_for_metric(metric)
        assert layer in DatasetClassifier.get_provided_features_list()


def test_a_caveat_is_said_before_anything_is_measured(digits_classifier):
    assert quality.check(65, digits_classifier.width) == ""
    assert quality.check(64, digits_classifier.width, only("score")) == ""
    assert "the distance far too large" in quality.check(64, digits_classifier.width, SINGULAR)
    with pytest.raises(ValueError, match="at least 65 are needed, 640 are better"):
        quality.check(64, digits_classifier.width)
    many_splits = PAPER.model_copy(update={"splits": 50})
    with pytest.raises(
        ValueError, match=r"99 images are too few to be measured \(at least 100: two for each of 50"
    ):
        quality.check(99, digits_classifier.width, many_splits)
    with pytest.raises(ValueError, match=r"there is no metric 'fid' \(frechet_distance, "):
        quality.check(100, digits_classifier.width, only("fid", "score"))


def test_kept_statistics_give_the_same_distance(digits, digits_classifier, tmp_path):
    cache = Store(tmp_path / "statistics.h5")
    samples = noisy(digits[0].take(np.arange(70)))
    without = evaluate_quality(samples, digits[0], digits_classifier, protocol=only("frechet_distance"))
    first, again = (
        evaluate_quality(
            samples,
            digits[0],
            digits_classifier,
            protocol=only("frechet_distance"),
            statistics_cache=cache,
        )
        for _ in range(2)
    )
    assert first.frechet_distance == again.frechet_distance == without.frechet_distance


def test_damaged_copies_of_the_kept_statistics_are_refused_or_equal(digits, digits_classifier, tmp_path):
    others = Store(tmp_path / "other.h5")
    statistics = [
        quality.feature_statistics(images, digits_classifier, statistics_cache=cache)
        for images, cache in ((digits[0], Store(tmp_path / "whole.h5")), (digits[1], others))
    ]

    def assert_whole(path):
        counting = Counting(digits[0])
        found = quality.feature_statistics(counting, digits_classifier, statistics_cache=Store(path))
        assert counting.taken == 0
        np.testing.assert_array_equal(found.mean, statistics[0].mean)
        np.testing.assert_array_equal(found.covariance, statistics[0].covariance)

    content = (tmp_path / "whole.h5").read_bytes()
    counts = outcomes(tmp_path / "damaged.h5", content, others.path.read_bytes(), assert_whole)
    assert counts["refused"] > counts["equal"]


def test_the_kept_statistics_of_other_images_are_not_taken(digits, digits_classifier, tmp_path):
    """A file of two studies swapped is of no harm: it is asked for these images' key."""
    cache = Store(tmp_path / "statistics.h5")
    quality.feature_statistics(digits[1], digits_classifier, statistics_cache=cache)
    own = quality.feature_statistics(digits[0], digits_classifier)
    found = quality.feature_statistics(digits[0], digits_classifier, statistics_cache=cache)
    np.testing.assert_array_equal(found.mean, own.mean)
