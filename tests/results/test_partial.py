"""Finished work items outlive their process; one that is damaged counts as not done."""

import signal

import numpy as np
import pytest
from child_process import child
from damage import outcomes

from ddpm_eval.results.partial import PartialResults

DAMAGES = {
    "missing": lambda path, content: None,
    "empty": lambda path, content: path.write_bytes(b""),
    "truncated": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "flipped": lambda path, content: path.write_bytes(
        content[:-99] + bytes([content[-99] ^ 1]) + content[-98:]
    ),
    "text": lambda path, content: path.write_text("no HDF5"),
    "folder": lambda path, content: path.mkdir(),
}


def item(index):
    return {"a": np.random.default_rng(index).normal(size=(50, 50))}


def damage(path, kind):
    content = path.read_bytes()
    path.unlink()
    DAMAGES[kind](path, content)


@pytest.fixture
def partial(tmp_path):
    """Three finished items."""
    found = PartialResults(tmp_path / "stage", "key")
    for index in range(3):
        found.put(index, item(index))
    return found


def test_items_come_back_in_order_and_in_any_number_of_arrays(tmp_path):
    partial = PartialResults(tmp_path / "stage", "key")
    a, b = np.arange(10).reshape(5, 2), np.linspace(0, 1, 5, dtype=np.float32)
    for index in (2, 0, 1):  # any order
        part = slice(2 * index, 2 * index + 2)
        partial.put(index, {"a": a[part], "b": b[part]})
    found = partial.collect(3)
    np.testing.assert_array_equal(found["a"], a)
    np.testing.assert_array_equal(found["b"], b)
    assert found["a"].dtype == a.dtype and found["b"].dtype == b.dtype


def test_finished_items_outlive_the_process(tmp_path):
    partial = PartialResults(tmp_path / "stage", "key")
    assert not partial.done(0)
    partial.put(0, {"a": np.ones(2)})
    again = PartialResults(tmp_path / "stage", "key")
    assert again.done(0) and not again.done(1)


def test_items_of_another_key_are_removed_by_the_one_process_that_may(tmp_path):
    PartialResults(tmp_path / "stage", "old").put(0, {"a": np.ones(2)})
    PartialResults(tmp_path / "other", "old").put(0, {"a": np.ones(2)})
    assert not PartialResults(tmp_path / "stage", "new", may_clear=False).done(0)
    assert (tmp_path / "stage" / "old").exists()
    assert not PartialResults(tmp_path / "stage", "new").done(0)
    assert not (tmp_path / "stage" / "old").exists()
    assert PartialResults(tmp_path / "other", "old").done(0)  # another stage's are its own


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_missing_or_damaged_item_is_a_sentence(partial, kind):
    damage(partial.folder / "000001.h5", kind)
    with pytest.raises(
        ValueError, match=r"000001\.h5 (is damaged|cannot be read)|there is no file .*000001\.h5"
    ):
        partial.collect(3)


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "folder"])
def test_a_damaged_item_is_not_done_and_is_replaced(partial, kind):
    damage(partial.folder / "000001.h5", kind)
    again = PartialResults(partial.folder.parent, "key")
    assert [again.done(index) for index in range(4)] == [True, False, True, False]
    again.put(1, item(1))
    assert again.done(1)
    np.testing.assert_array_equal(again.collect(3)["a"], np.concatenate([item(i)["a"] for i in range(3)]))


def test_damaged_copies_are_not_done_or_equal(partial):
    def assert_whole(path):
        whole = partial.done(1)
        np.testing.assert_array_equal(partial.collect(3)["a"], expected)
        assert whole

    expected = partial.collect(3)["a"]
    path = partial.folder / "000001.h5"
    other = (partial.folder / "000000.h5").read_bytes()
    counts = outcomes(path, path.read_bytes(), other, assert_whole)
    assert counts["refused"] > counts["equal"]


def test_an_item_is_taken_for_no_other_item_and_for_no_other_results(partial, tmp_path):
    other = PartialResults(tmp_path / "stage", "other", may_clear=False)
    for index in range(3):
        other.put(index, item(10 + index))
    content = (other.folder / "000001.h5").read_bytes()
    (other.folder / "000001.h5").write_bytes((partial.folder / "000001.h5").read_bytes())
    (partial.folder / "000001.h5").write_bytes(content)
    (partial.folder / "000000.h5").rename(partial.folder / "000002.h5")
    assert [partial.done(index) for index in range(3)] == [False] * 3
    assert [other.done(index) for index in range(3)] == [True, False, True]
    partial.put(0, item(0))
    with pytest.raises(ValueError, match=r"000001\.h5 is damaged: it is the file other/000001, not key/"):
        partial.collect(2)


def test_a_kill_while_an_item_is_written_leaves_it_undone(tmp_path):
    code = """
    from ddpm_eval.results.partial import PartialResults
    def hang(*arguments):
        print("there", flush=True)
        time.sleep(60)

    partial = PartialResults(Path(sys.argv[1]), "key")
    partial.put(0, {"a": np.ones(5)})
    os.fsync = hang
    partial.put(1, {"a": np.ones(5)})
    """
    with child(code, tmp_path / "stage") as process:
        assert process.stdout.readline() == "there\n", process.stderr.read()
        process.send_signal(signal.SIGKILL)
    partial = PartialResults(tmp_path / "stage", "key")
    assert partial.done(0) and not partial.done(1)
