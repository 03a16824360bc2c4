"""Safetensors files with digests: round trips, kills and full disks, and damage that is found."""

import errno
import gc
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from damage import CASES, outcomes
from full_disk import full_after
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ddpm_eval.training import tensor_files
from ddpm_eval.training.tensor_files import FileKind, read_tensors, tensor_digest, write_tensors

KIND = FileKind("weights file", "kind", "weights 1", frozenset({"note"}), "is another kind of file")
HEADER = {"kind": "weights 1", "note": "ein Wort, ü"}
TENSORS = {
    "a/matrix": torch.arange(6.0).reshape(2, 3),
    "a/nan": torch.tensor([float("nan"), -0.0]),
    "b/scalar": torch.tensor(2**40),
    "b/half": torch.arange(5).half(),
    "b/flags": torch.tensor([True, False]),
    "b/nothing": torch.zeros(0, 3),
}


def header_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **fields: str | None) -> None:
    """Change tensors or fields (None removes one) and leave all digests as they are."""
    header = {name: value for name, value in (header_of(path) | fields).items() if value is not None}
    save_file(load_file(path) | (tensors or {}), path, header)


def assert_whole(path: Path) -> None:
    found = read_tensors(path, KIND)
    assert {name: found.header[name] for name in HEADER} == HEADER and found.tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert found.tensors[name].dtype == value.dtype
        torch.testing.assert_close(found.tensors[name], value, atol=0, rtol=0, equal_nan=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "x.safetensors", TENSORS, HEADER)
    return tmp_path / "x.safetensors"


def test_everything_comes_back_bit_for_bit(file: Path) -> None:
    assert_whole(file)


def test_reading_again_and_again_holds_nothing(file: Path) -> None:
    read_tensors(file, KIND)
    before = sys.getallocatedblocks()
    for _ in range(100):
        read_tensors(file, KIND)
    gc.collect()
    assert sys.getallocatedblocks() - before < 100  # of 600 tensors


def test_a_type_that_numpy_lacks_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(5).bfloat16()}, path, HEADER)
    with pytest.raises(ValueError, match=f"{path} is not a readable weights file .*bfloat16"):
        read_tensors(path, KIND)


def test_the_file_is_one_that_any_program_reads(file: Path) -> None:
    assert load_file(file).keys() == TENSORS.keys()


def test_only_the_wanted_tensors_are_read(file: Path) -> None:
    assert set(read_tensors(file, KIND, ("a/",)).tensors) == {"a/matrix", "a/nan"}
    assert read_tensors(file, KIND, ()).tensors == {}


def test_a_digest_tells_type_shape_and_every_bit() -> None:
    values = torch.tensor([0.0, 1.0])
    others = [torch.tensor([-0.0, 1.0]), values.view(torch.int32), values[:, None], values.double()]
    assert len({tensor_digest(value) for value in [values, *others]}) == 5
    assert tensor_digest(values) == tensor_digest(values.clone())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tensors": {"a/matrix": torch.arange(6.0).reshape(3, 2)}}, "tensor a/matrix does not match its di"),
        ({"tensors": {"a/nan": torch.tensor([float("nan"), 0.0])}}, "tensor a/nan does not match its digest"),
        ({"tensors": {"c": torch.zeros(1)}}, "its tensors are not those that its header lists"),
        ({"note": "another"}, "its header does not match its digest"),
        ({"note": None}, "its header lacks note"),
        ({"remark": ""}, "its header has the unknown fields 'remark'"),
        ({"digest": None}, "its header does not match its digest"),
        ({"digests": None}, "its header does not match its digest"),
        ({"digest": None, "digestt": "0"}, "its header has the unknown fields 'digestt'"),
        ({"digests": "[" * 100_000}, "its header does not match its digest"),
    ],
)
def test_whatever_is_changed_is_said_to_be_damaged(
    file: Path, changes: dict[str, object], sentence: str
) -> None:
    rewrite(file, **changes)
    with pytest.raises(
        ValueError,
        match=rf"x.safetensors is damaged: {sentence}.* .restore it, or delete it to train again.$",
    ):
        read_tensors(file, KIND)


@pytest.mark.parametrize("digests", ["[" * 100_000, "[]", "{}", "null", "{"])
def test_digests_that_are_none_are_refused(file: Path, digests: str) -> None:
    header = {**header_of(file), "digests": digests}
    del header["digest"]
    rewrite(file, digests=digests, digest=tensor_files._fields_digest(header))
    with pytest.raises(ValueError, match=r"x.safetensors.* damaged") as caught:
        read_tensors(file, KIND)
    assert len(str(caught.value)) < 300


def test_damage_of_what_is_not_read_is_none_and_found_when_it_is(file: Path) -> None:
    rewrite(file, tensors={"b/half": torch.zeros(5, dtype=torch.int16)})
    assert len(read_tensors(file, KIND, ("a/",)).tensors) == 2
    with pytest.raises(ValueError, match="tensor b/half does not match"):
        read_tensors(file, KIND, ("b/",))


def test_a_file_of_an_earlier_version_has_no_digests_and_is_read(file: Path) -> None:
    rewrite(file, digest=None, digests=None)
    assert_whole(file)


def test_damaged_copies_are_refused_or_equal(file: Path, tmp_path: Path) -> None:
    write_tensors(tmp_path / "other", {**TENSORS, "a/matrix": torch.ones(2, 3)}, {**HEADER, "note": "n"})
    other = (tmp_path / "other").read_bytes()
    counts = outcomes(tmp_path / "damaged.safetensors", file.read_bytes(), other, assert_whole)
    assert counts["refused"] > 0.5 * CASES


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_file_can_be_read_by_whom_the_umask_lets(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "x", TENSORS, HEADER)
        write_tensors(tmp_path / "x", TENSORS, HEADER)  # in place of the first
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("stage", ["write", "write by safetensors", "rename"])
def test_a_failed_write_leaves_the_previous_file_and_no_other(
    stage: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def full(*_: object) -> None:
        if stage == "write by safetensors":
            raise SafetensorError("No space left on device")
        raise OSError(errno.ENOSPC, "No space left on device")

    if stage == "rename":
        monkeypatch.setattr(Path, "replace", full)
    else:
        monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(ValueError, match=r"cannot write .*x.safetensors.*No space left"):
        write_tensors(file, {}, HEADER)
    assert os.listdir(file.parent) == [file.name]
    assert file.read_bytes() == before


def test_a_kill_while_writing_leaves_the_previous_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_: object, path: Path, __: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tensor_files, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        write_tensors(file, {}, HEADER)
    assert os.listdir(file.parent) == [file.name]
    assert_whole(file)


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    write_tensors(tmp_path / "x", {"a": shared, "b": shared, "c": shared[2:4]}, HEADER)
    found = read_tensors(tmp_path / "x", KIND).tensors
    assert torch.equal(found["a"], shared)
    assert torch.equal(found["b"], shared)
    assert torch.equal(found["c"], shared[2:4])


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, sentence in (
        ("pipe", "is no file"),
        ("loop", "there is no file"),
        ("none", "there is no file"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read_tensors(tmp_path / name, KIND)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"{}" * 100, (10**6).to_bytes(8, "little") + b"[" * 10**6]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=r"x is not a readable weights file .truncated"):
        read_tensors(tmp_path / "x", KIND)
    save_file({"w": torch.zeros(1)}, tmp_path / "x", {"kind": "weights 2"})
    with pytest.raises(ValueError, match="x is another kind of file"):
        read_tensors(tmp_path / "x", KIND)


def test_the_digests_are_json_in_the_header(file: Path) -> None:
    digests = json.loads(header_of(file)["digests"])
    assert digests == {name: tensor_digest(value) for name, value in TENSORS.items()}


def test_a_full_disk_is_a_sentence_and_leaves_the_previous_file(file: Path) -> None:
    larger = {**TENSORS, "a/matrix": torch.ones(300, 300)}
    for room in (0, 1000, 100_000):
        with full_after(room), pytest.raises(ValueError, match=r"cannot write .*x\.safetensors \(disk full"):
            write_tensors(file, larger, HEADER)
    assert_whole(file)
    assert list(file.parent.iterdir()) == [file]
