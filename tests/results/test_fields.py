"""How records are declared: what their fields must say, and what a record refuses."""

import dataclasses
import math

import numpy as np
import pytest
from records_for_tests import RECORD_TYPES, example

from ddpm_eval.protocol import PROTOCOLS, Protocol
from ddpm_eval.results.bound_terms import FullBoundTerms
from ddpm_eval.results.fields import (
    Array,
    Estimate,
    Record,
    array,
    array_fields,
    bound_protocol,
    estimate,
    fields_of_kind,
    number,
    record,
    text,
)

KINDS = ("array", "estimate", "number", "text", "protocol")
BOUND = {
    "image_id": np.arange(3),
    "terms": np.ones((3, 5)),
    "x_0_squared_error": np.ones((3, 5)),
    "prior": np.ones(3),
    "split": "test",
    "protocol": PROTOCOLS["paper"],
    "variance": "fixed-large",
    "dimensions": 64,
    "inexact_left_out": 0,
    "network_evaluations": 15,
}


@record
class Measured(Record):
    """A record with a field of each kind."""

    values: Array = array("image", "nats", "what was measured")
    mean: Estimate = estimate("nats", "their mean")
    n: int = number("images", "their number")
    split: str = text("train or test")
    protocol: Protocol = bound_protocol()


def test_fields_that_agree_are_accepted():
    assert FullBoundTerms(**BOUND).terms.shape == (3, 5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("terms", np.ones(15), "FullBoundTerms.terms has 1 dimensions"),
        ("prior", np.ones((3, 1)), "FullBoundTerms.prior has 2 dimensions"),
        ("terms", np.ones((4, 5)), "FullBoundTerms.terms has 4 along 'image', other fields 3"),
        ("x_0_squared_error", np.ones((3, 6)), r"x_0_squared_error has 6 along 't', other fields 5"),
        ("prior", np.ones(2), "FullBoundTerms.prior has 2 along 'image', other fields 3"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        FullBoundTerms(**{**BOUND, field: value})


def test_an_estimate_of_another_unit_is_refused():
    choices = {"values": np.ones(3), "n": 3, "split": "test", "protocol": PROTOCOLS["paper"]}
    assert Measured(**choices, mean=Estimate(1.0, 0.5, 1.5, "nats")).mean.value == 1.0
    with pytest.raises(ValueError, match=r"Measured\.mean is in 'bits', but declared in 'nats'"):
        Measured(**choices, mean=Estimate(1.0, 0.5, 1.5, "bits"))


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FullBoundTerms(**BOUND).split = "train"  # type: ignore[misc]


def test_an_estimate_that_was_not_measured_is_not_known():
    assert Estimate(0.0, math.nan, math.nan, "1").known
    assert not Estimate(math.nan, math.nan, math.nan, "1").known


@pytest.mark.parametrize("record_type", RECORD_TYPES)
def test_every_field_says_what_it_is(record_type):
    for field in array_fields(record_type):
        assert field.metadata["dims"] and field.metadata["unit"] and field.metadata["meaning"]
    for kind in ("number", "estimate"):
        for field in fields_of_kind(record_type, kind):
            assert field.metadata["unit"] and field.metadata["meaning"]
    for field in fields_of_kind(record_type, "text"):
        assert field.metadata["meaning"]
    declared = {field.name for kind in KINDS for field in fields_of_kind(record_type, kind)}
    assert declared == {field.name for field in dataclasses.fields(record_type)}


@pytest.mark.parametrize("record_type", RECORD_TYPES)
def test_every_estimates_unit_is_enforced(record_type):
    found = example(record_type)
    for field in fields_of_kind(record_type, "estimate"):
        wrong = getattr(found, field.name)._replace(unit="parsecs")
        with pytest.raises(ValueError, match=f"{field.name} is in 'parsecs'"):
            dataclasses.replace(found, **{field.name: wrong})
