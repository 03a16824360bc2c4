"""Other programs' files of weights: checked against what they say of themselves before they are used.

Three kinds of checksum are in use. Every member of the zip archives that ``torch.save`` writes has a CRC-32,
which ``torch.load`` does not look at. Safetensors files that this project exported have digests. A name such
as ``weights-6726825d.pth`` holds the first digits of the file's SHA-256 where its publisher says so. A pickle
of the time before torch 1.6 and a safetensors file of another program have none of these.
"""

import hashlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ddpm_eval.training.tensor_files import check_digests

REMEDY = "fetch it again"
NAMED_CHECKSUM = re.compile(r"-([0-9a-f]{8})\.\w+$")


def check_weights_file(path: Path) -> None:
    """Check that a file can be opened, and that the members of an archive match their checksums.

    Raises:
        ValueError: if it is missing, no regular file, or damaged.
    """
    if not path.is_file():  # a named pipe would be waited for without end
        some = path.exists() or path.is_symlink()
        raise ValueError(f"{path} is no regular file" if some else f"there is no weights file {path}")
    try:
        damaged = _damaged_member(path)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {_first_line(error)} ({REMEDY})") from None
    if damaged is not None:
        raise ValueError(
            f"{path} is damaged: its member {damaged!r} does not match its checksum ({REMEDY}; a file that "
            "was saved without checksums must be saved with them)"
        )


def check_own_digests(path: Path, header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Check all tensors of a safetensors file against the digests in its header, if this project wrote it.

    Raises:
        ValueError: if they differ.
    """
    check_digests(path, header, tensors, tensors, REMEDY)


def check_name(path: Path) -> None:
    """Check a file against the SHA-256 whose first digits its name holds.

    Raises:
        ValueError: if it is another one.
    """
    stated = NAMED_CHECKSUM.search(path.name)
    assert stated, f"{path.name} holds no checksum"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()[: len(stated[1])]
    if found != stated[1]:
        raise ValueError(f"{path} is damaged: its SHA-256 begins with {found}, not {stated[1]} ({REMEDY})")


def _damaged_member(path: Path) -> str | None:
    """Return the name of an archive's first damaged member, None if all are whole or it is no archive."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
