"""The results file: what is put comes back, and nothing half-written or damaged is ever read."""

import json
import os
import signal
import subprocess

import h5py
import numpy as np
import pytest
from child_process import child, visible
from damage import outcomes
from records_for_tests import RECORD_TYPES, assert_equal, example, images

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results import hdf5
from ddpm_eval.results.bound_terms import FullBoundTerms
from ddpm_eval.results.fields import Estimate
from ddpm_eval.results.hdf5 import Damaged
from ddpm_eval.results.records import Quality, ReferenceImages, Samples, TrainingLog
from ddpm_eval.results.store import Result, Store


def samples(pixels, n):
    return Samples(pixels, np.zeros(n), np.zeros(n), method="ancestral", num_steps=7, seed=3)


@pytest.fixture
def results(tmp_path):
    return Store(tmp_path / "run" / "results.h5")


def listed(results):
    return [(entry.name, entry.key) for entry in results.entries()]


# Round trip


@pytest.mark.parametrize("record_type", RECORD_TYPES)
def test_every_record_comes_back_as_it_was(results, record_type):
    record = example(record_type)
    results.put("some/name", record, key="k", provenance={})
    assert_equal(results.get("some/name", record_type), record)
    assert_equal(results.get("some/name", record_type, "k"), record)


def test_a_log_without_updates_can_be_stored(results):
    """A run that was stopped before its first look at the loss."""
    none = np.zeros(0, np.float32)
    numbers = {"steps": 0, "images": 0, "seconds": 0.0, "parameters": 1}
    record = TrainingLog(none, none, status="stopped", reason="", **numbers)
    results.put("training", record, key="k", provenance={})
    assert_equal(results.get("training", TrainingLog), record)


def test_a_result_is_there_only_under_its_key(results):
    assert not results.has("a", "1")
    results.put("a", images(), key="1", provenance={})
    assert results.has("a", "1")
    assert not results.has("a", "2") and not results.has("b", "1") and not results.has("b/a", "1")


def test_results_under_different_choices_live_side_by_side(results):
    first, second, third = (images(n, seed=n) for n in (2, 3, 5))
    results.put("a", first, key="1", provenance={"weights": "w"})
    results.put("b/c", second, key="2", provenance={"weights": "w"})
    results.put("a", third, key="3", provenance={"weights": "w"})
    assert listed(results) == [("a", "1"), ("a", "3"), ("b/c", "2")]
    assert_equal(results.get("a", ReferenceImages, "1"), first)
    assert_equal(results.get("a", ReferenceImages, "3"), third)
    assert_equal(results.get("a", ReferenceImages), third)  # the newest
    results.put("a", second, key="1", provenance={"weights": "w"})
    assert listed(results) == [("a", "3"), ("a", "1"), ("b/c", "2")]  # in the order of their times
    assert_equal(results.get("a", ReferenceImages), second)


def test_a_name_within_another_name_is_no_other_result(results):
    results.put("a", images(2), key="1", provenance={})
    results.put("a/b", images(3), key="2", provenance={})
    assert listed(results) == [("a", "1"), ("a/b", "2")]
    assert len(results.get("a", ReferenceImages).images) == 2
    assert not results.has("a", "b") and not results.has("a", "2")


def test_results_of_earlier_weights_are_replaced_by_those_of_the_same_name(results):
    for name, key, weights in [("a", "1", "old"), ("a", "2", "old"), ("b", "3", "old"), ("a", "4", "new")]:
        results.put(name, images(), key=key, provenance={"weights": weights})
    assert listed(results) == [("a", "4"), ("b", "3")]


def test_several_results_are_stored_in_one_step(results, monkeypatch):
    """If the second cannot be written, the first is not there either."""
    results.put("a", images(2), key="1", provenance={})
    pair = [Result("b", images(3), "2"), Result("c", images(4), "3")]
    with monkeypatch.context() as patch:
        write = hdf5.write_dataset

        def fail(group, name, value):
            if len(value) == 4:
                raise OSError("disk full")
            return write(group, name, value)

        patch.setattr(hdf5, "write_dataset", fail)
        with pytest.raises(ValueError, match="disk full"):
            results.put_all(pair, {})
    assert listed(results) == [("a", "1")]
    results.put_all(pair, {"device": "CPU"})
    assert listed(results) == [("a", "1"), ("b", "2"), ("c", "3")]
    _, b, c = results.entries()
    assert b.provenance == c.provenance


# The file and its entries describe themselves


def test_the_file_describes_itself(results):
    """Another program finds axes, units, meanings, versions and how the results came about."""
    provenance = {"device": "CPU", "spec": {"seed": 3}}
    results.put("samples", samples(np.zeros((20, 1, 8, 8), np.uint8), 20), key="k", provenance=provenance)
    results.put("quality", example(Quality), key="q", provenance={})
    with h5py.File(results.path) as file:
        data = file["samples/k/images"]
        assert [axis.label for axis in data.dims] == ["sample", "channel", "row", "column"]
        assert data.attrs["unit"] == "8-bit level" and "8 bits" in data.attrs["meaning"]
        assert data.compression == "gzip" and data.chunks
        distance = file["quality/q/frechet_distance"]
        assert distance.shape == (3,) and distance.attrs["unit"] == "squared feature units"
        assert [axis.label for axis in distance.dims] == ["interval"] and distance.attrs["meaning"]
        found = json.loads(file["samples/k"].attrs["provenance"])
    assert found["spec"] == {"seed": 3} and found["device"] == "CPU"
    assert {"created", "python", "machine", "versions", "git_commit", "command"} <= set(found)


def test_entries_describe_results_without_their_arrays(results):
    assert results.entries() == []
    results.put("reference-images", images(4), key="k", provenance={"device": "CPU"})
    (entry,) = results.entries()
    assert (entry.name, entry.record, entry.key) == ("reference-images", "ReferenceImages", "k")
    assert entry.scalars == {"name": "digits", "split": "train"}
    assert entry.arrays == {"images": "[image 4, channel 1, row 8, column 8] uint8, 8-bit level"}
    assert entry.sizes == [[("image", 4), ("channel", 1), ("row", 8), ("column", 8)]]
    assert entry.provenance["device"] == "CPU"


def test_entries_hold_estimates_and_protocols(results):
    quality, terms = example(Quality), example(FullBoundTerms)
    results.put("quality", quality, key="q", provenance={})
    results.put("terms", terms, key="t", provenance={})
    of_quality, of_terms = results.entries()
    distance = of_quality.scalars["frechet_distance"]
    assert isinstance(distance, Estimate) and distance.unit == quality.frechet_distance.unit
    np.testing.assert_array_equal(distance[:3], quality.frechet_distance[:3])
    assert (
        "frechet_distance" not in of_quality.arrays and len(of_quality.sizes) == len(of_quality.arrays) == 2
    )
    assert type(of_quality.scalars["n_samples"]) is int and type(of_quality.scalars["score_std"]) is float
    assert type(PROTOCOLS["paper"]).model_validate_json(of_terms.scalars["protocol"]) == terms.protocol


# What is wrong gets a sentence


def test_a_missing_file_or_result_is_a_sentence(results):
    message = r"there is no results file .* \(has this run been trained and measured\?\)"
    with pytest.raises(ValueError, match=message):
        results.get("a", ReferenceImages)
    results.put("a", images(), key="1", provenance={})
    with pytest.raises(ValueError, match=r"holds no result 'b' \(it holds a\)"):
        results.get("b", ReferenceImages)
    with pytest.raises(ValueError, match=r"holds no result 'a'"):
        results.get("a", ReferenceImages, "2")
    with pytest.raises(ValueError, match="a is a ReferenceImages, not a Samples"):
        results.get("a", Samples)


def uses(results):
    """Every way to use a results file."""
    return (
        lambda: results.get("a", ReferenceImages),
        lambda: results.has("a", "1"),
        results.entries,
        lambda: results.put("b", images(), key="2", provenance={}),
    )


def assert_refused(results, content, message):
    """Every use refuses the file with this content, and leaves it as it is."""
    results.path.unlink()
    results.path.write_bytes(content)
    for use in uses(results):
        with pytest.raises(ValueError, match=message):
            use()
    assert results.path.read_bytes() == content
    assert visible(results.path.parent) == [results.path]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_a_sentence_for_readers_and_writers(results, share):
    results.put("a", images(200), key="1", provenance={})
    content = results.path.read_bytes()
    message = r"results\.h5 is damaged.*; verify RUN --repair keeps what is intact of it"
    assert_refused(results, content[: int(share * len(content))], message)


def test_flipped_bytes_are_a_sentence_for_readers_and_writers(results):
    results.put("a", images(20), key="1", provenance={})
    content = results.path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(hdf5.HEADER_BYTES, len(content), 24):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        assert_refused(
            results, bytes(damaged), r"results\.h5 is damaged: its content is not what was written"
        )


def test_a_file_of_schema_2_is_refused_with_what_to_do(results):
    results.path.parent.mkdir()
    with h5py.File(results.path, "w") as file:
        file.attrs["schema_version"] = 2
        file["a/images"] = images().images
    message = r"was written by an earlier version of this program .* move it away and measure again"
    assert_refused(results, results.path.read_bytes(), message)


def tamper(results, change):
    """Change a file as somebody would who also seals it again."""
    with hdf5.editing(results.path, []) as file:
        change(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file["a/1/images"].write_direct(np.zeros((4, 1, 8, 8), np.uint8)),
        lambda file: file["a/1"].attrs.__setitem__("split", "test"),
        lambda file: file["a/1"].attrs.__setitem__("digest", "0123456789ab"),
    ],
    ids=["array", "text", "digest"],
)
def test_a_record_that_is_not_what_was_put_is_a_sentence(results, change):
    results.put("a", images(), key="1", provenance={})
    tamper(results, change)
    with pytest.raises(Damaged, match=r"results\.h5: the content of a is not what was written"):
        results.get("a", ReferenceImages)


def test_damaged_copies_of_results_are_refused_or_equal(results, tmp_path):
    def put_all(store, seed):
        for number, record_type in enumerate(RECORD_TYPES):
            store.put("a/b", example(record_type, seed), key=str(number), provenance={})
        return store.path.read_bytes()

    def assert_whole(path):
        store = Store(path)
        for number, record_type in enumerate(RECORD_TYPES):
            assert_equal(store.get("a/b", record_type, str(number)), example(record_type, 0))

    others = put_all(Store(tmp_path / "other.h5"), 1)
    counts = outcomes(tmp_path / "damaged.h5", put_all(results, 0), others, assert_whole)
    assert counts["refused"] > counts["equal"]


@pytest.mark.parametrize("missing", ["array", "text"])
def test_a_group_that_lacks_a_field_is_a_sentence(results, missing):
    results.put("a", images(), key="1", provenance={})
    remove = {
        "array": lambda file: file["a/1"].__delitem__("images"),
        "text": lambda file: file["a/1"].attrs.__delitem__("split"),
    }
    tamper(results, remove[missing])
    with pytest.raises(Damaged, match=r"results\.h5: the content of a is not what was written"):
        results.get("a", ReferenceImages)


# Kills, rivals and full disks

PREAMBLE = """
from ddpm_eval.results import hdf5, store
from ddpm_eval.results.partial import PartialResults
from ddpm_eval.results.records import ReferenceImages
from ddpm_eval.results.store import Store

def images(n):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 32, 32)).astype(np.uint8)
    return ReferenceImages(images=pixels, name="x", split="y")
"""


@pytest.mark.parametrize("moment", ["reserve", "write", "synchronise"])
@pytest.mark.parametrize("fresh", [True, False], ids=["first-result", "another-result"])
def test_a_kill_in_the_middle_of_put_loses_only_what_was_being_put(results, moment, fresh):
    if not fresh:
        results.put("a", images(), key="1", provenance={})
    code = """
def hang(*arguments):
    print("there", flush=True)
    time.sleep(60)

original = store.write
if sys.argv[2] == "reserve":
    hdf5.reserve = hang
elif sys.argv[2] == "write":
    store.write = lambda group, *rest: (original(group, *rest), group.file.flush(), hang())
else:
    os.fsync = hang
Store(Path(sys.argv[1])).put("b", images(300), key="2", provenance={})
"""
    with child(PREAMBLE + code, results.path, moment) as process:
        assert process.stdout.readline() == "there\n", process.stderr.read()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert [entry.name for entry in results.entries()] == ([] if fresh else ["a"])
    assert list(results.path.parent.glob("*.tmp"))  # the test was what it says
    results.put("b", images(), key="2", provenance={})
    assert [entry.name for entry in results.entries()] == (["b"] if fresh else ["a", "b"])
    assert visible(results.path.parent) == [results.path]


def test_a_reader_keeps_the_file_it_opened(results):
    """The new file takes the old one's name in one step; the old one is never written to."""
    results.put("a", images(), key="1", provenance={})
    before = results.path.read_bytes()
    with results.path.open("rb") as reader:
        results.put("b", images(300), key="2", provenance={})
        assert reader.read() == before
    assert results.path.read_bytes() != before


def test_a_temporary_file_left_by_a_process_of_the_same_id_does_no_harm(results):
    """In a container the process id is the same in every start."""
    results.path.parent.mkdir()
    results.path.with_name(f"results.h5.{os.getpid()}.tmp").write_bytes(b"half an HDF5 file")
    results.put("a", images(), key="1", provenance={})
    assert results.has("a", "1")


FULL_DISK = """
folder, what, room = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
results, partial = Store(folder / "results.h5"), PartialResults(folder / "partial" / "x", "k")
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
try:
    if what == "put":
        results.put("b", images(300), key="2", provenance={})
    else:
        partial.put(1, {"x": images(300).images})
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["put", "item"])
@pytest.mark.parametrize("room", [0, 1000, 500_000, 900_000])
def test_a_full_disk_is_a_sentence_and_leaves_everything_as_it_was(results, what, room):
    """A limit on the size of files stands for the disk.

    Writing beyond it fails in the same place (EFBIG instead of ENOSPC).
    """
    results.put("a", images(), key="1", provenance={})
    before = results.path.read_bytes()
    with child(PREAMBLE + FULL_DISK, results.path.parent, what, room) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors  # in particular HDF5 did not crash on its way out
    assert errors == ""
    name = "results.h5" if what == "put" else "000001.h5"
    assert output.startswith(f"cannot write {results.path.parent}")
    assert f"{name} (disk full, or no permission?)" in output
    assert results.path.read_bytes() == before
    assert visible(results.path.parent) == [results.path]


def test_no_place_to_write_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write .*results\.h5 \(disk full, or no permission\?\)"):
        Store(tmp_path / "file" / "results.h5").put("a", images(), key="1", provenance={})


def incompressible(n):
    """Return samples that gzip cannot shrink, in a number that leaves an incomplete last chunk."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 33, 33)).astype(np.uint8)
    shares = np.random.default_rng(1).normal(size=n)
    return Samples(pixels, shares, np.zeros(n), method="ancestral", num_steps=2, seed=0)


@pytest.mark.parametrize("n", [1, 100, 1001])
def test_the_reserved_space_is_enough_and_what_is_left_of_it_is_given_back(results, n):
    for name in "abc":
        before = results.path.stat().st_size if results.path.exists() else 0
        record = incompressible(n)
        results.put(name, record, key="1", provenance={"spec": "x" * 5000})
        grown = results.path.stat().st_size - before
        raw = record.images.nbytes + record.out_of_range.nbytes
        # half of the allowance at most
        assert grown <= (1 + hdf5.SIZE_MARGIN) / 2 * raw + hdf5.OVERHEAD_BYTES / 2
        assert results.path.stat().st_size < 3 * 1.1 * raw + 100_000  # no reserve is left in the file


def test_processes_that_write_one_file_at_once_lose_nothing(results):
    code = """
path, name = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for index in range(8):
    Store(Path(path)).put(f"{name}/{index}", images(2), key="k", provenance={})
"""
    writers = [child(PREAMBLE + code, results.path, name, stdin=subprocess.PIPE) for name in "abcd"]
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 4
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    failures = [writer.communicate(timeout=120)[1] for writer in writers]
    assert failures == [""] * 4
    assert len(results.entries()) == 32
    assert not list(results.path.parent.glob("*.tmp"))
