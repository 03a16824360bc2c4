"""The results file: what is put comes back, nothing half-written is ever read, and what is wrong gets one
sentence.
"""

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

from ddpm_eval.results import records, store
from ddpm_eval.results.records import (
    Record,
    ReferenceImages,
    Samples,
    TrainingLog,
    array_fields,
    scalar_fields,
)
from ddpm_eval.results.store import (
    HDF5_MARGIN,
    HDF5_OVERHEAD_BYTES,
    SCHEMA_VERSION,
    PartialResults,
    Store,
    locked_folder,
)

ROOT = Path(__file__).resolve().parents[2]
TYPES = [
    member
    for member in vars(records).values()
    if isinstance(member, type) and issubclass(member, Record) and member != Record
]
TEXT = "with accents: é, µ~, ε; quotes \" and '; two\nlines"


def example(record_type, seed=0):
    """Build a record with a different length for each dimension and values that are hard to keep."""
    rng = np.random.default_rng(seed)
    lengths: dict[str, int] = {}
    values: dict[str, object] = {}
    for position, field in enumerate(array_fields(record_type)):
        shape = [lengths.setdefault(name, 3 + len(lengths)) for name in field.metadata["dims"]]
        dtype = [np.float64, np.float32, np.int64, np.uint8][position % 4]
        value = rng.integers(0, 255, shape) if position % 4 > 1 else rng.normal(size=shape)
        values[field.name] = value.astype(dtype)
    for field in scalar_fields(record_type):
        values[field.name] = {int: 2**40 + 1, float: float("nan"), str: TEXT, bool: True}[field.type]
    return record_type(**values)


def images(n=4, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 1, 8, 8)).astype(np.uint8)
    return ReferenceImages(images=pixels, name="digits", split="train")


def assert_equal(found, expected):
    assert type(found) is type(expected)
    for field in dataclasses.fields(expected):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b)
        else:
            assert type(a) is type(b) and (a == b or (a != a and b != b)), field.name


def visible(folder):
    """List the files in and below a folder, but for locks."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]


@pytest.fixture
def results(tmp_path):
    return Store(tmp_path / "run" / "results.h5")


# Round trip


@pytest.mark.parametrize("record_type", TYPES)
def test_every_record_comes_back_as_it_was(results, record_type):
    record = example(record_type)
    results.put("some/name", record, key="k", provenance={})
    assert_equal(results.get("some/name", record_type), record)


def test_several_results_live_side_by_side_and_are_replaced_by_name(results):
    first, second, third = (images(n, seed=n) for n in (2, 3, 5))
    results.put("a", first, key="1", provenance={})
    results.put("b/c", second, key="2", provenance={})
    results.put("a", third, key="3", provenance={})
    assert_equal(results.get("a", ReferenceImages), third)
    assert_equal(results.get("b/c", ReferenceImages), second)
    assert [(entry.name, entry.key) for entry in results.entries()] == [("a", "3"), ("b/c", "2")]


def test_a_result_is_there_only_under_its_key(results):
    assert not results.has("a", "1")
    results.put("a", images(), key="1", provenance={})
    assert results.has("a", "1")
    assert not results.has("a", "2") and not results.has("b", "1")


def test_the_file_describes_itself(results):
    """Another program that reads HDF5 finds axes, units, meanings, versions and the facts of the run."""
    record = Samples(
        np.zeros((20, 1, 8, 8), np.uint8),
        np.zeros(20),
        np.zeros(20),
        method="ancestral",
        sampling_steps=7,
        seed=3,
    )
    results.put("samples", record, key="k", provenance={"device": "CPU", "spec": {"seed": 3}})
    with h5py.File(results.path) as file:
        assert file.attrs["schema_version"] == SCHEMA_VERSION and file.attrs["complete"]
        data = file["samples/images"]
        assert [axis.label for axis in data.dims] == ["sample", "channel", "row", "column"]
        assert data.attrs["unit"] == "8-bit level" and "8 bits" in data.attrs["meaning"]
        assert data.compression == "gzip" and data.chunks
        facts = json.loads(file["samples"].attrs["provenance"])
    assert facts["spec"] == {"seed": 3} and facts["device"] == "CPU"
    assert {"created", "python", "machine", "versions", "git_commit", "command"} <= set(facts)
    assert facts["versions"]["numpy"] == np.__version__ and facts["versions"]["h5py"] == h5py.__version__


def test_entries_describe_results_without_their_arrays(results):
    assert results.entries() == []
    results.put("reals", images(4), key="k", provenance={"device": "CPU"})
    (entry,) = results.entries()
    assert (entry.name, entry.record, entry.key) == ("reals", "ReferenceImages", "k")
    assert entry.scalars == {"name": "digits", "split": "train"}
    assert entry.arrays == {"images": "[image 4, channel 1, row 8, column 8] uint8, 8-bit level"}
    assert entry.sizes == [[("image", 4), ("channel", 1), ("row", 8), ("column", 8)]]
    assert entry.provenance["device"] == "CPU"


# What is wrong gets a sentence


def test_a_missing_file_or_result_is_a_sentence(results):
    with pytest.raises(
        ValueError, match=r"there is no results file .* \(has this run been trained and measured\?\)"
    ):
        results.get("a", ReferenceImages)
    results.put("a", images(), key="1", provenance={})
    with pytest.raises(ValueError, match=r"holds no result 'b' \(it holds a\)"):
        results.get("b", ReferenceImages)
    with pytest.raises(ValueError, match="a is a ReferenceImages, not a Samples"):
        results.get("a", Samples)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_a_sentence_for_readers_and_writers(results, share):
    results.put("a", images(200), key="1", provenance={})
    content = results.path.read_bytes()
    results.path.write_bytes(content[: int(share * len(content))])
    for use in (
        lambda: results.get("a", ReferenceImages),
        lambda: results.has("a", "1"),
        results.entries,
        lambda: results.put("b", images(), key="2", provenance={}),
    ):
        with pytest.raises(ValueError, match=r"results\.h5 is not a readable HDF5 file \(truncated\?"):
            use()
    assert results.path.read_bytes() == content[: int(share * len(content))]
    assert visible(results.path.parent) == [results.path]


def test_something_else_under_the_files_name_is_a_sentence(results):
    results.path.parent.mkdir()
    results.path.write_text("not HDF5")
    with pytest.raises(ValueError, match="not a readable HDF5 file"):
        results.entries()


@pytest.mark.parametrize(
    ("version", "words"), [(SCHEMA_VERSION + 1, f"schema version {SCHEMA_VERSION + 1}"), (None, "None")]
)
def test_another_schema_is_refused(results, version, words):
    results.put("a", images(), key="1", provenance={})
    with h5py.File(results.path, "a") as file:
        if version is None:
            del file.attrs["schema_version"]
        else:
            file.attrs["schema_version"] = version
    for use in (
        lambda: results.get("a", ReferenceImages),
        lambda: results.put("b", images(), key="2", provenance={}),
    ):
        with pytest.raises(ValueError, match=rf"{words}, but this program reads version {SCHEMA_VERSION}"):
            use()


def test_an_incomplete_file_or_group_is_refused(results):
    results.put("a", images(), key="1", provenance={})
    with h5py.File(results.path, "a") as file:
        file["a"].attrs["complete"] = False
    assert not results.has("a", "1") and results.entries() == []
    with pytest.raises(ValueError, match=r"holds no result 'a' \(it holds nothing\)"):
        results.get("a", ReferenceImages)
    with h5py.File(results.path, "a") as file:
        del file.attrs["complete"]
    with pytest.raises(ValueError, match="is incomplete"):
        results.has("a", "1")


@pytest.mark.parametrize("missing", ["array", "scalar"])
def test_a_group_that_lacks_a_field_is_a_sentence(results, missing):
    results.put("a", images(), key="1", provenance={})
    with h5py.File(results.path, "a") as file:
        if missing == "array":
            del file["a/images"]
        else:
            del file["a"].attrs["split"]
    with pytest.raises(ValueError, match=r"results\.h5 is damaged \(delete it to measure again\)"):
        results.get("a", ReferenceImages)


def test_a_damaged_array_is_a_sentence(results):
    results.put("a", images(200), key="1", provenance={})
    with h5py.File(results.path) as file:
        start, size = (
            file["a/images"].id.get_chunk_info(0).byte_offset,
            file["a/images"].id.get_chunk_info(0).size,
        )
    content = bytearray(results.path.read_bytes())
    content[start + 4 : start + size] = bytes(size - 4)  # gzip finds out
    results.path.write_bytes(content)
    with pytest.raises(ValueError, match=r"results\.h5 is damaged"):
        results.get("a", ReferenceImages)


# Kills, rivals and full disks


PREAMBLE = """
import sys, os, time, resource, signal
import numpy as np
from pathlib import Path
from ddpm_eval.results import store
from ddpm_eval.results.records import ReferenceImages
from ddpm_eval.results.store import PartialResults, Store, locked_folder

def images(n):
    return ReferenceImages(images=np.random.default_rng(0).integers(0, 256, (n, 3, 32, 32)).astype(np.uint8), name="x", split="y")
"""


def child(code, *arguments, stdin=None):
    """Start a process on the library; it has sys.argv[1:] = arguments."""
    program = PREAMBLE + textwrap.dedent(code)
    pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT, text=True, **pipes
    )


@pytest.mark.parametrize("moment", ["_reserve", "_write", "atomic_write"])
@pytest.mark.parametrize("fresh", [True, False], ids=["first-result", "another-result"])
def test_a_kill_in_the_middle_of_put_loses_only_what_was_being_put(results, moment, fresh):
    if not fresh:
        results.put("a", images(), key="1", provenance={})
    code = """
    def hang(*arguments):
        print("there", flush=True)
        time.sleep(60)

    original = store._write
    if sys.argv[2] == "_reserve":
        store._reserve = hang
    elif sys.argv[2] == "_write":
        store._write = lambda group, record: (original(group, record), group.file.flush(), hang())
    else:
        store.os.fsync = hang
    Store(Path(sys.argv[1])).put("b", images(300), key="2", provenance={})
    """
    with child(code, results.path, moment) as process:
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
results, chunks = Store(folder / "results.h5"), PartialResults(folder / "partial" / "x", "k")
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
try:
    if what == "put":
        results.put("b", images(300), key="2", provenance={})
    else:
        chunks.put(1, {"x": images(300).images})
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["put", "chunk"])
@pytest.mark.parametrize("room", [0, 1000, 500_000, 900_000])
def test_a_full_disk_is_a_sentence_and_leaves_everything_as_it_was(results, what, room):
    """A limit on the size of files stands for the disk: writing beyond it fails in the same place (EFBIG
    instead of ENOSPC).
    """
    results.put("a", images(), key="1", provenance={})
    before = results.path.read_bytes()
    with child(FULL_DISK, results.path.parent, what, room) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors  # in particular HDF5 did not crash on its way out
    assert errors == ""
    name = "results.h5" if what == "put" else "000001.h5"
    assert (
        output.startswith(f"cannot write {results.path.parent}")
        and f"{name} (disk full, or no permission?)" in output
    )
    assert results.path.read_bytes() == before
    files = visible(results.path.parent)
    assert files == [results.path]


def test_no_place_to_write_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write .*results\.h5 \(disk full, or no permission\?\)"):
        Store(tmp_path / "file" / "results.h5").put("a", images(), key="1", provenance={})


def incompressible(n):
    """Return samples that gzip cannot shrink, in a number that leaves an incomplete last chunk."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 33, 33)).astype(np.uint8)
    return Samples(
        pixels,
        np.random.default_rng(1).normal(size=n),
        np.zeros(n),
        method="ancestral",
        sampling_steps=2,
        seed=0,
    )


@pytest.mark.parametrize("n", [1, 100, 1001])
def test_the_reserved_space_is_enough_and_what_is_left_of_it_is_given_back(results, n):
    for name in "abc":
        before = results.path.stat().st_size if results.path.exists() else 0
        record = incompressible(n)
        results.put(name, record, key="1", provenance={"spec": "x" * 5000})
        grown = results.path.stat().st_size - before
        raw = record.images.nbytes + record.out_of_range.nbytes
        assert grown <= (1 + HDF5_MARGIN) / 2 * raw + HDF5_OVERHEAD_BYTES / 2  # half of the allowance at most
        assert results.path.stat().st_size < 3 * 1.1 * raw + 100_000  # no reserve is left in the file


def test_two_processes_cannot_hold_a_run(tmp_path):
    code = """
    with locked_folder(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
    """
    with child(code, tmp_path) as rival:
        assert rival.stdout.readline() == "held\n"
        with pytest.raises(
            ValueError, match=rf"is in use by another process \(pid {rival.pid}\): wait for it, or stop it"
        ):
            with locked_folder(tmp_path):
                pass
        rival.send_signal(signal.SIGKILL)
    with locked_folder(tmp_path):  # a killed process leaves no lock behind
        pass
    with locked_folder(tmp_path):
        with pytest.raises(ValueError, match=f"pid {os.getpid()}"), locked_folder(tmp_path):
            pass


def test_processes_that_write_one_file_at_once_lose_nothing(results):
    code = """
    path, name = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    for index in range(20):
        Store(Path(path)).put(f"{name}/{index}", images(2), key="k", provenance={})
    """
    writers = [child(code, results.path, name, stdin=subprocess.PIPE) for name in "abcd"]
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 4
    failures = []
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        failures.append(writer.communicate(timeout=120)[1])
    assert failures == [""] * 4
    assert len(results.entries()) == 80
    assert not list(results.path.parent.glob("*.tmp"))


def test_the_lock_is_released_when_the_work_fails(tmp_path):
    with pytest.raises(RuntimeError, match="work"), locked_folder(tmp_path / "run"):
        raise RuntimeError("work")
    with locked_folder(tmp_path / "run"):
        pass


# PartialResults


def test_pieces_come_back_in_order_and_in_any_number_of_arrays(tmp_path):
    chunks = PartialResults(tmp_path / "stage", "key")
    a, b = np.arange(10).reshape(5, 2), np.linspace(0, 1, 5, dtype=np.float32)
    for index in (2, 0, 1):  # any order
        part = slice(2 * index, 2 * index + 2)
        chunks.put(index, {"a": a[part], "b": b[part]})
    found = chunks.collect(3)
    np.testing.assert_array_equal(found["a"], a)
    np.testing.assert_array_equal(found["b"], b)
    assert found["a"].dtype == a.dtype and found["b"].dtype == b.dtype


def test_finished_pieces_outlive_the_process_and_are_removed_when_done(tmp_path):
    chunks = PartialResults(tmp_path / "stage", "key")
    assert not chunks.done(0)
    chunks.put(0, {"a": np.ones(2)})
    again = PartialResults(tmp_path / "stage", "key")
    assert again.done(0) and not again.done(1)
    again.clear()
    assert not (tmp_path / "stage").exists()
    again.clear()  # harmless


def test_pieces_of_another_key_are_removed_by_the_one_process_that_may(tmp_path):
    PartialResults(tmp_path / "stage", "old").put(0, {"a": np.ones(2)})
    PartialResults(tmp_path / "other", "old").put(0, {"a": np.ones(2)})
    assert not PartialResults(tmp_path / "stage", "new", may_clear=False).done(0)
    assert (tmp_path / "stage" / "old").exists()
    assert not PartialResults(tmp_path / "stage", "new").done(0)
    assert not (tmp_path / "stage" / "old").exists()
    assert PartialResults(tmp_path / "other", "old").done(0)  # another stage's are its own


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text"])
def test_a_missing_or_damaged_piece_is_a_sentence(tmp_path, damage):
    chunks = PartialResults(tmp_path / "stage", "key")
    for index in range(3):
        chunks.put(index, {"a": np.random.default_rng(index).normal(size=(50, 50))})
    path = chunks.folder / "000001.h5"
    content = path.read_bytes()
    {
        "missing": path.unlink,
        "empty": lambda: path.write_bytes(b""),
        "truncated": lambda: path.write_bytes(content[: len(content) // 2]),
        "text": lambda: path.write_text("no HDF5"),
    }[damage]()
    with pytest.raises(
        ValueError, match=r"000001\.h5 is missing or damaged \(delete it to compute it again\)"
    ):
        chunks.collect(3)


def test_a_kill_while_a_piece_is_written_leaves_it_undone(tmp_path):
    code = """
    def hang(*arguments):
        print("there", flush=True)
        time.sleep(60)

    chunks = PartialResults(Path(sys.argv[1]), "key")
    chunks.put(0, {"a": np.ones(5)})
    store.os.fsync = hang
    chunks.put(1, {"a": np.ones(5)})
    """
    with child(code, tmp_path / "stage") as process:
        assert process.stdout.readline() == "there\n", process.stderr.read()
        process.send_signal(signal.SIGKILL)
    chunks = PartialResults(tmp_path / "stage", "key")
    assert chunks.done(0) and not chunks.done(1)


def test_provenance_is_of_this_process():
    facts = store.environment()
    assert facts["command"] == " ".join(sys.argv)
    assert facts["versions"]["ddpm_eval"] and facts["git_commit"]
    assert (
        resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    )  # the full disks above were elsewhere


def test_a_log_without_updates_can_be_stored(results):
    """A run that was stopped before its first look at the loss."""
    record = TrainingLog(
        np.zeros(0, np.float32),
        np.zeros(0, np.float32),
        status="stopped",
        reason="",
        steps=0,
        images=0,
        seconds=0.0,
        parameters=1,
    )
    results.put("training", record, key="k", provenance={})
    assert_equal(results.get("training", TrainingLog), record)
