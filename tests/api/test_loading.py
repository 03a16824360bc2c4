"""Images by name and as arrays."""

import numpy as np
import pytest
from tiny import digits

from ddpm_eval.api.loading import load_images


def test_a_data_set_is_loaded_by_its_name():
    assert load_images("digits", "test").digest == digits("test").digest
    assert load_images("digits", "train").digest == digits().digest


def test_a_file_is_loaded_by_its_name(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 4)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x_train=array, x_test=array[:5])
    assert np.array_equal(load_images(f"npz:{tmp_path / 'a.npz'}", "test").array, array[:5])


def test_an_array_becomes_a_set_with_its_labels():
    array = np.zeros((5, 1, 4, 4), np.uint8)
    found = load_images(array, "train", labels=np.arange(5))
    assert (found.split, found.labels.tolist()) == ("train", [0, 1, 2, 3, 4])
    assert np.array_equal(found.array, array)


def test_a_limit_takes_a_fixed_random_part_with_its_own_ids():
    whole, part = load_images("digits", "test"), load_images("digits", "test", limit=50)
    assert len(part) == 50 and len(np.unique(part.ids)) == 50
    assert np.array_equal(part.array, whole.array[np.searchsorted(whole.ids, part.ids)])
    assert part.digest == load_images("digits", "test", limit=50).digest
    assert 60 < part.ids.mean() / 5 < 300  # ids of test images are multiples of five: not the first ones
    assert load_images("digits", "test", limit=10**6).digest == whole.digest


def test_what_cannot_be_loaded_is_refused():
    with pytest.raises(ValueError, match=r"no data set 'digit'.*did you mean digits"):
        load_images("digit")
    with pytest.raises(ValueError, match="labels are given for 'digits'"):
        load_images("digits", labels=np.arange(3))
    with pytest.raises(ValueError, match="8-bit levels"):
        load_images(np.zeros((3, 1, 4, 4)))
    with pytest.raises(ValueError, match="labels are 2, but there are 3 images"):
        load_images(np.zeros((3, 1, 4, 4), np.uint8), labels=np.arange(2))
