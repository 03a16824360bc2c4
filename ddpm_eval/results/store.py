"""The results file: one HDF5 file for each run, in which every result is a record in a group of its own.

A result lies under ``NAME/KEY``, where the key is a digest of everything that it depends on, so that results
under different choices live side by side. `Store.put_all` copies the file, adds the groups and renames the
copy into place: a reader never sees half a result, and a kill loses at most the results being written.
Processes that write to one file wait for each other. `ddpm_eval.results.hdf5` checks a file before it is
opened.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, TypeVar

from ddpm_eval.files import atomic_write, file_lock, set_aside
from ddpm_eval.results import hdf5, salvage
from ddpm_eval.results.fields import Record, array_fields
from ddpm_eval.results.provenance import environment, now
from ddpm_eval.results.result_groups import (
    Entry,
    describe,
    find,
    groups_of,
    name_of,
    read,
    remove_replaced,
    write,
)

R = TypeVar("R", bound=Record)
REMEDY = "verify RUN --repair keeps what is intact of it, deleting it measures all again"


class Result(NamedTuple):
    """A record to be stored under a name and a key."""

    name: str
    record: Record
    key: str


class Store:
    """The results of one run.

    Args:
        path: of the HDF5 file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, name: str, record: Record, *, key: str, provenance: Mapping[str, object]) -> None:
        """Store one record; see `put_all`."""
        self.put_all([Result(name, record, key)], provenance)

    def put_all(self, results: Sequence[Result], provenance: Mapping[str, object]) -> None:
        """Store records in one step: after a kill all of them are there, or none.

        A result of the same name and key is replaced, and so are results of the same name and of other
        weights.

        Args:
            results: what to store.
            provenance: JSON-serialisable facts about how they were made, beside those of `environment`.

        Raises:
            ValueError: if the file is damaged, or the disk is full or not writable; it is then left as it
                was.
        """
        text = json.dumps({"created": now(), **environment(), **provenance})
        arrays = [getattr(r.record, f.name) for r in results for f in array_fields(type(r.record))]
        with file_lock(self.path), atomic_write(self.path) as temporary:
            if self.path.exists():
                self.check()
                shutil.copyfile(self.path, temporary)
            else:
                hdf5.create(temporary)
            with hdf5.editing(temporary, arrays) as file:
                for name, record, key in results:
                    remove_replaced(file, name, key, provenance.get("weights"))
                    group = file.create_group(f"{name}/{key}", track_order=True)
                    write(group, record, key, text)

    def has(self, name: str, key: str) -> bool:
        """Tell whether a result of this name and key is stored."""
        if not self.path.exists():
            return False
        with self._open() as file:
            return find(file, name, key) is not None

    def get(self, name: str, record_type: type[R], key: str | None = None) -> R:
        """Read a record.

        Args:
            name: of the result.
            record_type: what it is expected to be.
            key: of the result; None takes the newest of this name.

        Raises:
            ValueError: if the file or the result is missing, of another schema or type, or damaged.
        """
        with self._open() as file:
            group = find(file, name, key)
            if group is None:
                held = ", ".join(sorted({name_of(found) for found in groups_of(file)})) or "nothing"
                raise ValueError(f"{self.path} holds no result {name!r} (it holds {held})")
            return read(group, record_type)

    def entries(self) -> list[Entry]:
        """Describe all results, in the order of their names and their times."""
        if not self.path.exists():
            return []
        with self._open() as file:
            entries = [describe(group) for group in groups_of(file)]
        return sorted(entries, key=lambda entry: (entry.name, entry.provenance["created"]))

    def check(self) -> None:
        """Check that the file exists and is what was written.

        Raises:
            ValueError: if it is missing, of another schema, or another kind of file.
            Damaged: if it is not what was written.
        """
        if not self.path.exists():
            raise ValueError(
                f"there is no results file {self.path} (has this run been trained and measured?)"
            )
        try:
            hdf5.check(self.path)
        except hdf5.Damaged as error:
            raise hdf5.Damaged(f"{error}; {REMEDY}") from None

    def intact(self) -> dict[str, bool]:
        """Tell of each result, by its ``NAME/KEY``, whether it is what was written.

        The file may be damaged: another process reads it. What cannot even be listed is left out.
        """
        try:
            self.check()
        except hdf5.Damaged:
            return salvage.examine(self.path, checked=False)
        return salvage.examine(self.path, checked=True)

    def drop_damaged(self) -> list[str]:
        """Keep the intact results alone, and set the file as it was aside under another name.

        Returns:
            The results that were kept.

        Raises:
            ValueError: if the file cannot be written; it is then left as it was.
        """
        with file_lock(self.path):
            kept = [name for name, intact in self.intact().items() if intact]
            if not kept:
                set_aside(self.path)
                return []
            with atomic_write(self.path) as temporary:
                salvage.copy(self.path, temporary, kept)
                set_aside(self.path)
        return kept

    def _open(self) -> AbstractContextManager[hdf5.File]:
        self.check()
        return hdf5.reading(self.path)
