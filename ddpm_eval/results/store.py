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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ddpm_eval.files import atomic_write, content_digest, file_lock
from ddpm_eval.protocol import Protocol
from ddpm_eval.results import hdf5
from ddpm_eval.results.fields import Array, Estimate, Record, array_fields, fields_of_kind
from ddpm_eval.results.provenance import environment, now

R = TypeVar("R", bound=Record)
BOUNDS = ("value", "low", "high")
DESCRIPTIONS = ("record", "key", "provenance", "content")
"""Attributes of a group that say what it is; its other attributes are the record's numbers and texts."""


class Result(NamedTuple):
    """A record to be stored under a name and a key."""

    name: str
    record: Record
    key: str


@dataclass(frozen=True)
class Entry:
    """A stored result without its arrays.

    Attributes:
        name: such as ``bound/full/test/paper``.
        key: digest of everything that the result depends on.
        record: name of the record's type.
        provenance: how it was made.
        arrays: a description of each array by field.
        sizes: dimensions and lengths of each array.
        scalars: numbers, texts and estimates by field.
    """

    name: str
    key: str
    record: str
    provenance: dict[str, Any]
    arrays: dict[str, str]
    sizes: list[list[tuple[str, int]]]
    scalars: dict[str, Any]


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
                self._check()
                shutil.copyfile(self.path, temporary)
            else:
                hdf5.create(temporary)
            with hdf5.editing(temporary, arrays) as file:
                for name, record, key in results:
                    _remove_replaced(file, name, key, provenance.get("weights"))
                    _write(file.create_group(f"{name}/{key}", track_order=True), record, key, text)

    def has(self, name: str, key: str) -> bool:
        """Tell whether a result of this name and key is stored."""
        if not self.path.exists():
            return False
        with self._open() as file:
            return _find(file, name, key) is not None

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
            group = _find(file, name, key)
            if group is None:
                held = ", ".join(sorted({_name(found) for found in _groups(file)})) or "nothing"
                raise ValueError(f"{self.path} holds no result {name!r} (it holds {held})")
            if group.attrs["record"] != record_type.__name__:
                raise ValueError(
                    f"{self.path}: {name} is a {group.attrs['record']}, not a {record_type.__name__}"
                )
            record = _read(group, record_type)
            if group.attrs["content"] != _content(record):
                raise hdf5.Damaged(f"{self.path}: the content of {name} is not what was written")
            return record

    def entries(self) -> list[Entry]:
        """Describe all results, in the order of their names and their times."""
        if not self.path.exists():
            return []
        with self._open() as file:
            entries = [_entry(group) for group in _groups(file)]
        return sorted(entries, key=lambda entry: (entry.name, entry.provenance["created"]))

    def _open(self) -> AbstractContextManager[hdf5.File]:
        self._check()
        return hdf5.reading(self.path)

    def _check(self) -> None:
        if not self.path.exists():
            raise ValueError(
                f"there is no results file {self.path} (has this run been trained and measured?)"
            )
        try:
            hdf5.check(self.path)
        except hdf5.Damaged as error:
            raise hdf5.Damaged(f"{error}; delete it to measure again") from None


def _write(group: hdf5.Group, record: Record, key: str, provenance: str) -> None:
    kind = type(record)
    for f in array_fields(kind):
        data = hdf5.write_dataset(group, f.name, np.asarray(getattr(record, f.name)))
        data.attrs["unit"] = f.metadata["unit"]
        data.attrs["meaning"] = f.metadata["meaning"]
        for axis, dimension in enumerate(f.metadata["dims"]):
            data.dims[axis].label = dimension
    for f in fields_of_kind(kind, "estimate"):
        value = getattr(record, f.name)
        data = group.create_dataset(f.name, data=np.array(value[:3], np.float64))
        data.attrs["unit"] = value.unit
        data.attrs["meaning"] = f.metadata["meaning"]
        data.dims[0].label = "interval"
    for f in (*fields_of_kind(kind, "number"), *fields_of_kind(kind, "text")):
        group.attrs[f.name] = getattr(record, f.name)
    for f in fields_of_kind(kind, "protocol"):
        group.attrs[f.name] = getattr(record, f.name).model_dump_json()
    group.attrs["record"] = kind.__name__
    group.attrs["key"] = key
    group.attrs["provenance"] = provenance
    group.attrs["content"] = _content(record)


def _read(group: hdf5.Group, record_type: type[R]) -> R:
    values: dict[str, object] = {f.name: group[f.name][...] for f in array_fields(record_type)}
    for f in fields_of_kind(record_type, "estimate"):
        values[f.name] = _read_estimate(group[f.name])
    for f in (*fields_of_kind(record_type, "number"), *fields_of_kind(record_type, "text")):
        values[f.name] = _scalar(group.attrs[f.name])
    for f in fields_of_kind(record_type, "protocol"):
        values[f.name] = Protocol.model_validate_json(group.attrs[f.name])
    return record_type(**values)


def _read_estimate(data: hdf5.Dataset) -> Estimate:
    value, low, high = map(float, data[...])
    return Estimate(value, low, high, str(data.attrs["unit"]))


def _content(record: Record) -> str:
    """Return the digest of all that a record holds."""
    kind = type(record)
    parts: list[str | Array] = []
    for f in array_fields(kind):
        parts += [f.name, np.asarray(getattr(record, f.name))]
    for f in fields_of_kind(kind, "estimate"):
        value = getattr(record, f.name)
        parts.append(f"{f.name}={tuple(map(float, value[:3]))} {value.unit};")
    for f in (*fields_of_kind(kind, "number"), *fields_of_kind(kind, "text")):
        parts.append(f"{f.name}={_scalar(getattr(record, f.name))!r};")
    for f in fields_of_kind(kind, "protocol"):
        parts.append(f"{f.name}={getattr(record, f.name).model_dump_json()};")
    return content_digest(parts)


def _remove_replaced(file: hdf5.Group, name: str, key: str, weights: object) -> None:
    """Remove the result of this name and key, and those of this name that are of other weights."""
    for group in _groups(file):
        if _name(group) != name:
            continue
        made_with = json.loads(group.attrs["provenance"]).get("weights")
        if group.attrs["key"] == key or made_with != weights:
            del file[group.name]


def _groups(file: hdf5.Group) -> list[hdf5.Group]:
    found: list[hdf5.Group] = []
    file.visititems(lambda _, item: found.append(item) if "provenance" in item.attrs else None)
    return found


def _find(file: hdf5.Group, name: str, key: str | None) -> hdf5.Group | None:
    if key is not None:
        group = file.get(f"{name}/{key}")
        return group if group is not None and "provenance" in group.attrs else None
    groups = [group for group in _groups(file) if _name(group) == name]
    return max(groups, key=lambda group: json.loads(group.attrs["provenance"])["created"], default=None)


def _name(group: hdf5.Group) -> str:
    return str(group.name).strip("/").rpartition("/")[0]


def _entry(group: hdf5.Group) -> Entry:
    arrays = {}
    sizes = []
    scalars = {name: _scalar(value) for name, value in group.attrs.items() if name not in DESCRIPTIONS}
    for name, data in group.items():
        size = [(dimension.label, length) for dimension, length in zip(data.dims, data.shape, strict=True)]
        if size == [("interval", len(BOUNDS))]:
            scalars[name] = _read_estimate(data)
            continue
        sizes.append(size)
        dims = ", ".join(f"{dimension} {length}" for dimension, length in size)
        arrays[name] = f"[{dims}] {data.dtype}, {data.attrs['unit']}"
    provenance = json.loads(group.attrs["provenance"])
    return Entry(_name(group), group.attrs["key"], group.attrs["record"], provenance, arrays, sizes, scalars)


def _scalar(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
