"""Files are whole or absent whatever happens to their writer; locks hold; digests tell contents apart."""

import hashlib
import os
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
from child_process import child, visible
from full_disk import full_after

from ddpm_eval import files
from ddpm_eval.files import (
    atomic_write,
    content_digest,
    digest,
    file_digest,
    file_lock,
    locked_folder,
    reserve,
    write_text,
)

# Digests


def test_a_digest_is_of_the_parts_and_not_of_the_order_of_their_keys():
    assert digest("a", 1, None) == digest("a", 1, None) != digest("a", 2, None)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest("a", "b") != digest("ab") != digest("b", "a")
    assert len(digest()) == 12 and int(digest(), 16) >= 0


def test_a_digest_of_contents_tells_types_shapes_values_and_order_apart():
    values = np.arange(6)
    variants = [
        [values],
        [values.astype(np.int32)],
        [values.astype(float)],
        [values.reshape(2, 3)],
        [values.reshape(3, 2)],
        [values[::-1]],
        ["name", values],
        [values, "name"],
        [values[:3], values[3:]],
    ]
    assert len({content_digest(parts) for parts in variants}) == len(variants)
    assert content_digest([values.reshape(2, 3).T]) == content_digest([values.reshape(2, 3).T.copy()])


def test_a_digest_of_contents_takes_empty_and_scalar_arrays():
    assert content_digest([np.zeros(0)]) != content_digest([np.zeros((0, 3))])
    assert content_digest([np.array(1.0)]) != content_digest([np.array(2.0)])


def test_a_digest_of_a_file_is_of_its_bytes(tmp_path):
    content = os.urandom(2**20 + 17)  # more than one block
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()[:12]


# Writing


def test_a_file_and_its_folder_are_written(tmp_path):
    write_text(tmp_path / "new" / "file.txt", "with accents: é, µ~\n")
    assert (tmp_path / "new" / "file.txt").read_text(encoding="utf-8") == "with accents: é, µ~\n"
    write_text(tmp_path / "new" / "file.txt", "again")
    assert (tmp_path / "new" / "file.txt").read_text() == "again"
    assert visible(tmp_path) == [tmp_path / "new" / "file.txt"]


def test_a_failure_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    write_text(path, "before")
    with pytest.raises(KeyError), atomic_write(path) as temporary:
        temporary.write_text("half of it")
        raise KeyError
    assert path.read_text() == "before" and visible(tmp_path) == [path]


@pytest.mark.parametrize("error", [OSError("no space left"), RuntimeError("HDF5 says so")])
def test_a_failing_disk_is_a_sentence_that_names_the_file(tmp_path, error):
    message = r"cannot write .*file\.bin \(disk full, or no permission\?\)"
    with pytest.raises(ValueError, match=message) as caught, atomic_write(tmp_path / "file.bin"):
        raise error
    assert str(error) in str(caught.value)


def test_no_place_to_write_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    for use in (lambda path: write_text(path, ""), lambda path: file_lock(path).__enter__()):
        with pytest.raises(ValueError, match=r"cannot write .*text \(disk full, or no permission\?\)"):
            use(tmp_path / "file" / "text")


def test_a_reader_keeps_the_file_it_opened(tmp_path):
    """The new file takes the old one's name in one step; the old one is never written to."""
    path = tmp_path / "file"
    write_text(path, "before")
    with path.open() as reader:
        write_text(path, "after, and longer")
        assert reader.read() == "before"
    assert path.read_text() == "after, and longer"


def test_a_killed_writer_leaves_the_file_as_it_was_and_the_next_one_tidies_up(tmp_path):
    path = tmp_path / "file"
    write_text(path, "before")
    code = """
    from ddpm_eval.files import atomic_write
    with atomic_write(Path(sys.argv[1])) as temporary:
        temporary.write_text("half of it")
        print("there", flush=True)
        time.sleep(60)
    """
    with child(code, path) as process:
        assert process.stdout.readline() == "there\n", process.stderr.read()
        process.send_signal(signal.SIGKILL)
    assert path.read_text() == "before"
    assert list(tmp_path.glob("*.tmp"))  # the test was what it says
    write_text(path, "after")
    assert path.read_text() == "after" and visible(tmp_path) == [path]


def test_only_the_temporary_files_of_ended_writers_are_removed(tmp_path):
    """In a container the process id is the same in every start: its own old file is no living writer's."""
    path = tmp_path / "file"
    with subprocess.Popen(["true"]) as ended:
        pass
    stale = [tmp_path / f"file.{pid}.tmp" for pid in (ended.pid, os.getpid())]
    of_others = (f"file.{os.getppid()}.tmp", f"file.txt.{ended.pid}.tmp", "file.x.tmp")
    kept = [tmp_path / name for name in of_others]
    for each in (*stale, *kept):
        each.touch()
    write_text(path, "")
    assert sorted(tmp_path.iterdir()) == sorted([path, *kept])


def test_a_process_of_another_user_and_one_on_windows_count_as_running(monkeypatch):
    def refused(process, number):
        assert number == 0
        raise PermissionError

    monkeypatch.setattr(files.os, "kill", refused)
    assert files._runs(1)
    monkeypatch.setattr(files.os, "kill", lambda *_: pytest.fail("which would end it"))
    monkeypatch.setattr(files.os, "name", "nt")
    assert files._runs(1)


def test_a_number_that_no_process_can_have_is_none(tmp_path):
    assert not files._runs(10**30) and not files._runs(2**31 - 1) and files._runs(os.getpid())


def test_reserved_space_leaves_the_content_as_it_is(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    reserve(path, 100_000)
    assert path.read_bytes() == b"content" + bytes(100_000 - 7)
    assert path.stat().st_blocks * 512 >= 100_000  # it is claimed, not a hole


# Locks


def test_two_processes_cannot_lock_a_folder(tmp_path):
    code = """
    from ddpm_eval.files import locked_folder
    with locked_folder(Path(sys.argv[1])):
        print("locked", flush=True)
        time.sleep(60)
    """
    with child(code, tmp_path) as rival:
        assert rival.stdout.readline() == "locked\n", rival.stderr.read()
        in_use = rf"is in use by another process \(pid {rival.pid}\): wait for it, or stop it"
        with pytest.raises(ValueError, match=in_use), locked_folder(tmp_path):
            pass
        rival.send_signal(signal.SIGKILL)
    with locked_folder(tmp_path):  # a killed process leaves no lock behind
        pass
    with locked_folder(tmp_path):
        with pytest.raises(ValueError, match=f"pid {os.getpid()}"), locked_folder(tmp_path):
            pass


def test_the_lock_of_a_folder_is_released_when_the_work_fails(tmp_path):
    with pytest.raises(RuntimeError, match="work"), locked_folder(tmp_path / "run"):
        raise RuntimeError("work")
    with locked_folder(tmp_path / "run"):
        pass


def test_processes_that_lock_a_file_wait_for_each_other(tmp_path):
    """Each reads a number, waits, and writes the next: without the lock some would be lost."""
    write_text(tmp_path / "count", "0")
    code = """
    from ddpm_eval.files import file_lock, write_text
    path = Path(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(20):
        with file_lock(path):
            count = int(path.read_text())
            time.sleep(0.002)
            write_text(path, str(count + 1))
    """
    writers = [child(code, tmp_path / "count", stdin=subprocess.PIPE) for _ in range(2)]
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.communicate(timeout=120)[1] for writer in writers] == [""] * 2
    assert (tmp_path / "count").read_text() == "40"


def test_space_is_claimed_where_the_system_has_no_call_for_it(tmp_path, monkeypatch):
    """As on macOS: the content stays, and zeros follow."""
    monkeypatch.delattr(files.os, "posix_fallocate")
    path = tmp_path / "file"
    path.write_bytes(b"content")
    files.reserve(path, files.BLOCK_BYTES + 100)
    assert path.stat().st_size == files.BLOCK_BYTES + 100
    assert path.read_bytes()[:8] == b"content\0"


def test_files_are_written_and_locked_without_fcntl_and_without_opening_folders(tmp_path, monkeypatch):
    """As on Windows, with a stand-in for its locks."""
    locks = []
    stand_in = types.SimpleNamespace(LK_NBLCK=1, locking=lambda descriptor, mode, count: locks.append(count))
    monkeypatch.setitem(sys.modules, "msvcrt", stand_in)
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files.os, "name", "nt")
    monkeypatch.setattr(files.os, "open", lambda *arguments: pytest.fail("a folder was opened"))
    with files.file_lock(tmp_path / "results.h5"), files.locked_folder(tmp_path / "run"):
        assert locks == [1, 1]
    files.sync_folder(tmp_path)


def test_a_file_that_is_set_aside_keeps_its_content_under_another_name(tmp_path):
    path = tmp_path / "results.h5"
    for content in ("first", "second"):
        path.write_text(content)
        assert files.set_aside(path) == tmp_path / "results.h5.damaged"
        assert not path.exists() and (tmp_path / "results.h5.damaged").read_text() == content
    with pytest.raises(ValueError, match=r"cannot rename .*results\.h5"):
        files.set_aside(path)


@pytest.mark.parametrize("room", [0, 1000])
def test_a_full_disk_is_a_sentence_and_leaves_the_text_as_it_was(tmp_path, room):
    path = tmp_path / "report.md"
    write_text(path, "before")
    with full_after(room), pytest.raises(ValueError, match=r"cannot write .*report\.md \(disk full"):
        write_text(path, "after" * 10_000)
    assert path.read_text() == "before" and visible(tmp_path) == [path]
