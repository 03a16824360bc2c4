"""The patches of photographs: which pixels they are, that training and test share none, bad input."""

import itertools

import numpy as np
import pytest
from PIL import features

from ddpm_eval.data import photos
from ddpm_eval.data.datasets import check_number, inspect, load
from ddpm_eval.data.photos import SIDES, halved_photographs, patch_ids, patch_places
from ddpm_eval.spec import DataSpec


def photo_spec(side=8, channels=3):
    return DataSpec(name="photos", channels=channels, side=side)


def pixels_of(split, side):
    """The pixels (photograph, row, column) of all patches of a split, repeated where patches overlap."""
    return [
        (photo, row + i, column + j)
        for photo, row, column in patch_places(split, side).tolist()
        for i, j in itertools.product(range(side), repeat=2)
    ]


@pytest.fixture(scope="module")
def photo_sets():
    return load(photo_spec(), "train"), load(photo_spec(), "test")


def test_halved_pixels_are_means_of_four_rounded_half_up():
    from sklearn.datasets import load_sample_images

    halved = halved_photographs()
    assert halved.shape == (2, 213, 320, 3)
    rng = np.random.default_rng(0)
    for photo, original in enumerate(load_sample_images().images):
        for row, column in zip(rng.integers(0, 213, 50), rng.integers(0, 320, 50), strict=True):
            block = original[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(4, 3)
            expected = [int(sum(map(int, levels)) / 4 + 0.5) for levels in block.T]
            assert halved[photo, row, column].tolist() == expected


def test_patches_are_the_pixels_that_their_ids_name(photo_sets):
    halved = halved_photographs()
    for images in photo_sets:
        for k in (0, 1, len(images) // 2, len(images) - 1):
            rest, column = divmod(int(images.ids[k]), 320)
            photo, row = divmod(rest, 213)
            patch = halved[photo, row : row + 8, column : column + 8]
            assert np.array_equal(images.array[k], patch.transpose(2, 0, 1))


@pytest.mark.parametrize("side", [8, 16])
def test_training_and_test_share_no_pixel_and_test_patches_do_not_overlap(side):
    test = pixels_of("test", side)
    assert len(set(test)) == len(test)
    train = set(pixels_of("train", side))
    assert train.isdisjoint(test)
    # more: they share no column of a photograph
    assert {(photo, column) for photo, _, column in train}.isdisjoint(
        (photo, column) for photo, _, column in test
    )


@pytest.mark.parametrize("side", SIDES)
def test_every_side_has_thousands_of_training_patches_of_its_shape(side):
    train = load(photo_spec(side), "train")
    test = load(photo_spec(side), "test")
    assert len(train) > 10_000
    assert len(test) == 2 * (213 // side) * 2 * (32 // side)
    for images in (train, test):
        assert images.array.shape == (len(images), 3, side, side)
        assert len(set(images.ids.tolist())) == len(images)
        assert images.labels is None
    assert not set(train.ids.tolist()) & set(test.ids.tolist())


def test_an_id_is_a_place_whatever_the_side():
    for places in (patch_places("train", 8), patch_places("test", 16)):
        ids = patch_ids(places)
        assert np.array_equal(np.stack(np.unravel_index(ids, (2, 213, 320)), axis=1), places)
    # patches of side 16 begin where some patches of side 8 do, in the same order
    large = patch_ids(patch_places("test", 16))
    small = patch_ids(patch_places("test", 8))
    assert np.array_equal(small[np.isin(small, large)], large)


def test_patches_come_in_the_order_of_splitmix64():
    """The first output of this generator from seed 0, as published, is the hash of 0."""
    assert int(photos._hash(np.array([0]))[0]) == 0xE220A8397B1DCDAF


def test_first_patches_are_from_everywhere():
    """The first 100 lie in both photographs, in all quarters of their heights and all bands."""
    for split, bands in (("train", photos.TRAIN_BANDS), ("test", [(64, 96), (224, 256)])):
        places = patch_places(split, 8)[:100]
        found = {
            (photo, row // 54, band)
            for photo, row, column in places.tolist()
            for band, (first, end) in enumerate(bands)
            if first <= column < end
        }
        assert len(found) == 2 * 4 * len(bands)


def test_photos_use_256_levels(photo_sets):
    train, test = photo_sets
    assert len(np.unique(train.array)) == 256
    assert train.array.dtype == test.array.dtype == np.uint8


def test_digests_identify_the_splits(photo_sets):
    # stored results are kept under these; another JPEG library than libjpeg-turbo may decode to other pixels
    assert [images.digest for images in photo_sets] == ["68f586d12f34", "a3c2c6506616"]


def test_inspect_names_the_customary_shape():
    assert inspect("photos") == (3, 8)


def test_sides_that_do_not_divide_and_other_channels_are_sentences():
    with pytest.raises(
        ValueError, match=r"bands of 32 columns .* side of 12 pixels does not divide .*2, 4, 8, 16"
    ):
        load(photo_spec(12), "train")
    with pytest.raises(ValueError, match="side of 64 pixels does not divide"):
        load(photo_spec(64), "test")
    with pytest.raises(ValueError, match=r"images of photos have 3 channels .*set data.channels=3"):
        load(photo_spec(channels=1), "train")
    with pytest.raises(ValueError, match="photos has the splits train and test"):
        load(photo_spec(), "all")


def test_fewer_test_patches_than_asked_for_are_a_sentence():
    test = load(photo_spec(16), "test")
    check_number(test, None)
    check_number(test, 104)
    with pytest.raises(
        ValueError, match=r"photos has 104 test images of 16x16 pixels, but 400 are asked for"
    ):
        check_number(test, 400)


def test_pillow_without_jpeg_is_a_sentence(monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: feature != "jpg")
    with pytest.raises(
        ValueError, match=r"Pillow's JPEG reader, which the installed Pillow was built without"
    ):
        load(photo_spec(), "train")


def test_other_photographs_are_a_sentence(monkeypatch):
    monkeypatch.setattr(photos, "PHOTOGRAPHS", (2, 427, 641, 3))
    with pytest.raises(ValueError, match="has scikit-learn changed them"):
        load(photo_spec(), "train")
