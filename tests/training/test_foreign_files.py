"""Other programs' files of weights: refused where they contradict their checksums, or are no files."""

import hashlib
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ddpm_eval.training.foreign_files import check_name, check_own_digests, check_weights_file
from ddpm_eval.training.tensor_files import write_tensors


def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    (tmp_path / "device.pth").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "loop", "device"):
        with pytest.raises(ValueError, match=rf"{name}\.pth is no regular file$"):
            check_weights_file(tmp_path / f"{name}.pth")
    with pytest.raises(ValueError, match=r"there is no weights file .*absent\.pth$"):
        check_weights_file(tmp_path / "absent.pth")


def test_a_flipped_bit_that_torch_reads_is_found(tmp_path):
    """``torch.load`` reads a flipped weight without a word; its archive's checksum tells."""
    path = tmp_path / "w.pth"
    torch.save({"w": torch.arange(1000.0)}, path)
    check_weights_file(path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor(500.0).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path, weights_only=True)["w"], torch.arange(1000.0))
    with pytest.raises(ValueError, match=r"w\.pth is damaged: .*checksum \(fetch it again"):
        check_weights_file(path)


def test_an_archive_whose_parts_contradict_each_other_is_damaged(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"w": torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    content[30:31] = b"W"  # the name of the first member, but not in the directory at the end
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pth is damaged: .* \(fetch it again"):
        check_weights_file(path)


def test_a_name_that_holds_a_checksum_is_taken_at_its_word(tmp_path):
    content = b"weights"
    path = tmp_path / f"weights-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    path.write_bytes(content)
    check_name(path)
    path.write_bytes(b"weighty")
    with pytest.raises(ValueError, match=r"is damaged: its SHA-256 begins with \w{8}, not \w{8} \(fetch"):
        check_name(path)


def test_digests_are_checked_where_this_project_wrote_them(tmp_path):
    tensors = {"a": torch.arange(3.0)}
    write_tensors(tmp_path / "ours.safetensors", tensors, {"format": "pt"})
    save_file(tensors, tmp_path / "other.safetensors", {"format": "pt"})
    with safe_open(tmp_path / "ours.safetensors", framework="pt") as file:
        header = file.metadata()
    check_own_digests(tmp_path, header, tensors)
    with pytest.raises(ValueError, match=r"tensor a does not match its digest \(fetch it again\)"):
        check_own_digests(tmp_path, header, {"a": torch.arange(1, 4.0)})
    check_own_digests(tmp_path, {"format": "pt"}, {"a": torch.arange(1, 4.0)})
