"""Finished work items of a result in progress, each in a small HDF5 file of its own.

An item is written atomically and never computed again; any number of processes can write items of one result.
A file carries a digest of its content, and says of which result it is which item. A file that is damaged, or
another item's or another result's, counts as not done.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ddpm_eval.files import atomic_write
from ddpm_eval.results import hdf5
from ddpm_eval.results.fields import Array


class PartialResults:
    """The finished work items of one result.

    Args:
        folder: where the items lie, one folder for each key; removed by `clear`.
        key: digest of everything the items depend on.
        may_clear: whether this process deletes the items of other keys (one process of each job should).
    """

    def __init__(self, folder: Path, key: str, *, may_clear: bool = True) -> None:
        self.folder = folder / key
        self.key = key
        if may_clear and folder.exists():
            for stale in folder.iterdir():
                if stale != self.folder:
                    shutil.rmtree(stale, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def done(self, index: int) -> bool:
        """Tell whether item ``index`` is finished; one that is damaged or unreadable is not."""
        try:
            hdf5.check(self._path(index), self._label(index))
        except ValueError:
            return False
        return True

    def put(self, index: int, arrays: Mapping[str, Array]) -> None:
        """Store item ``index`` atomically.

        Raises:
            ValueError: if the disk is full or not writable.
        """
        with atomic_write(self._path(index)) as temporary:
            hdf5.write_arrays(temporary, arrays, self._label(index))

    def collect(self, count: int) -> dict[str, Array]:
        """Concatenate items 0..count-1 along their first axis.

        Raises:
            ValueError: if an item is missing or damaged.
        """
        items = [hdf5.read_arrays(self._path(index), self._label(index)) for index in range(count)]
        return {name: np.concatenate([item[name] for item in items]) for name in items[0]}

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.h5"

    def _label(self, index: int) -> str:
        return f"{self.key}/{index:06d}"
