"""Sample quality end to end: torch-fidelity's own program on the same images, streaming, kept statistics,
refusals.
"""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_eval.metrics import distances, features, quality
from ddpm_eval.metrics.distances import PROTOCOLS
from ddpm_eval.metrics.features import DatasetClassifier  # first: makes torch-fidelity importable
from ddpm_eval.results.store import Store


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
    assert ours.frechet_distance == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert ours.score == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert ours.score_std == pytest.approx(theirs["inception_score_std"], rel=1e-6)
    assert ours.kid == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert ours.kid_std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6)
    assert (ours.precision, ours.recall) == (theirs["precision"], theirs["recall"])


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
        quality.measure(samples, real, digits_classifier, protocol=PROTOCOLS[name], batch_size=64), theirs
    )


@pytest.mark.slow
def test_numbers_equal_torch_fidelitys_program_with_its_inception(digits, inception_weights, tmp_path):
    samples, real = noisy(digits[0].take(np.arange(20))), part(digits[0], np.arange(900, 920))
    theirs = torch_fidelitys_numbers(
        samples,
        real.array,
        tmp_path,
        PROTOCOLS["paper"],
        feature_extractor=features.INCEPTION,
        feature_extractor_weights_path=str(inception_weights),
    )
    extractor = features.inception(inception_weights)
    ours = quality.measure(samples, real, extractor, allow_singular=True)
    check_equal(ours, theirs)
    assert (ours.distance_name, ours.score_name, ours.kid_name) == ("FID", "Inception score", "KID")
    assert "20 images are too few for a Frechet distance of 2048 features" in ours.caveat
    with pytest.raises(ValueError, match="their covariance is singular"):
        quality.measure(samples, real, extractor)


def test_measure_says_what_it_measured(digits, digits_classifier):
    train, test = digits
    samples = noisy(train.take(np.arange(512)), seed=1)
    found = quality.measure(samples, train, digits_classifier, test=test)
    assert (found.n_samples, found.n_reference, found.n_test, found.reference) == (512, 1437, 360, "train")
    assert found.class_counts.sum() == 512
    assert found.distance_name == "Frechet distance (digits classifier)"
    assert found.score_name == "score (digits classifier)"
    assert found.classifier_test_accuracy == digits_classifier.test_accuracy
    assert "10 sequential splits" in found.caption and "512 samples against the 1437 images" in found.caption
    assert found.frechet_distance_low < found.frechet_distance < found.frechet_distance_high
    assert 0 < found.reference_distance < found.frechet_distance
    own = quality.measure(train, train, digits_classifier)
    assert own.frechet_distance == pytest.approx(
        0, abs=1e-6 * np.trace(quality.statistics(train, digits_classifier).covariance)
    )


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
    in_memory = quality.measure(counting, digits[1], digits_classifier, batch_size=100)
    assert counting.largest == 100
    monkeypatch.setattr(quality, "MEMORY_LIMIT_BYTES", 0)
    monkeypatch.setattr(distances, "ROWS", 97)
    on_disk = quality.measure(counting, digits[1], digits_classifier, batch_size=100)
    # other blocks of float64 sums: 1e-15 relative per addition, 1,437 additions, cancellation in distances
    # below 100
    for field in (
        "frechet_distance",
        "frechet_distance_low",
        "score",
        "score_low",
        "kid",
        "precision",
        "recall_low",
    ):
        assert getattr(on_disk, field) == pytest.approx(getattr(in_memory, field), rel=1e-9), field
    assert isinstance(quality.collect(counting, digits_classifier).features, np.memmap)


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
        found = quality.statistics(many, wide)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.n_images == 40_000
    assert peak < 16 * 2**20


def test_only_the_metrics_asked_for_are_measured(digits, digits_classifier):
    train, _ = digits
    reference = Counting(train)
    found = quality.measure(
        noisy(train.take(np.arange(60))), reference, digits_classifier, metrics=("score",)
    )
    assert np.isfinite(found.score_low) and len(found.score_splits) == 10
    for field in (
        "frechet_distance",
        "frechet_infinite",
        "kid",
        "kid_std",
        "precision",
        "recall",
        "reference_distance",
    ):
        assert np.isnan(getattr(found, field)), field
    with pytest.raises(ValueError, match="there is no metric 'fid'"):
        quality.measure(train, train, digits_classifier, metrics=("fid",))


def test_reference_statistics_are_kept_under_everything_they_depend_on(digits, digits_classifier, tmp_path):
    statistics_cache, counting = Store(tmp_path / "statistics.h5"), Counting(digits[0])
    first = quality.statistics(counting, digits_classifier, statistics_cache=statistics_cache)
    assert counting.taken == len(digits[0])
    again = quality.statistics(counting, digits_classifier, statistics_cache=statistics_cache)
    assert counting.taken == len(digits[0])
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
        quality.statistics(counting, extractor, statistics_cache=statistics_cache)
        assert counting.taken == len(images)
    assert len(statistics_cache.entries()) == 6


def test_collapsed_samples_are_measured_like_any_others(digits, digits_classifier):
    found = quality.measure(np.zeros((512, 1, 8, 8), np.uint8), digits[0], digits_classifier, test=digits[1])
    assert found.score == pytest.approx(1, rel=1e-12)
    assert found.frechet_distance > 10 * found.reference_distance
    assert found.precision in (0, 1)
    assert found.class_counts.max() == 512
    values = [getattr(found, field.name) for field in dataclasses.fields(found) if field.type is float]
    assert len(values) > 25 and np.isfinite(values).all()


def test_unsuitable_sets_are_refused(digits, digits_classifier):
    train, _ = digits
    images = train.take(np.arange(70))
    with pytest.raises(ValueError, match="there are no images to measure"):
        quality.measure(images[:0], train, digits_classifier)
    with pytest.raises(ValueError, match=r"images must be 8-bit levels \(uint8\), but are float32"):
        quality.measure(images.astype(np.float32), train, digits_classifier)
    with pytest.raises(ValueError, match=r"but have \[70, 8, 8\]"):
        quality.measure(images[:, 0], train, digits_classifier)
    with pytest.raises(ValueError, match="19 images are too few to be measured"):
        quality.measure(images[:19], train, digits_classifier)
    with pytest.raises(ValueError, match="64 images are too few for a Frechet distance of 64 features"):
        quality.measure(images[:64], train, digits_classifier)
    labelled = quality.measure(images[:64], train, digits_classifier, allow_singular=True)
    assert "far too large" in labelled.caveat
    assert np.isnan(labelled.frechet_distance_low) and np.isfinite(labelled.frechet_distance)
    assert quality.measure(images[:65], train, digits_classifier).caveat == ""


def test_registered_class_is_torch_fidelitys_kind_of_extractor():
    from torch_fidelity import FeatureExtractorBase

    assert issubclass(DatasetClassifier, FeatureExtractorBase)
    for metric in ("isc", "fid", "kid", "prc"):
        layer = DatasetClassifier.get_default_feature_layer_for_metric(metric)
        assert layer in DatasetClassifier.get_provided_features_list()
