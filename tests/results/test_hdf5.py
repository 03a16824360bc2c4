"""A file is read only if it is to the byte what was written; else one sentence names it."""

import os

import h5py
import numpy as np
import pytest

from ddpm_eval.results import hdf5
from ddpm_eval.results.hdf5 import HEADER_BYTES, SCHEMA_VERSION, Damaged

ARRAYS = {"a": np.random.default_rng(0).normal(size=(40, 30)), "b": np.arange(3, dtype=np.uint8)}
FLIPS = 48


@pytest.fixture
def path(tmp_path):
    hdf5.write_arrays(tmp_path / "results.h5", ARRAYS)
    return tmp_path / "results.h5"


def rewrite(path, content):
    """Replace a file as a damaged disk would present it: as another file, so that no check is remembered."""
    path.unlink()
    path.write_bytes(content)


def assert_refused(path, message, kind=Damaged):
    """Both the check and the reader refuse the file, and name it."""
    for use in (hdf5.check, hdf5.read_arrays):
        with pytest.raises(kind, match=message) as caught:
            use(path)
        assert str(caught.value).startswith(str(path)) or str(path) in str(caught.value)


# Round trip


def test_arrays_come_back_as_they_were(path):
    found = hdf5.read_arrays(path)
    assert found.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_any_hdf5_program_can_open_the_file(path):
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["a"][...], ARRAYS["a"])
        assert file.userblock_size in (0, HEADER_BYTES)
    header = path.read_bytes()[:HEADER_BYTES]
    assert header.startswith(b"ddpm_eval 3 ") and header.endswith(b"\n")


def test_a_file_can_be_extended_and_is_sealed_again(path):
    before = path.read_bytes()[:HEADER_BYTES]
    with hdf5.editing(path, [np.ones(5)]) as file:
        file["c"] = np.ones(5)
    assert path.read_bytes()[:HEADER_BYTES] != before
    assert set(hdf5.read_arrays(path)) == {"a", "b", "c"}


def test_large_arrays_are_compressed_and_small_ones_are_not(tmp_path):
    hdf5.create(tmp_path / "file.h5")
    with hdf5.editing(tmp_path / "file.h5", []) as file:
        large = hdf5.write_dataset(file, "large", np.zeros((100, 100)))
        small = hdf5.write_dataset(file, "small", np.zeros(hdf5.SMALL_SIZE))
        empty = hdf5.write_dataset(file, "empty", np.zeros((0, 7)))
        assert (large.compression, small.compression, empty.compression) == ("gzip", None, None)


def test_a_file_that_was_not_sealed_is_refused(tmp_path):
    hdf5.create(tmp_path / "file.h5")
    assert_refused(tmp_path / "file.h5", "its header is not readable")


# What is damaged


def test_every_flipped_byte_is_found(path):
    """One bit in each of many places: of the header, of HDF5's own structures, and of the arrays."""
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    bits = {HEADER_BYTES - 1: 0}  # which makes of the line's end another kind of white space
    used = np.flatnonzero(np.frombuffer(content[: len(content.rstrip(b"\0"))], np.uint8))
    places = [0, 5, 10, 12, 40, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 8, len(content) - 1]
    places += rng.choice(used, FLIPS - len(places), replace=False).tolist()
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << bits.get(place, int(rng.integers(8)))
        rewrite(path, damaged)
        for use in (hdf5.check, hdf5.read_arrays):
            with pytest.raises(ValueError, match=r"results\.h5 (is damaged|has schema version)"):
                use(path)
    rewrite(path, content)
    hdf5.check(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.999])
def test_a_truncated_file_is_refused(path, share):
    content = path.read_bytes()
    rewrite(path, content[: int(share * len(content))])
    assert_refused(path, r"results\.h5 is damaged")


def test_a_file_with_something_behind_it_is_refused(path):
    rewrite(path, path.read_bytes() + b"\0")
    assert_refused(path, "its content is not what was written")


@pytest.mark.parametrize(
    "content", [b"", b"not HDF5", b"ddpm_eval", b"\n" * 1000, bytes(10_000), b"\xff" * 600]
)
def test_something_else_under_the_files_name_is_refused(path, content):
    rewrite(path, content)
    assert_refused(path, "is damaged, or no results file of this program: its header is not readable")


@pytest.mark.parametrize("older", ["plain", "with user block"])
def test_a_file_of_an_older_schema_is_refused_with_what_to_do(path, older):
    """Schema 2 and before were plain HDF5 files."""
    path.unlink()
    with h5py.File(path, "w", userblock_size=0 if older == "plain" else 512) as file:
        file.attrs["schema_version"] = 2
    if older == "plain":
        assert path.read_bytes().startswith(b"\x89HDF")
        message = (
            r"was written by an earlier version of this program \(schema version 2 or older, this is 3\)"
        )
        assert_refused(path, f"{message}: move it away and measure again", ValueError)
    else:
        assert_refused(path, "no results file of this program")


def test_a_file_of_a_newer_schema_is_refused(path):
    content = path.read_bytes()
    rewrite(path, content.replace(b"ddpm_eval 3 ", b"ddpm_eval 4 ", 1))
    assert_refused(
        path,
        f"has schema version 4, but this program reads version {SCHEMA_VERSION}: move it away",
        ValueError,
    )


def test_a_missing_file_and_a_folder_are_sentences(path, tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*absent\.h5"):
        hdf5.check(tmp_path / "absent.h5")
    with pytest.raises(ValueError, match=r"cannot be read: Is a directory"):
        hdf5.check(tmp_path)


def test_an_error_while_reading_is_a_sentence(path):
    with pytest.raises(Damaged, match=r"results\.h5 cannot be read as it was written"):
        with hdf5.reading(path) as file:
            file["no such array"]


# When a file is checked


def test_a_file_is_read_again_only_if_it_changed(path, monkeypatch):
    read = []
    digest = hdf5._digest
    monkeypatch.setattr(hdf5, "_digest", lambda *where: read.append(where) or digest(*where))
    for _ in range(3):
        hdf5.check(path)
    assert len(read) == 1
    content = path.read_bytes()
    rewrite(path, content)
    hdf5.check(path)
    assert len(read) == 2
    os.utime(path, (1, 1))
    hdf5.check(path)
    assert len(read) == 3
    rewrite(path, content[:-1])
    with pytest.raises(Damaged):
        hdf5.check(path)
    with pytest.raises(Damaged):  # that it is damaged is not forgotten either
        hdf5.check(path)
