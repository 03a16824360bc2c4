import os
import zipfile

import numpy as np
import pytest

from ddpm_eval.data import array_files
from ddpm_eval.data.datasets import inspect, load
from ddpm_eval.spec import DataSpec


@pytest.mark.slow
def test_real_cifar10(cifar10_npz, spec_of):
    spec = spec_of(f"npz:{cifar10_npz}")
    train, test = load(spec, "train"), load(spec, "test")
    assert (len(train), len(test), spec.channels, spec.side) == (50_000, 10_000, 3, 32)
    assert (len(train.inexact), len(test.inexact)) == (72, 20)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    # The widely published channel means of the training images; the channels' order and layout show in them
    means = train.array.mean(axis=(0, 2, 3)) / 255
    assert means == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)


def test_npz_layouts_are_one(tmp_path, images, spec_of):
    digests = set()
    for layout, x in {"nchw": images, "nhwc": images.transpose(0, 2, 3, 1)}.items():
        np.savez(
            tmp_path / f"{layout}.npz", x_train=x, y_train=np.arange(23, dtype=np.uint8), inexact_train=[4, 7]
        )
        found = load(spec_of(f"npz:{tmp_path / layout}.npz"), "train")
        assert np.array_equal(found.array, images)
        assert (found.labels.tolist(), found.inexact.tolist(), found.labels.dtype) == (
            [*range(23)],
            [4, 7],
            np.int64,
        )
        digests.add(found.digest)
    assert len(digests) == 1
    np.savez(tmp_path / "grey.npz", x_test=images[:, 0])
    grey = load(spec_of(f"npz:{tmp_path / 'grey.npz'}"), "test")
    assert np.array_equal(grey.array, images[:, :1])
    assert grey.labels is None
    assert len(grey.inexact) == 0


def test_digest_changes_with_any_content(tmp_path, images, spec_of):
    other = images.copy()
    other[5, 0, 0, 0] ^= 1
    y = np.zeros(23, int)
    variants = [
        {"x_train": images},
        {"x_train": other},
        {"x_train": images, "y_train": y},
        {"x_train": images, "y_train": y + 1},
    ]
    digests = set()
    for i, arrays in enumerate(variants):
        np.savez(tmp_path / f"{i}.npz", **arrays)
        digests.add(load(spec_of(f"npz:{tmp_path / str(i)}.npz"), "train").digest)
    assert len(digests) == len(variants)


def test_unsplit_npz_makes_every_tenth_a_test_image(tmp_path, images, spec_of):
    np.savez(tmp_path / "a.npz", arr_0=images.transpose(0, 2, 3, 1), arr_1=np.arange(23))
    spec = spec_of(f"npz:{tmp_path / 'a.npz'}")
    test, train, both = (load(spec, split) for split in ("test", "train", "all"))
    assert test.ids.tolist() == test.labels.tolist() == [0, 10, 20]
    assert sorted([*test.ids, *train.ids]) == both.ids.tolist() == [*range(23)]
    for part in (test, train, both):
        assert np.array_equal(part.array, images[part.ids])


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x_test": np.zeros((4, 3, 8, 8), np.uint8)}, "has no array x_train"),
        ({"x_train": np.zeros((4, 3, 8, 8), np.float32)}, "8-bit images .uint8., but are float32"),
        ({"x_train": np.zeros((4, 3, 8, 9), np.uint8)}, r"has shape \(4, 3, 8, 9\)"),
        ({"x_train": np.zeros((4, 4, 8, 8), np.uint8)}, r"has shape \(4, 4, 8, 8\)"),
        ({"x_train": np.zeros((0, 3, 8, 8), np.uint8)}, "is empty"),
        (
            {"x_train": np.zeros((4, 3, 8, 8), np.uint8), "y_train": np.zeros(3, int)},
            "are 3, but there are 4 images",
        ),
        ({"x_train": np.zeros((4, 3, 8, 8), np.uint8), "y_train": np.zeros(4)}, "must be a list of integers"),
        (
            {"x_train": np.zeros((4, 3, 8, 8), np.uint8), "inexact_train": [4]},
            "are ids 4 to 4, but there are 4 images",
        ),
        ({"x_train": np.zeros((4, 1, 8, 8), np.uint8)}, "have 1 channels"),
        ({"x_train": np.array([{}])}, "not a readable npz file of plain arrays"),
        ({"arr_0": np.zeros((1, 3, 8, 8), np.uint8)}, "leave none for the train split"),
    ],
)
def test_unusable_npz_is_a_sentence(tmp_path, arrays, sentence):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=sentence):
        load(DataSpec(name=f"npz:{tmp_path / 'a.npz'}", channels=3, side=8), "train")


def test_damaged_npz_is_a_sentence(tmp_path, images):
    np.savez(tmp_path / "a.npz", x_train=images)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "b.npy", images)
    for name, sentence in {
        "a.npz": "not a readable npz",
        "b.npy": "one unnamed array",
        "c.npz": "there is no file",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            inspect(f"npz:{tmp_path / name}")
    np.savez(tmp_path / "d.npz", images=images)
    with pytest.raises(ValueError, match="holds no images"):
        inspect(f"npz:{tmp_path / 'd.npz'}")


def test_a_file_that_would_expand_beyond_the_memory_is_refused_before_it_is(tmp_path, images, monkeypatch):
    """The archive's list tells the size: nothing is expanded."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x_train=np.zeros((40_000, 3, 8, 8), np.uint8), x_test=images)
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(array_files, "available_bytes", lambda: 10_000_000)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(
        ValueError, match=r"a.npz does not fit in memory: .* need 15.4 MB .* but 10 MB are available$"
    ):
        load(DataSpec(name=f"npz:{path}", channels=3, side=8), "train")
    monkeypatch.undo()
    for available in (15_400_000, None):
        monkeypatch.setattr(array_files, "available_bytes", lambda: available)  # noqa: B023
        assert len(load(DataSpec(name=f"npz:{path}", channels=3, side=8), "train")) == 40_000


def test_a_header_that_claims_more_than_there_is_allocates_nothing(tmp_path):
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000, 3, 8, 8), }"
    member = b"\x93NUMPY\x01\x00" + len(header + "\n").to_bytes(2, "little") + header.encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x_train.npy", member)
    with pytest.raises(ValueError, match=r"a.npz (does not fit in memory|is not a readable npz)"):
        load(DataSpec(name=f"npz:{tmp_path / 'a.npz'}", channels=3, side=8), "train")


def test_a_pipe_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.npz is no file"):
        inspect(f"npz:{tmp_path / 'a.npz'}")
