"""How a record is declared: a frozen dataclass whose fields say what they hold.

Each field states what it is in its metadata: an array its dimensions, unit and meaning; a number and an
estimate their unit and meaning; a text its meaning. A number may say what is read from files of earlier
versions that lack it. `Record.check` enforces that arrays which share a
dimension agree on its length.
"""

import math
from dataclasses import Field, dataclass, field, fields
from typing import Any, NamedTuple, TypeVar, dataclass_transform

import numpy.typing as npt

from ddpm_eval.protocol import Protocol

Array = npt.NDArray[Any]
C = TypeVar("C")


class Estimate(NamedTuple):
    """A number, the bounds of its 95% interval (NaN where there is none), and its unit."""

    value: float
    low: float
    high: float
    unit: str

    @property
    def known(self) -> bool:
        """Whether the number was measured."""
        return not math.isnan(self.value)


def array(dims: str, unit: str, meaning: str) -> Array:
    """Declare an array field: its dimensions' names, separated by spaces, its unit and a sentence."""
    return _declare("array", unit, meaning, dims=tuple(dims.split()))


def estimate(unit: str, meaning: str) -> Estimate:
    """Declare a field that holds an `Estimate`."""
    return _declare("estimate", unit, meaning)


def number(unit: str, meaning: str, *, earlier: float | None = None) -> Any:  # noqa: ANN401 - a field
    """Declare a field that holds a number without an interval.

    Args:
        unit: of the number.
        meaning: a sentence.
        earlier: the value that is read from files of versions which did not store the number; None if every
            file holds it.
    """
    return _declare("number", unit, meaning, **({} if earlier is None else {"earlier": earlier}))


def text(meaning: str) -> Any:  # noqa: ANN401 - a dataclass field
    """Declare a field that holds a text or a truth value."""
    return _declare("text", "", meaning)


def bound_protocol() -> Protocol:
    """Declare the field that holds the `Protocol` of a bound."""
    return _declare("protocol", "", "how the bound was computed")


@dataclass_transform(frozen_default=True, field_specifiers=(array, estimate, number, text, bound_protocol))
def record(cls: type[C]) -> type[C]:
    """Make a class a record: a frozen dataclass of declared fields."""
    return dataclass(frozen=True, eq=False)(cls)


@record
class Record:
    """Base of all records."""

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise ValueError if an array's rank, a shared dimension's length or an estimate's unit is wrong."""
        lengths: dict[str, int] = {}
        for f in array_fields(type(self)):
            value, dims = getattr(self, f.name), f.metadata["dims"]
            if value.ndim != len(dims):
                raise ValueError(f"{type(self).__name__}.{f.name} has {value.ndim} dimensions, not {dims}")
            for name, length in zip(dims, value.shape, strict=True):
                if lengths.setdefault(name, length) != length:
                    raise ValueError(
                        f"{type(self).__name__}.{f.name} has {length} along {name!r}, other fields "
                        f"{lengths[name]}"
                    )
        for f in fields_of_kind(type(self), "estimate"):
            unit = getattr(self, f.name).unit
            if unit != f.metadata["unit"]:
                raise ValueError(
                    f"{type(self).__name__}.{f.name} is in {unit!r}, but declared in {f.metadata['unit']!r}"
                )


def fields_of_kind(record_type: type[Record], kind: str) -> list[Field[object]]:
    """Return the dataclass fields of a record type that were declared as ``kind``."""
    return [f for f in fields(record_type) if f.metadata.get("kind") == kind]


def array_fields(record_type: type[Record]) -> list[Field[object]]:
    """Return the dataclass fields of a record type that hold arrays."""
    return fields_of_kind(record_type, "array")


def _declare(kind: str, unit: str, meaning: str, **more: object) -> Any:  # noqa: ANN401 - a dataclass field
    return field(metadata={"kind": kind, "unit": unit, "meaning": meaning, **more})
