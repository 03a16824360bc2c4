import pickle

import numpy as np
import pytest
from PIL import Image

from ddpm_eval.data import image_set
from ddpm_eval.data.datasets import inspect, load


def fill(folder, images, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(folder / f"{i:03}{suffix}")
    return folder


def test_folder_without_splits_makes_every_tenth_a_test_image(tmp_path, images, spec_of):
    spec = spec_of(f"folder:{fill(tmp_path, images)}")
    test, train, both = (load(spec, split) for split in ("test", "train", "all"))
    assert test.ids.tolist() == [0, 10, 20]
    assert sorted([*test.ids, *train.ids]) == both.ids.tolist() == [*range(23)]
    for part in (test, train, both):
        assert np.array_equal(part.array, images[part.ids])


def test_folder_with_splits(tmp_path, images, spec_of):
    fill(tmp_path / "train" / "cats", images[:4])
    fill(tmp_path / "train" / "dogs", images[4:9])
    spec = spec_of(f"folder:{tmp_path}")
    assert np.array_equal(load(spec, "train").array, images[:9])
    with pytest.raises(ValueError, match=f"there is no folder {tmp_path / 'test'}"):
        load(spec, "test")
    fill(tmp_path / "test", images[9:])
    assert np.array_equal(load(spec, "test").array, images[9:])
    assert load(spec, "test").ids.tolist() == [*range(14)]


def test_streamed_folder_holds_the_same_images(tmp_path, images, monkeypatch, spec_of):
    spec = spec_of(f"folder:{fill(tmp_path, images)}")
    held = load(spec, "train")
    monkeypatch.setattr(
        image_set, "MEMORY_LIMIT_BYTES", 20 * 3 * 8 * 8 - 1
    )  # one byte less than the 20 training images
    streamed = load(spec, "train")
    assert (held.in_memory, streamed.in_memory) == (True, False)
    assert load(spec, "test").in_memory
    index = np.array([7, 0, 19, 7])
    for found in (streamed, pickle.loads(pickle.dumps(streamed))):  # as a spawned worker receives it
        assert np.array_equal(found.take(index), held.take(index))
    with pytest.raises(ValueError, match="20 images are not held in memory"):
        _ = streamed.array


def test_streamed_digest_changes_with_names_and_sizes(tmp_path, images, streamed, spec_of):
    spec = spec_of(f"folder:{fill(tmp_path, images)}")
    first = load(spec, "all").digest
    assert first == load(spec, "all").digest
    (tmp_path / "022.png").rename(tmp_path / "023.png")
    second = load(spec, "all").digest
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "023.png")
    assert len({first, second, load(spec, "all").digest}) == 3


def test_streamed_folder_is_checked_before_it_is_used(tmp_path, images, streamed, spec_of):
    spec = spec_of(f"folder:{fill(tmp_path, images)}")
    (tmp_path / "003.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"1 of 20 images cannot be used: .*003\.png"):
        load(spec, "train")
    broken = fill(tmp_path, images) / "001.png"
    found = load(spec, "train")
    broken.write_bytes(broken.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"001\.png cannot be decoded"):
        found.take(np.array([0]))


def test_folder_of_other_sizes_needs_an_explicit_resize(tmp_path, images, spec_of):
    fill(tmp_path, images)
    Image.fromarray(np.full((20, 31, 3), 77, np.uint8)).save(tmp_path / "005.png")
    with pytest.raises(
        ValueError, match=r"1 of 20 .*005.png is 31x20 pixels, but .* 8x8 \(folder@8:DIR crops and resizes\)"
    ):
        load(spec_of(f"folder:{tmp_path}"), "train")
    spec = spec_of(f"folder@4:{tmp_path}")
    assert (spec.channels, spec.side) == (3, 4)
    found = load(spec, "all")
    assert found.array.shape == (23, 3, 4, 4)
    assert (found.array[5] == 77).all()
    with pytest.raises(ValueError, match="resizes to 4 pixels, but the run asks for 8"):
        load(spec.model_copy(update={"side": 8}), "all")


def test_grey_folder_is_not_coloured_unasked(tmp_path, images, spec_of):
    spec = spec_of(f"folder:{fill(tmp_path, images[:, :1])}")
    assert spec.channels == 1
    with pytest.raises(
        ValueError, match=r"3 of 3 .*has 1 channels, but the run asks for 3 \(set data.channels=1"
    ):
        load(spec.model_copy(update={"channels": 3}), "test")


def test_unusable_folders_are_sentences(tmp_path, spec_of):
    with pytest.raises(ValueError, match="there is no folder"):
        inspect(f"folder:{tmp_path / 'absent'}")
    Image.new("RGB", (8, 5)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="8x5 pixels, but images must be square"):
        inspect(f"folder:{tmp_path}")
    Image.new("P", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="mode P"):
        inspect(f"folder:{tmp_path}")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="1 images leave none for the train split"):
        load(spec_of(f"folder:{tmp_path}"), "train")
