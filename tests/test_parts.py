"""Files in parts: what is joined is what was split, whatever is killed, missing or damaged on the way."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import parts  # noqa: E402

LIMIT = 10_000


@pytest.fixture
def files(tmp_path):
    """Files of sizes around the limit, one of them in a folder of its own."""
    root, rng = tmp_path / "root", np.random.default_rng(0)
    (root / "run" / "partial").mkdir(parents=True)
    names = {"run/checkpoint": 3 * LIMIT + 7, "run/results": 0, "run/partial/000": LIMIT}
    for name, size in names.items():
        (root / name).write_bytes(rng.bytes(size))
    return [root / name for name in names]


@pytest.fixture
def packed(files, tmp_path):
    """The folder of their parts."""
    parts.pack(files, tmp_path / "root", tmp_path / "state", "run.tar", LIMIT)
    return tmp_path / "state"


def test_unpacking_restores_what_was_packed(files, packed, tmp_path):
    sizes = [path.stat().st_size for path in packed.iterdir() if path.name != parts.SUMS]
    assert max(sizes) == LIMIT and sorted(sizes)[1:] == [LIMIT] * (len(sizes) - 1)  # all full but the last
    restored = parts.unpack(packed, tmp_path / "elsewhere")
    assert [path.read_bytes() for path in restored] == [path.read_bytes() for path in files]
    assert not list((tmp_path / "elsewhere").glob(".*"))


def test_the_usual_tools_check_and_join_the_parts(files, packed):
    subprocess.run(["sha256sum", "--check", "--quiet", parts.SUMS], cwd=packed, check=True)
    archive = subprocess.run(
        "cat run.tar.* | tar -xO run/checkpoint", shell=True, cwd=packed, capture_output=True, check=True
    )
    assert archive.stdout == files[0].read_bytes()


def test_parts_of_what_did_not_change_keep_their_names_and_old_ones_go(files, packed, tmp_path):
    before = {path.name for path in packed.iterdir()}
    files[-1].write_bytes(b"changed" * 5000)
    after = parts.pack(files, tmp_path / "root", packed, "run.tar", LIMIT)
    assert set(after) == {path.name for path in packed.iterdir()} - {parts.SUMS}
    assert (
        len(set(after) & before) == 3
    )  # the checkpoint's, but for the part that it shares with the next file


def test_a_writer_that_is_killed_leaves_the_last_set(files, packed, tmp_path, monkeypatch):
    before = parts.read_sums(packed)
    files[0].write_bytes(b"newer" * LIMIT)
    with monkeypatch.context() as patch:
        patch.setattr(parts.tarfile.TarFile, "add", _killed_at(2, parts.tarfile.TarFile.add))
        with pytest.raises(KeyboardInterrupt):
            parts.pack(files, tmp_path / "root", packed, "run.tar", LIMIT)
    assert parts.read_sums(packed) == before and parts.checked(packed, before)
    parts.pack(files, tmp_path / "root", packed, "run.tar", LIMIT)
    assert {path.name for path in packed.iterdir()} == {
        *parts.read_sums(packed),
        parts.SUMS,
    }  # nothing is left behind


def _killed_at(count, add):
    calls = iter(range(count))

    def counted(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return add(*arguments)

    return counted


def test_missing_and_damaged_parts_are_named_and_nothing_is_restored(packed, tmp_path):
    part = sorted(packed.glob("run.tar.*"))[1]
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=rf"{part.name} is damaged: its SHA-256 is .* \(copy it again\)"):
        parts.unpack(packed, tmp_path / "elsewhere")
    part.unlink()
    with pytest.raises(ValueError, match=f"lacks 1 of the . files .* the first is {part.name}"):
        parts.unpack(packed, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


# Data sets


@pytest.fixture
def data_file(tmp_path):
    path = tmp_path / "cifar10.npz"
    np.savez(path, x_test=np.random.default_rng(0).integers(0, 256, (30, 3, 32, 32), np.uint8))
    return path


def split(path, folder, names):
    """Split a file evenly; return the parts' paths."""
    folder.mkdir()
    content = path.read_bytes()
    size = -(-len(content) // len(names))
    for i, name in enumerate(names):
        (folder / (path.name + name)).write_bytes(content[i * size : (i + 1) * size])
    return [folder / (path.name + name) for name in names]


@pytest.mark.parametrize(
    "names",
    [
        [""],
        [f".part{i:02d}" for i in range(12)],
        [f"-{i}" for i in range(1, 13)],
        ["aa", "ab", "ac"],
        [".part-a", ".part-b"],
    ],
    ids=["whole", "padded", "unpadded", "split's own", "letters"],
)
def test_data_are_joined_in_order(data_file, tmp_path, names):
    split(data_file, tmp_path / "parts", names)
    for _ in range(2):  # the second time it is there already
        assert parts.join_data(tmp_path / "parts", tmp_path / "root") == [tmp_path / "root" / "cifar10.npz"]
        assert (tmp_path / "root" / "cifar10.npz").read_bytes() == data_file.read_bytes()


def test_parts_of_several_files_and_of_archives_are_kept_apart(data_file, tmp_path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"checked by torchvision")
    for path in (archive, data_file):
        split(path, tmp_path / path.suffix, ["0", "1"])
    for path in (tmp_path / ".gz").iterdir():
        path.rename(tmp_path / ".npz" / path.name)
    joined = parts.join_data(tmp_path / ".npz", tmp_path / "root")
    assert [path.read_bytes() for path in joined] == [archive.read_bytes(), data_file.read_bytes()]


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("listed", [True, False])
def test_a_lost_part_is_noticed(data_file, tmp_path, lost, listed):
    made = split(data_file, tmp_path / "parts", [".1", ".2", ".3"])
    if listed:
        lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made]
        (tmp_path / "parts" / parts.SUMS).write_text("".join(lines))
    made[lost].unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of the 3 files|one is missing|is damaged"):
        parts.join_data(tmp_path / "parts", tmp_path / "root")
    assert not (tmp_path / "root" / "cifar10.npz").exists()


def test_the_joined_files_own_sum_is_checked(data_file, tmp_path):
    split(data_file, tmp_path / "parts", ["a", "b"])
    sums, digest = tmp_path / "parts" / parts.SUMS, hashlib.sha256(data_file.read_bytes()).hexdigest()
    sums.write_text(f"{digest} *cifar10.npz\n")
    parts.join_data(tmp_path / "parts", tmp_path / "root")
    sums.write_text(f"{digest[::-1]}  cifar10.npz\n")
    with pytest.raises(ValueError, match=r"cifar10.npz is damaged"):
        parts.join_data(tmp_path / "parts", tmp_path / "root")
    sums.write_text("nonsense")
    with pytest.raises(ValueError, match="is no list of SHA-256"):
        parts.join_data(tmp_path / "parts", tmp_path / "root")


def test_folders_that_hold_no_parts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        parts.join_data(tmp_path / "absent", tmp_path / "root")
    with pytest.raises(ValueError, match="holds no data files"):
        parts.join_data(tmp_path, tmp_path / "root")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"notes.txt is neither a data file nor a part"):
        parts.join_data(tmp_path, tmp_path / "root")
