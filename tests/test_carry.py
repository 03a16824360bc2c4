"""What travels to a lent machine and back: calls within limits, what matters most first, nothing lost."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import carry  # noqa: E402
import image_sheets  # noqa: E402
import parts  # noqa: E402

LIMIT = 10_000
LIMITS = carry.Limits(files=4, file_bytes=LIMIT, total_bytes=3 * LIMIT)
SIZES = {"notes": 0.2, "weights": 2.5, "results": 1.5, "state": 5.5}
"""Of each set, in parts."""


@pytest.fixture
def out(tmp_path):
    """The folder of a stay with all four sets."""
    for name in SIZES:
        change(tmp_path / "out", name, seed=0)
    return tmp_path / "out"


def change(out, name, seed):
    """Write a set anew with other contents."""
    source = out.parent / "source" / name
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(np.random.default_rng(seed).bytes(int(SIZES[name] * LIMIT)))
    parts.pack([source], source.parent, out / name, f"run-{seed:08d}.tar", LIMIT)


def calls_until_done(out, tmp_path, home, most=20):
    """Collect and bring in turns; return the files of each call."""
    calls = []
    for number in range(most):
        target = tmp_path / f"call-{number}"
        taken, left = carry.collect(out, target, LIMITS)
        calls.append(sorted(target.iterdir()))
        carry.bring(target, home)
        if not left:
            return calls
        assert taken > 0
    raise AssertionError("it does not end")


def test_each_call_keeps_to_the_limits_and_all_arrive(out, tmp_path):
    calls = calls_until_done(out, tmp_path, tmp_path / "home")
    assert len(calls) > 2
    for files in calls:
        sizes = [path.stat().st_size for path in files]
        assert len(files) <= LIMITS.files
        assert max(sizes) <= LIMITS.file_bytes
        assert sum(sizes) <= LIMITS.total_bytes
        assert all(set(path.name) <= set("abcdefghijklmnopqrstuvwxyzMANIFEST0123456789._-") for path in files)
    for name in SIZES:
        assert parts.unpack(tmp_path / "home" / name, tmp_path / "restored") == [tmp_path / "restored" / name]
        source = tmp_path / "source" / name
        assert (tmp_path / "restored" / name).read_bytes() == source.read_bytes()


def test_the_weights_arrive_before_the_state(out, tmp_path):
    calls = calls_until_done(out, tmp_path, tmp_path / "home")
    order = [path.name.partition(".")[0] for files in calls for path in files if path.name != carry.MANIFEST]
    first = {name: order.index(name) for name in SIZES}
    assert list(first) == sorted(first, key=first.get)
    assert all(name not in order[first["state"] :] for name in ("notes", "weights", "results"))


def test_what_did_not_change_is_not_carried_again(out, tmp_path):
    calls_until_done(out, tmp_path, tmp_path / "home")
    change(out, "notes", seed=1)
    target = tmp_path / "next"
    assert carry.collect(out, target, LIMITS) == (len(parts.read_sums(out / "notes")), 0)
    missing = carry.bring(target, tmp_path / "home")
    assert missing == {name: [] for name in SIZES}


def test_a_set_stays_as_it_was_until_the_next_is_complete(out, tmp_path):
    home = tmp_path / "home"
    calls_until_done(out, tmp_path, home)
    before = parts.read_sums(home / "state")
    change(out, "state", seed=1)
    carry.collect(out, tmp_path / "some", LIMITS)
    missing = carry.bring(tmp_path / "some", home)
    assert missing["state"]
    assert parts.read_sums(home / "state") == before
    assert parts.checked(home / "state", before)


def test_a_lost_call_is_collected_again(out, tmp_path):
    _, left = carry.collect(out, tmp_path / "lost", LIMITS)
    taken, left_again = carry.collect(out, tmp_path / "again", LIMITS, again=True)
    assert (tmp_path / "again").exists() and left_again == left
    assert taken == len(list((tmp_path / "lost").iterdir())) - 1


def test_a_damaged_file_and_a_strange_folder_are_refused(out, tmp_path):
    carry.collect(out, tmp_path / "call", LIMITS)
    part = next((tmp_path / "call").glob("weights.*"))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        carry.bring(tmp_path / "call", tmp_path / "home")
    with pytest.raises(ValueError, match="holds no MANIFEST"):
        carry.bring(tmp_path, tmp_path / "home")
    with pytest.raises(ValueError, match=r"but a call carries files of .* smaller --part-mb"):
        carry.collect(out, tmp_path / "next", carry.Limits(file_bytes=LIMIT // 2))


def test_data_travel_in_several_calls_and_are_joined(tmp_path):
    file = tmp_path / "cifar10.npz"
    np.savez(file, x_test=np.random.default_rng(0).integers(0, 256, (30, 3, 32, 32), np.uint8))
    calls = carry.split(file, tmp_path / "calls", call_bytes=4 * LIMIT)
    assert [path.name for path in calls] == ["1", "2", "3"]
    assert all(sum(path.stat().st_size for path in call.glob("*.part*")) <= 4 * LIMIT for call in calls)
    missing = [carry.receive(call, tmp_path / "place") for call in calls]
    assert missing == sorted(missing, reverse=True) and missing[-1] == 0
    assert parts.join_data(tmp_path / "place", tmp_path / "root") == [tmp_path / "root" / "cifar10.npz"]
    assert (tmp_path / "root" / "cifar10.npz").read_bytes() == file.read_bytes()
    with pytest.raises(ValueError, match="holds no parts"):
        carry.receive(tmp_path / "calls", tmp_path / "place")


def test_sheets_are_smaller_and_give_the_same_arrays(tmp_path):
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.integers(-2, 3, (77, 3, 16, 16)), axis=-1) + 128
    arrays = {"x_train": smooth.astype(np.uint8), "y_train": np.arange(77), "inexact_train": np.array([3])}
    arrays["x_test"] = rng.integers(0, 256, (3, 3, 8, 8), np.uint8)  # black pixels and noise
    arrays["x_test"][0] = 0
    arrays["gray"] = rng.integers(0, 256, (3, 1, 8, 8), np.uint8)
    np.savez(tmp_path / "set.npz", **arrays)
    (tmp_path / "there").mkdir()
    sheets = tmp_path / "there" / "set.sheets.zip"
    image_sheets.pack(tmp_path / "set.npz", sheets)
    assert image_sheets.unpack_all([sheets]) == [tmp_path / "there" / "set.npz"]
    with np.load(tmp_path / "there" / "set.npz") as found:
        assert set(found.files) == set(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def test_more_images_than_a_sheet_holds_stay_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(image_sheets, "PER_SHEET", 100)
    images = np.random.default_rng(0).integers(0, 256, (333, 3, 4, 4), np.uint8)
    np.savez(tmp_path / "set.npz", x_train=images)
    image_sheets.pack(tmp_path / "set.npz", tmp_path / "set.sheets.zip")
    image_sheets.unpack(tmp_path / "set.sheets.zip", tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz") as found:
        np.testing.assert_array_equal(found["x_train"], images)


def test_the_commands_say_what_they_did(out, tmp_path):
    def said(*words):
        command = [sys.executable, BENCHMARKS / "carry.py", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    collected = said("collect", out, tmp_path / "call", "--file-mb", "0.01", "--total-mb", "0.03")
    assert "The stay is over; 3 parts collected" in collected.stdout, collected.stderr
    assert "notes: complete" in said("bring", tmp_path / "call", tmp_path / "home").stdout
    refused = said("bring", tmp_path, tmp_path / "home")
    assert refused.returncode == 2 and refused.stderr.startswith("Error: ")
