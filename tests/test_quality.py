"""Numbers of sample quality: closed forms, torch-fidelity's own program, exact laws, coverage of every interval."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_eval import quality
from ddpm_eval.features import DatasetClassifier  # first: makes torch-fidelity importable
from ddpm_eval.quality import PROTOCOLS, Estimate, Moments
from ddpm_eval.records import FeatureStatistics

PAPER = PROTOCOLS["paper"]


def exact_gaussian(rng, n, mean, covariance):
    """Features with exactly this sample mean and (unbiased) covariance."""
    x = rng.standard_normal((n, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def reference(mean, covariance):
    return FeatureStatistics(np.asarray(mean), np.asarray(covariance), 1000, "", "train", "", "", "none")


def covered(estimates: list[Estimate], truth: float) -> float:
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))


def test_moments_are_those_of_all_rows_whatever_the_batches_and_the_offset():
    # float32 rows are exact in float64; after the shift, errors are n * 2^-53 of the spread, far below 1e-10
    rows = (1e4 + np.random.default_rng(0).standard_normal((500, 7))).astype(np.float32)
    moments = Moments()
    for first, last in ((0, 1), (1, 130), (130, 500)):
        moments.add(rows[first:last])
    np.testing.assert_allclose(moments.mean, rows.astype(np.float64).mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-10)


def test_frechet_distance_has_its_closed_form_for_commuting_covariances():
    # |m - m_r|^2 + sum (sqrt a - sqrt b)^2; 1e-9: float64 eigenvalues of a product with condition below 1e3
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0.1, 3, 6), rng.uniform(0.1, 3, 6)
    mean, other = rng.standard_normal(6), rng.standard_normal(6)
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    features = exact_gaussian(rng, 200, mean, (rotation * a) @ rotation.T)
    estimate = quality.frechet(features, reference(other, (rotation * b) @ rotation.T))
    expected = ((mean - other) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert estimate.value == pytest.approx(expected, rel=1e-9)
    assert estimate.low < expected < estimate.high


def test_frechet_gradient_is_the_finite_difference_of_torch_fidelitys_distance():
    # central differences with step 1e-5: error of order step^2 and 1e-16 / step, both below 1e-8 for values of order one
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    rng = np.random.default_rng(2)
    mean, other = rng.standard_normal((2, 5))
    s, r = (m @ m.T + 0.3 * np.eye(5) for m in rng.standard_normal((2, 5, 5)))

    def distance(m, c):
        return fid_statistics_to_metric({"mu": m, "sigma": c}, {"mu": other, "sigma": r}, False)["frechet_inception_distance"]

    gradient, curvature = quality.frechet_gradient(mean, s, other, r)
    dm, ds = rng.standard_normal(5), rng.standard_normal((5, 5))
    ds, h = ds + ds.T, 1e-5
    along_mean = (distance(mean + h * dm, s) - distance(mean - h * dm, s)) / (2 * h)
    along_covariance = (distance(mean, s + h * ds) - distance(mean, s - h * ds)) / (2 * h)
    assert gradient @ dm == pytest.approx(along_mean, rel=1e-6)
    assert (curvature * ds).sum() == pytest.approx(along_covariance, rel=1e-6)


@pytest.mark.parametrize(
    ("shift", "scale", "most"),
    [(0.0, 1.0, 1.0), (0.5, 1.0, 0.98), (0.0, 1.4, 0.99)],
    ids=["equal", "other mean", "other covariance"],
)
def test_frechet_interval_covers_the_expected_distance(shift, scale, most):
    # 400 intervals: the standard error of the coverage is 0.011 at 0.95. The interval is exact to first order; near equal
    # distributions it is up to 1.4 times too wide (coverage 0.994). The truth is the mean of the 400 distances, whose
    # error is a twentieth of one's
    rng = np.random.default_rng(3)
    spread = np.linspace(0.5, 1.5, 8)
    target = reference(np.zeros(8), np.diag(spread**2))
    estimates = [quality.frechet(shift + scale * spread * rng.standard_normal((250, 8)), target) for _ in range(400)]
    coverage = covered(estimates, float(np.mean([e.value for e in estimates])))
    assert 0.915 <= coverage <= most


def test_score_of_certain_classes_is_their_number_and_of_ignorance_one():
    # a logit of 50 leaves 2e-22 of probability; the score is exact to rounding
    logits = np.zeros((200, 5), np.float32)
    assert quality.score(logits, PAPER)[0].value == pytest.approx(1, rel=1e-12)
    logits[np.arange(200), np.arange(200) % 4] = 50
    estimate, splits = quality.score(logits, PAPER)
    assert estimate.value == pytest.approx(4, rel=1e-12)
    np.testing.assert_allclose(splits, 4, rtol=1e-12)
    counts, sure = quality.confidence(logits)
    assert counts.tolist() == [50, 50, 50, 50, 0]
    assert sure.value == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("name", ["paper", "torch-fidelity"])
@pytest.mark.parametrize("n", [205, 256])
def test_score_equals_torch_fidelitys(name, n):
    # both are float64 on the same float32 logits
    from torch_fidelity.metric_isc import isc_features_to_metric

    protocol = PROTOCOLS[name]
    logits = np.random.default_rng(4).normal(size=(n, 10), scale=3).astype(np.float32)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=protocol.shuffle)
    estimate, splits = quality.score(logits, protocol)
    assert estimate.value == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert np.std(splits) == pytest.approx(theirs["inception_score_std"], rel=1e-10)


@pytest.mark.parametrize("splits", [1, 10])
def test_score_and_confidence_intervals_cover_their_expectation(splits):
    # 400 intervals: standard error of the coverage 0.011; splits of 50 images cost the first-order error some coverage
    rng = np.random.default_rng(5)
    protocol = PAPER.model_copy(update={"splits": splits})
    scores, sure = [], []
    for _ in range(400):
        logits = rng.normal(size=(500, 10), scale=2).astype(np.float32)
        logits[np.arange(500), rng.integers(0, 10, 500)] += 4
        scores.append(quality.score(logits, protocol)[0])
        sure.append(quality.confidence(logits)[1])
    assert 0.90 <= covered(scores, float(np.mean([e.value for e in scores]))) <= 0.985
    assert 0.915 <= covered(sure, float(np.mean([e.value for e in sure]))) <= 0.985


def write_png(images, folder):
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(folder / f"{i:05d}.png")
    return str(folder)


def noisy(images, seed=0):
    noise = np.random.default_rng(seed).normal(0, 25, images.shape)
    return np.clip(images + noise, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("name", ["paper", "torch-fidelity"])
def test_numbers_equal_torch_fidelitys_program_on_the_same_images_as_files(name, digits, digits_classifier, tmp_path):
    # the same network on the same batches; torch-fidelity averages features in float32, hence 1e-6 and not rounding
    import torch_fidelity

    train, _ = digits
    samples, real = noisy(train.take(np.arange(300))), dataclasses.replace(train, ids=np.arange(400), source=train.array[-400:])
    theirs = torch_fidelity.calculate_metrics(
        input1=write_png(samples, tmp_path / "samples"),
        input2=write_png(real.array, tmp_path / "real"),
        feature_extractor=digits_classifier.name,
        feature_extractor_weights_path=str(digits_classifier.weights_path),
        fid=True,
        isc=True,
        batch_size=64,
        samples_shuffle=PROTOCOLS[name].shuffle,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    ours = quality.measure(samples, real, digits_classifier, protocol=PROTOCOLS[name], batch_size=64)
    assert ours.frechet_distance == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert ours.score == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert ours.score_std == pytest.approx(theirs["inception_score_std"], rel=1e-6)


def test_measure_says_what_it_measured(digits, digits_classifier):
    train, test = digits
    samples = noisy(train.take(np.arange(512)), seed=1)
    found = quality.measure(samples, train, digits_classifier, test=test)
    assert (found.n_samples, found.n_reference, found.n_test, found.reference) == (512, 1437, 360, "train")
    assert found.class_counts.sum() == 512
    assert found.distance_name == "Frechet distance (digits classifier)"
    assert found.score_name == "score (digits classifier)"
    assert found.classifier_test_accuracy == digits_classifier.test_accuracy
    assert "10 sequential splits" in found.caption and "512 samples against 1437 images" in found.caption
    assert found.frechet_distance_low < found.frechet_distance < found.frechet_distance_high
    assert 0 < found.reference_distance < found.frechet_distance
    own = quality.measure(train, train, digits_classifier)
    assert own.frechet_distance == pytest.approx(
        0, abs=1e-6 * np.trace(quality.statistics(train, digits_classifier).covariance)
    )


class Counting:
    """Images that remember how many were asked for at once."""

    def __init__(self, images):
        self.images, self.largest = images, 0

    def __len__(self):
        return len(self.images)

    def take(self, index):
        self.largest = max(self.largest, len(index))
        return self.images.take(index)


def test_images_stream_and_the_batch_size_changes_rounding_only(digits, digits_classifier, monkeypatch):
    train, _ = digits
    counting = Counting(train)
    ours = quality.measure(counting, train, digits_classifier, batch_size=100)
    assert counting.largest == 100
    monkeypatch.setattr(quality, "MEMORY_LIMIT_BYTES", 0)
    monkeypatch.setattr(quality, "ROWS", 97)
    on_disk = quality.measure(counting, train, digits_classifier, batch_size=100)
    assert on_disk.score == pytest.approx(ours.score, rel=1e-6)
    assert on_disk.mean_confidence == pytest.approx(ours.mean_confidence, rel=1e-12)
    held = quality.collect(counting, digits_classifier)
    assert isinstance(held.features, np.memmap)


def test_unsuitable_sets_are_refused(digits, digits_classifier):
    train, _ = digits
    images = train.take(np.arange(70))
    with pytest.raises(ValueError, match="there are no images to measure"):
        quality.measure(images[:0], train, digits_classifier)
    with pytest.raises(ValueError, match=r"images must be 8-bit levels \(uint8\), but are float32"):
        quality.measure(images.astype(np.float32), train, digits_classifier)
    with pytest.raises(ValueError, match=r"but have \[70, 8, 8\]"):
        quality.measure(images[:, 0], train, digits_classifier)
    with pytest.raises(ValueError, match="19 images are too few for a score over 10 splits"):
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
