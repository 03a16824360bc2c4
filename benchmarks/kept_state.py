"""What is kept of a stay on a lent machine, as parts: averaged weights, results, and the state of training.

Each set is one archive in parts, in a folder of its own that `carry.SETS` names; its paths are relative to
the folder of all runs. The archive's name says whose it is: RUN-UPDATES.tar.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import carry
import parts

from ddpm_eval.training import checkpoint
from ddpm_eval.training.checkpoint import FILE_NAME

NOTES = ("bits_per_dim.csv", "log.txt", "reports")
"""What a person reads, relative to the folder of the stay."""
OVER = ("imported", "averaged")
"""The status of a checkpoint that holds no optimiser's state."""


@dataclass(frozen=True)
class KeptState:
    """The parts of one run.

    Attributes:
        out: the folder of the stay, which holds a folder for each set.
        runs: the folder of all runs.
        run: the run's folder.
        name: the run's name among all presets'.
        part_bytes: the largest size of a part.
    """

    out: Path
    runs: Path
    run: Path
    name: str
    part_bytes: int

    def keep(self, updates: int) -> None:
        """Write every set anew that may have changed, what is carried first at first."""
        self._pack("notes", (path for name in NOTES for path in files(self.out / name)), self.out, updates)
        if updates == 0:
            return
        if self.updates("weights") != updates:
            self._pack_averaged(updates)
        found = [*files(self.run), *files(self.runs / "classifiers")]
        self._pack("results", (path for path in found if path.name != FILE_NAME), self.runs, updates)
        path = self.run / FILE_NAME
        if self.updates("state") != updates and can_be_trained(path):
            self._pack("state", [path], self.runs, updates)

    def updates(self, name: str = "state") -> int | None:
        """Return the updates of the kept set, None if there is none or it is not complete.

        Raises:
            ValueError: if it is another run's.
        """
        folder = self.out / name
        return kept_updates(folder, self.name) if parts.is_complete(folder) else None

    def most_updates(self) -> int | None:
        """Return the updates of the newest weights that are kept, None if there are none."""
        found = [self.updates(name) for name in ("weights", "state")]
        return max((updates for updates in found if updates is not None), default=None)

    def _pack_averaged(self, updates: int) -> None:
        path = self.run / FILE_NAME
        with tempfile.TemporaryDirectory(dir=self.out, prefix=".averaged-") as folder:
            alone = Path(folder) / path.relative_to(self.runs)
            checkpoint.save(alone, checkpoint.averaged(checkpoint.load(path, prefixes=("ema/", "log/"))))
            self._pack("weights", [alone], Path(folder), updates)

    def _pack(self, name: str, found: Iterable[Path], root: Path, updates: int) -> None:
        with parts.exclusive(self.out):
            archive = f"{self.name}-{updates:08d}.tar"
            parts.pack(found, root, self.out / name, archive, self.part_bytes)


def kept_updates(folder: Path, name: str) -> int | None:
    """Return the updates of what is kept in parts, None if there is nothing.

    Raises:
        ValueError: if it is another run's.
    """
    for part in parts.read_sums(folder):
        run, _, updates = part.partition(".tar.")[0].rpartition("-")
        if run != name:
            raise ValueError(
                f"{folder} holds the run {run}, not {name}: name another folder than {folder.parent}"
            )
        return int(updates)
    return None


def files(path: Path) -> list[Path]:
    """Return a file, or the files below a folder, without those that are being written."""
    found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [file for file in found if not file.name.startswith(".") and file.suffix != ".tmp"]


def unpack(home: Path, runs: Path, sets: Sequence[str] = carry.SETS) -> list[str]:
    """Restore those sets that are complete: the notes into ``home``, the others below ``runs``.

    Of averaged weights and the whole state those of more updates are restored, the state if they are equal.

    Returns:
        The names of the restored sets.
    """
    complete = [name for name in sets if parts.is_complete(home / name)]
    if "state" in complete and "weights" in complete:
        older = min(("weights", "state"), key=lambda name: archive_updates(home / name))
        complete.remove(older)
    for name in complete:
        parts.unpack(home / name, home if name == "notes" else runs)
    return complete


def archive_updates(folder: Path) -> int:
    """Return the updates of what is kept in parts, of whatever run."""
    return int(next(iter(parts.read_sums(folder))).partition(".tar.")[0].rpartition("-")[2])


def can_be_trained(path: Path) -> bool:
    """Tell whether a checkpoint has the optimiser's state."""
    return checkpoint.load(path, prefixes=()).metadata["status"] not in OVER
