"""Image sets made of arrays and of functions, and the check of images to be measured."""

import numpy as np
import pytest

from ddpm_eval.data.datasets import load
from ddpm_eval.data.image_set import ArrayImages, as_images, from_array, in_memory_set, streamed_set


def test_take_uses_positions(digits):
    index = np.array([3, 0, 3])
    assert np.array_equal(digits[1].take(index), digits[1].array[[3, 0, 3]])


def test_an_array_becomes_a_set_with_ids_from_zero(images):
    labels = np.arange(23, dtype=np.uint8)
    found = from_array(images, "mine", "train", labels)
    assert (found.name, found.split, found.channels, found.side) == ("mine", "train", 3, 8)
    assert found.ids.tolist() == found.labels.tolist() == [*range(23)]
    assert found.labels.dtype == found.ids.dtype == np.int64
    assert found.in_memory
    assert np.array_equal(found.array, images)
    assert len(found.inexact) == 0
    bare = from_array(images)
    assert (bare.name, bare.split, bare.labels) == ("array", "test", None)
    assert bare.digest == from_array(images, "other", "train").digest != found.digest


def test_an_array_has_the_digest_of_the_same_images_in_a_file(images, spec_of, tmp_path):
    np.savez(tmp_path / "a.npz", x_test=images, y_test=np.arange(23))
    stored = load(spec_of(f"npz:{tmp_path / 'a.npz'}"), "test")
    assert from_array(images, labels=np.arange(23)).digest == stored.digest


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((4, 3, 8, 8), np.float32), "8-bit levels .uint8., but are float32"),
        (np.zeros((4, 8, 8, 3), np.uint8), r"shape \[n, 1 or 3, height, width\], but have \[4, 8, 8, 3\]"),
        (np.zeros((4, 8, 8), np.uint8), r"but have \[4, 8, 8\]"),
        (np.zeros((0, 3, 8, 8), np.uint8), "there are no images"),
        (np.zeros((4, 3, 8, 9), np.uint8), "must be square, but have 8x9 pixels"),
    ],
)
def test_other_arrays_are_refused(array, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_array(array)


def test_labels_must_be_one_integer_per_image(images):
    with pytest.raises(ValueError, match="labels are 3, but there are 23 images"):
        from_array(images, labels=np.arange(3))
    with pytest.raises(ValueError, match="labels must be a list of integers"):
        from_array(images, labels=np.zeros(23))


def test_images_to_be_measured_may_be_an_array_or_a_set(images):
    found = as_images(images[:, :, :5])  # measured images need not be square
    assert isinstance(found, ArrayImages)
    assert np.array_equal(found.take(np.array([3, 0, 3])), images[[3, 0, 3], :, :5])
    own = from_array(images)
    assert as_images(own) is own
    with pytest.raises(ValueError, match="there are no images to measure"):
        as_images(ArrayImages(images[:0]))


def test_a_streamed_set_reads_what_is_taken(images):
    read = []

    def image(index):
        read.append(index)
        return images[index]

    found = streamed_set("mine", "test", image, np.arange(23), (3, 8), ["a 1"])
    assert not found.in_memory
    assert np.array_equal(found.take(np.array([7, 2])), images[[7, 2]])
    assert read == [7, 2]
    other = streamed_set("mine", "test", image, np.arange(23), (3, 8), ["a 2"])
    assert found.digest != other.digest


def test_a_subset_keeps_ids_and_labels_and_has_its_own_digest(images):
    whole = in_memory_set(
        "mine", "test", images, np.arange(100, 123), np.arange(23) % 5, np.array([101, 107])
    )
    index = np.array([7, 2, 9])
    part = whole.subset(index)
    assert np.array_equal(part.take(np.array([0, 2])), images[[7, 9]])
    assert part.ids.tolist() == [107, 102, 109]
    assert part.labels.tolist() == [2, 2, 4]
    assert part.inexact.tolist() == [107]
    assert (part.name, part.split, part.channels, part.side) == ("mine", "test", 3, 8)
    assert len({whole.digest, part.digest, whole.subset(index[::-1]).digest}) == 3


def test_a_subset_of_a_streamed_set_is_streamed(images):
    whole = streamed_set("mine", "test", lambda index: images[index], np.arange(23), (3, 8), ["a 1"])
    part = whole.subset(np.array([7, 2]))
    assert not part.in_memory
    assert len(part) == 2
    assert np.array_equal(part.take(np.array([1, 0])), images[[2, 7]])
    assert part.digest != whole.digest
