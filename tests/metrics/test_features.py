"""Extractors: features of any batch, and the number of channels."""

import dataclasses

import numpy as np
import pytest
import torch

from ddpm_eval.metrics.classifier import FEATURE_WIDTH
from ddpm_eval.metrics.features import parameter_digest


def test_features_do_not_depend_on_the_batch(digits, digits_classifier):
    # float32 sums of up to 64 * 9 products in another order: relative error below 576 * 2^-24 = 3.4e-5 of the
    # largest
    whole, parts = (
        np.concatenate(
            [f for f, _ in dataclasses.replace(digits_classifier, batch_size=size).extract(digits[1])]
        )
        for size in (360, 7)
    )
    assert whole.shape == (360, FEATURE_WIDTH) and whole.dtype == np.float32
    np.testing.assert_allclose(parts, whole, rtol=0, atol=4e-5 * np.abs(whole).max())


def test_grayscale_and_equal_channels_are_the_same_image(digits, digits_classifier):
    gray = torch.from_numpy(digits[1].take(np.arange(5)))
    for ours, theirs in zip(
        digits_classifier.module(gray), digits_classifier.module(gray.expand(-1, 3, -1, -1)), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_unsuitable_images_are_refused(digits_classifier):
    coloured = torch.randint(0, 255, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with pytest.raises(ValueError, match="the images are coloured"):
        digits_classifier.module(coloured)
    with pytest.raises(
        ValueError, match="images are 9x9 pixels, but the classifier digits-classifier was trained on 8x8"
    ):
        digits_classifier.module(torch.zeros(2, 1, 9, 9, dtype=torch.uint8))
    with pytest.raises(ValueError, match="uint8"):
        digits_classifier.module(torch.zeros(2, 1, 8, 8))


def test_the_parameters_digest_covers_names_types_shapes_and_values_but_no_counters():
    state = {"a.weight": torch.arange(4.0), "b.bias": torch.zeros(2)}
    digest = parameter_digest(state)
    assert parameter_digest(dict(reversed(state.items()))) == digest
    assert parameter_digest(state | {"norm.num_batches_tracked": torch.tensor(7)}) == digest
    others = [
        {"c.weight": state["a.weight"], "b.bias": state["b.bias"]},
        state | {"a.weight": state["a.weight"].double()},
        state | {"a.weight": state["a.weight"].reshape(2, 2)},
        state | {"b.bias": torch.tensor([0.0, 1e-9])},
    ]
    assert digest not in [parameter_digest(other) for other in others]


def test_progress_is_told_after_each_batch(digits, digits_classifier):
    told = []
    extractor = dataclasses.replace(digits_classifier, batch_size=100)
    for _ in extractor.extract(digits[1], progress=lambda *event: told.append(event)):
        pass
    assert told == [("features", done, 360) for done in (100, 200, 300, 360)]
