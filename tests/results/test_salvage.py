"""Of a damaged file the intact results are kept, whatever comes of reading the others."""

import os

import h5py
import numpy as np
import pytest
from child_process import visible
from damage import damaged_copies
from fatal_reading import compare_and_crash, compare_and_hang
from records_for_tests import RECORD_TYPES, assert_equal, example, images

from ddpm_eval.results import hdf5, salvage
from ddpm_eval.results.hdf5 import Damaged
from ddpm_eval.results.records import ReferenceImages
from ddpm_eval.results.store import Store

CASES = int(os.environ.get("DDPM_EVAL_REPAIR_CASES", "4"))
"""Damaged copies of a results file that are repaired; each takes a second."""
NAMES = ["a/1", "a/2", "b/c/1"]


@pytest.fixture
def store(tmp_path):
    """Three results of images in a file."""
    found = Store(tmp_path / "results.h5")
    for seed, name in enumerate(NAMES):
        name, _, key = name.rpartition("/")
        found.put(name, images(40, seed), key=key, provenance={"wall_seconds": 1.25})
    return found


def damage(store, place):
    """Flip a bit of a file, which is then another file."""
    content = bytearray(store.path.read_bytes())
    content[place] ^= 1
    store.path.unlink()
    store.path.write_bytes(content)


def place_of(store, name, field="images"):
    """Return where the bytes of an array lie in a file: behind the start of its only chunk."""
    with h5py.File(store.path) as file:
        return file[f"{name}/{field}"].id.get_chunk_info(0).byte_offset + 100


def test_all_results_of_an_intact_file_are_intact(store):
    assert store.intact() == dict.fromkeys(NAMES, True)


def test_the_damaged_result_is_told_from_the_others_and_dropped(store):
    damage(store, place_of(store, "a/2"))
    with pytest.raises(Damaged, match=r"is damaged.*verify RUN --repair keeps what is intact"):
        store.entries()
    assert store.intact() == {"a/1": True, "a/2": False, "b/c/1": True}
    content = store.path.read_bytes()
    assert store.drop_damaged() == ["a/1", "b/c/1"]
    assert [(entry.name, entry.key) for entry in store.entries()] == [("a", "1"), ("b/c", "1")]
    assert_equal(store.get("a", ReferenceImages, "1"), images(40, 0))
    assert_equal(store.get("b/c", ReferenceImages), images(40, 2))
    assert (store.path.parent / "results.h5.damaged").read_bytes() == content
    assert len(visible(store.path.parent)) == 2
    store.put("a", images(40, 1), key="2", provenance={})
    assert store.intact() == dict.fromkeys(NAMES, True)


@pytest.mark.parametrize(
    "text",
    [b'"wall_seconds": 1.25', b"8-bit level", b"ReferenceImages"],
    ids=["provenance", "unit", "record"],
)
def test_a_result_is_intact_only_with_all_that_is_said_of_it(store, text):
    """How it was made, the units of its arrays, and the name of its type."""
    content = store.path.read_bytes()
    assert text in content
    damage(store, content.index(text) + 3)
    assert sorted(store.intact().values()) in ([False, True, True], [True, True])


def test_a_result_of_an_earlier_version_has_no_digest_and_counts_only_in_an_intact_file(store):
    with hdf5.editing(store.path, []) as file:
        del file["a/1"].attrs["digest"]
    assert_equal(store.get("a", ReferenceImages, "1"), images(40, 0))
    assert store.intact() == dict.fromkeys(NAMES, True)
    damage(store, place_of(store, "b/c/1"))
    assert store.intact() == {"a/1": False, "a/2": True, "b/c/1": False}


def test_a_file_of_which_nothing_can_be_read_is_set_aside_whole(store):
    content = store.path.read_bytes()
    store.path.write_bytes(content[:700])
    assert store.intact() == {} and store.drop_damaged() == []
    assert visible(store.path.parent) == [store.path.with_name("results.h5.damaged")]


def test_a_result_whose_reading_crashes_is_damaged_and_the_others_are_read(store, monkeypatch):
    monkeypatch.setattr(salvage, "_compare", compare_and_crash)
    assert salvage.examine(store.path, checked=False) == {"a/1": True, "a/2": False, "b/c/1": True}


@pytest.mark.slow
def test_a_result_whose_reading_hangs_is_damaged_and_the_others_are_read(store, monkeypatch):
    monkeypatch.setattr(salvage, "_compare", compare_and_hang)
    monkeypatch.setattr(salvage, "SILENT_SECONDS", 15.0)
    assert salvage.examine(store.path, checked=False) == {"a/1": True, "a/2": False, "b/c/1": True}


def test_an_array_that_claims_more_than_a_file_can_hold_is_never_read(store):
    with hdf5.editing(store.path, []) as file:
        file["a/1"].create_dataset("large", shape=(2**40,), dtype=np.uint8, chunks=(2**20,))
    assert store.intact()["a/1"] is False


@pytest.mark.slow
def test_what_is_kept_of_damaged_copies_is_equal(tmp_path):
    """The seeded damages: each kept result is what was put, and nothing raises."""
    store = Store(tmp_path / "results.h5")
    for seed in (1, 0):
        for number, record_type in enumerate(RECORD_TYPES):
            path = tmp_path / f"{seed}.h5"
            Store(path).put("a/b", example(record_type, seed), key=str(number), provenance={"seed": seed})
    kept = []
    whole, other = ((tmp_path / name).read_bytes() for name in ("0.h5", "1.h5"))
    for damaged in damaged_copies(whole, other, CASES):
        store.path.unlink(missing_ok=True)
        store.path.write_bytes(damaged)
        kept.append(len(store.drop_damaged()))
        for number, record_type in enumerate(RECORD_TYPES):
            if store.has("a/b", str(number)):
                seed = store.entries()[0].provenance["seed"]
                assert_equal(store.get("a/b", record_type, str(number)), example(record_type, seed))
    print(f"kept of {len(RECORD_TYPES)}: {kept}")
    assert max(kept) > 0
