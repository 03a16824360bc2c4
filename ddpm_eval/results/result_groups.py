"""A stored result as a group of an HDF5 file: written, read, described, and told from a damaged one.

The group lies under ``NAME/KEY``. Its arrays and estimates are datasets, its numbers, texts and protocols
attributes. The attribute ``digest`` is that of all the rest, so that intact results can be told from damaged
ones in a file that is damaged. Groups of earlier versions have none.
"""

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass
from typing import Any, TypeVar

import numpy as np

from ddpm_eval.files import content_digest
from ddpm_eval.protocol import Protocol
from ddpm_eval.results import hdf5
from ddpm_eval.results.fields import Array, Estimate, Record, array_fields, fields_of_kind

R = TypeVar("R", bound=Record)
BOUNDS = ("value", "low", "high")
DIGEST = "digest"
DESCRIPTIONS = ("record", "key", "provenance", DIGEST, "content")
"""Attributes of a group that say what it is (``content`` in files of earlier versions); its other attributes
are the record's numbers and texts.
"""


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


def write(group: hdf5.Group, record: Record, key: str, provenance: str) -> None:
    """Write a record into an empty group, and the digest of all that the group then holds.

    Args:
        group: to write.
        record: to be stored.
        key: of the result.
        provenance: how it was made, as JSON.
    """
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
    group.attrs[DIGEST] = _digest(group, _arrays(group))


def read(group: hdf5.Group, record_type: type[R]) -> R:
    """Read a record, and compare it with the group's digest.

    Raises:
        ValueError: if the group holds another type of record.
        Damaged: if it is not what was written.
    """
    if group.attrs["record"] != record_type.__name__:
        raise ValueError(
            f"{group.file.filename}: {name_of(group)} is a {group.attrs['record']}, not a "
            f"{record_type.__name__}"
        )
    arrays = _arrays(group)
    if not _matches(group, arrays):
        raise hdf5.Damaged(f"{group.file.filename}: the content of {name_of(group)} is not what was written")
    values: dict[str, object] = {f.name: arrays[f.name] for f in array_fields(record_type)}
    for f in fields_of_kind(record_type, "estimate"):
        values[f.name] = _estimate(group[f.name])
    for f in (*fields_of_kind(record_type, "number"), *fields_of_kind(record_type, "text")):
        values[f.name] = _scalar(group, f)
    for f in fields_of_kind(record_type, "protocol"):
        values[f.name] = Protocol.model_validate_json(group.attrs[f.name])
    return record_type(**values)


def describe(group: hdf5.Group) -> Entry:
    """Describe a result without reading its arrays."""
    arrays = {}
    sizes = []
    scalars = {name: _plain(value) for name, value in group.attrs.items() if name not in DESCRIPTIONS}
    for name, data in group.items():
        size = [(dimension.label, length) for dimension, length in zip(data.dims, data.shape, strict=True)]
        if size == [("interval", len(BOUNDS))]:
            scalars[name] = _estimate(data)
            continue
        sizes.append(size)
        dims = ", ".join(f"{dimension} {length}" for dimension, length in size)
        arrays[name] = f"[{dims}] {data.dtype}, {data.attrs['unit']}"
    return Entry(
        name_of(group),
        group.attrs["key"],
        group.attrs["record"],
        provenance_of(group),
        arrays,
        sizes,
        scalars,
    )


def is_intact(group: hdf5.Group, *, checked: bool) -> bool:
    """Tell whether a group is what was written.

    Args:
        group: of a result.
        checked: whether the file is known to be intact; a group without a digest is then, too.
    """
    return (checked or DIGEST in group.attrs) and _matches(group, _arrays(group))


def groups_of(file: hdf5.Group) -> list[hdf5.Group]:
    """Return the groups of all results of a file."""
    found: list[hdf5.Group] = []
    file.visititems(lambda _, item: found.append(item) if "provenance" in item.attrs else None)
    return found


def find(file: hdf5.Group, name: str, key: str | None) -> hdf5.Group | None:
    """Return the group of a name and key (None: the newest of the name), None if there is none."""
    if key is not None:
        group = file.get(f"{name}/{key}")
        return group if group is not None and "provenance" in group.attrs else None
    groups = [group for group in groups_of(file) if name_of(group) == name]
    return max(groups, key=lambda group: provenance_of(group)["created"], default=None)


def remove_replaced(file: hdf5.Group, name: str, key: str, weights: object) -> None:
    """Remove the result of this name and key, and those of this name that are of other weights."""
    for group in groups_of(file):
        if name_of(group) != name:
            continue
        if group.attrs["key"] == key or provenance_of(group).get("weights") != weights:
            del file[group.name]


def name_of(group: hdf5.Group) -> str:
    """Return the name of a result."""
    return str(group.name).strip("/").rpartition("/")[0]


def provenance_of(group: hdf5.Group) -> dict[str, Any]:
    """Return how a result was made."""
    return json.loads(group.attrs["provenance"])


def _arrays(group: hdf5.Group) -> dict[str, Array]:
    return {name: data[...] for name, data in sorted(group.items())}


def _matches(group: hdf5.Group, arrays: Mapping[str, Array]) -> bool:
    """Tell whether a group has the digest that it says; one of an earlier version says none."""
    said = group.attrs.get(DIGEST)
    return said is None or said == _digest(group, arrays)


def _digest(group: hdf5.Group, arrays: Mapping[str, Array]) -> str:
    """Return the digest of a group's place, attributes and arrays, and of the arrays' attributes."""
    parts: list[str | Array] = [f"{group.name};", *_attribute_texts(group)]
    for name, value in arrays.items():
        parts += [f"{name};", *_attribute_texts(group[name]), value]
    return content_digest(parts)


def _attribute_texts(item: hdf5.Group | hdf5.Dataset) -> list[str]:
    names = sorted(name for name in item.attrs if name != DIGEST)
    return [f"{name}={_plain(item.attrs[name])!r};" for name in names]


def _scalar(group: hdf5.Group, declared: Field[object]) -> object:
    """Return a number or text, or what is declared for groups of earlier versions that lack it."""
    if declared.name not in group.attrs and "earlier" in declared.metadata:
        return declared.metadata["earlier"]
    return _plain(group.attrs[declared.name])


def _estimate(data: hdf5.Dataset) -> Estimate:
    value, low, high = map(float, data[...])
    return Estimate(value, low, high, str(data.attrs["unit"]))


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value
