"""What a report shows first: each number beside its yardstick, as far as it is measured."""

import pytest
from stored_results import main_results, make_log, make_samples, store_results
from tiny import TINY

from experiments.headline import headline
from experiments.study import StudyOptions, resolve_run


def study(folder, names=None):
    """A study of one run, with all results or those of these names."""
    found = resolve_run(folder / "runs" / "model", TINY, options=StudyOptions(folder / "reports"))
    results = main_results()
    store_results(found.main, results if names is None else {name: results[name] for name in names})
    return found


def test_samples_distance_bits_and_imperceptible_share_come_in_this_order(tmp_path):
    samples, distance, bits, share = headline(study(tmp_path))
    assert (samples.label, samples.value) == ("Samples", "")
    assert (
        samples.sentence == "The first 24 of 70 images drawn from the model of digits (model), not selected."
    )
    assert samples.picture.images.shape == (24, 1, 8, 8)
    assert distance.value == "3.0 [2.0, 4.0]"
    assert "real test images have" in distance.sentence
    assert "a Gaussian fitted to the training images needs" in bits.sentence
    assert "store 12 test images" in bits.sentence
    assert share.value.endswith("] %")
    assert share.sentence.endswith("the paper has 53 % on CIFAR-10, at 0.95.")


def test_each_finding_is_one_sentence(tmp_path):
    for finding in headline(study(tmp_path)):
        assert finding.sentence.endswith(".")
        assert ". " not in finding.sentence


def test_what_is_not_measured_is_left_out(tmp_path):
    assert headline(study(tmp_path, ["training"])) == []
    (bits, share) = headline(study(tmp_path / "other", ["training", "bound/full/test/paper"]))
    assert bits.sentence.endswith("; 8 bits/dim is no compression.")
    assert share.label == "Imperceptible share"


def test_an_unknown_yardstick_is_said_to_be_unknown(tmp_path):
    found = study(tmp_path, ["training"])
    quality = main_results()["quality"]
    unknown = quality.reference_distance._replace(value=float("nan"))
    store_results(found.main, {"training": make_log(), "quality": _with(quality, unknown)})
    (distance,) = headline(found)
    assert "was not measured" in distance.sentence


def _with(quality, distance):
    return type(quality)(**{**vars(quality), "reference_distance": distance})


@pytest.mark.parametrize("measured", [True, False])
def test_the_headline_needs_no_baseline(tmp_path, measured):
    names = ["training", "bound/full/test/paper", *(["baseline"] if measured else [])]
    bits = headline(study(tmp_path, names))[0]
    assert ("Gaussian" in bits.sentence) == measured


def test_samples_of_a_young_average_are_said_to_be_noise(tmp_path):
    found = study(tmp_path, ["samples"])
    store_results(found.main, {"training": make_log(steps=10)})
    samples = headline(found)[0].sentence
    assert samples.endswith("(train.ema_decay 0.9): samples will be noise until about update 22.")


def test_shown_samples_that_are_not_finite_are_counted(tmp_path):
    found = study(tmp_path, ["training"])
    store_results(found.main, {"training": make_log(), "samples": make_samples(70, broken=[2, 5, 69])})
    (samples,) = headline(found)
    assert samples.sentence == (
        "The first 24 of 70 images drawn from the model of digits (model), not selected; 2 of those shown "
        "are not finite, and grey stands for them."
    )
