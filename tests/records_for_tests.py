"""Records of every type with values that are hard to keep, for the tests of the store."""

import dataclasses

import numpy as np

from ddpm_eval.protocol import PROTOCOLS, combine
from ddpm_eval.results import bound_terms, records
from ddpm_eval.results.bound_terms import BoundTerms
from ddpm_eval.results.fields import Estimate, Record, array_fields, fields_of_kind
from ddpm_eval.results.records import ReferenceImages

RECORD_TYPES = sorted(
    {
        member
        for module in (records, bound_terms)
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, Record) and member not in (Record, BoundTerms)
    },
    key=lambda kind: kind.__name__,
)
TEXT = "with accents: é, µ~, ε; quotes \" and '; two\nlines"


def example(record_type, seed=0):
    """Build a record with a different length for each dimension and values that are hard to keep."""
    rng = np.random.default_rng(seed)
    lengths: dict[str, int] = {"interval": 3}
    values: dict[str, object] = {}
    for position, field in enumerate(array_fields(record_type)):
        shape = [lengths.setdefault(name, 3 + len(lengths)) for name in field.metadata["dims"]]
        dtype = [np.float64, np.float32, np.int64, np.uint8][position % 4]
        value = rng.integers(0, 255, shape) if position % 4 > 1 else rng.normal(size=shape)
        values[field.name] = value.astype(dtype)
    for field in fields_of_kind(record_type, "estimate"):
        values[field.name] = Estimate(rng.normal(), float("-inf"), float("nan"), field.metadata["unit"])
    for field in (*fields_of_kind(record_type, "number"), *fields_of_kind(record_type, "text")):
        values[field.name] = {int: 2**40 + 1, float: float("nan"), str: TEXT, bool: True}[field.type]
    for field in fields_of_kind(record_type, "protocol"):
        values[field.name] = combine(PROTOCOLS["paper"], variance="optimal", draws=3)
    return record_type(**values)


def images(n=4, seed=0):
    """Return a small record of n images."""
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 1, 8, 8)).astype(np.uint8)
    return ReferenceImages(images=pixels, name="digits", split="train")


def assert_equal(found, expected):
    """Check that two records are equal to the bit, types and NaN included."""
    assert type(found) is type(expected)
    for field in dataclasses.fields(expected):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        assert type(a) is type(b), field.name
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b)
        elif isinstance(b, Estimate):
            assert a.unit == b.unit and all(type(x) is float for x in a[:3]), field.name
            np.testing.assert_array_equal(a[:3], b[:3])
        else:
            assert a == b or (a != a and b != b), field.name
