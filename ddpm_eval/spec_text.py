"""Specifications as text: read from JSON, changed field by field, and compared.

A field is named by its dotted path, such as ``train.batch_size``. Whatever cannot be read is refused with one
sentence that names the field, the value found and what is allowed.
"""

import difflib
import json
import reprlib
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from ddpm_eval.spec import NETWORK_KINDS, RunSpec

FREE_FIELDS = ("evaluation.", "train.steps", "train.checkpoint_steps")
"""The beginnings of the names of fields that may change while a run goes on."""

UNREADABLE = "nested too deeply, or an integer too long to read"

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = _shown.maxlong = 80
"""Shows a value that was found, on one line of limited length."""


def read_json(text: str) -> object:
    """Return what a JSON text says.

    Raises:
        ValueError: if it is none, or cannot be held (nested too deeply, an integer of thousands of digits).
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{_shown.repr(text)} is no JSON ({error})") from None
    except (RecursionError, ValueError):
        raise ValueError(f"{_shown.repr(text)} is {UNREADABLE}") from None


def read_value(key: str, text: str) -> object:
    """Read a value as JSON or, if it is none, as plain text.

    Args:
        key: what it is the value of, for the message.
        text: the value.

    Raises:
        ValueError: if it is JSON that cannot be held.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
    except (RecursionError, ValueError):  # the latter of integers with thousands of digits
        raise ValueError(f"{key} is {_shown.repr(text)}: {UNREADABLE}") from None


def parse(document: object) -> RunSpec:
    """Return the run that a JSON document describes.

    Raises:
        ValueError: if the document describes none.
    """
    try:
        return RunSpec.model_validate(document)
    except ValidationError as error:
        raise ValueError(_sentence(error)) from None


def override(spec: RunSpec, settings: Mapping[str, str]) -> RunSpec:
    """Return ``spec`` with fields replaced, each named by its dotted path and given as text.

    Args:
        spec: the run to change.
        settings: such as ``{"train.batch_size": "256", "network.multipliers": "[1, 2]"}``; values are JSON or
            plain text.

    Raises:
        ValueError: if a field is unknown (the nearest ones are named) or a value is invalid.
    """
    document = spec.model_dump(mode="json")
    known = _flatten(spec)
    for key, text in settings.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.5) or sorted(known)
            raise ValueError(f"there is no option {_shown.repr(key)} (did you mean {', '.join(near)}?)")
        *parents, leaf = key.split(".")
        node = document
        for parent in parents:
            node = node[parent]
        node[leaf] = read_value(key, text)
    return parse(document)


def differences(found: RunSpec, wanted: RunSpec) -> list[str]:
    """List the fields in which two runs differ, such as ``train.batch_size: 128, not 256``.

    `FREE_FIELDS` are left out, and so is the decoder of training where both are trained without one.
    """
    fields = _flatten(wanted)
    without = found.diffusion.objective == wanted.diffusion.objective == "mse"
    free = (*FREE_FIELDS, "diffusion.training_decoder") if without else FREE_FIELDS
    return [
        f"{key}: {value}, not {fields[key]}"
        for key, value in _flatten(found).items()
        if value != fields[key] and not key.startswith(free)
    ]


def _sentence(error: ValidationError) -> str:
    """Say in one sentence what is wrong with the first field that is."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in NETWORK_KINDS)
    message = first["msg"].removeprefix("Value error, ")
    found = first.get("input")
    if not where or isinstance(found, dict):
        return f"{where}: {message}" if where else message
    return f"{where} is {_shown.repr(found)}: {message[0].lower()}{message[1:]}"


def _flatten(specification: BaseModel, prefix: str = "") -> dict[str, object]:
    """Return the values of a nested specification by their dotted paths."""
    flat: dict[str, object] = {}
    for key, value in specification:
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, BaseModel) else {prefix + key: value}
    return flat
