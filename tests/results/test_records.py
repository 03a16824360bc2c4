"""Records: what they refuse, and that every field says what it is."""

import dataclasses

import numpy as np
import pytest

from ddpm_eval.results import records
from ddpm_eval.results.records import (
    FullBoundTerms,
    Record,
    Samples,
    StratifiedBoundTerms,
    TrainingLog,
    array_fields,
    scalar_fields,
)

TYPES = [
    member
    for member in vars(records).values()
    if isinstance(member, type) and issubclass(member, Record) and member != Record
]

BOUND = {
    "image_id": np.arange(3),
    "terms": np.ones((3, 5)),
    "x_0_squared_error": np.ones((3, 5)),
    "prior": np.ones(3),
    "split": "test",
    "protocol": "{}",
    "dimensions": 64,
    "inexact_left_out": 0,
}


def test_fields_that_agree_are_accepted():
    assert FullBoundTerms(**BOUND).terms.shape == (3, 5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("terms", np.ones(15), "FullBoundTerms.terms has 1 dimensions"),
        ("prior", np.ones((3, 1)), "FullBoundTerms.prior has 2 dimensions"),
        ("terms", np.ones((4, 5)), "FullBoundTerms.terms has 4 along 'image', other fields 3"),
        (
            "x_0_squared_error",
            np.ones((3, 6)),
            "FullBoundTerms.x_0_squared_error has 6 along 't', other fields 5",
        ),
        ("prior", np.ones(2), "FullBoundTerms.prior has 2 along 'image', other fields 3"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        FullBoundTerms(**{**BOUND, field: value})


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FullBoundTerms(**BOUND).split = "train"  # type: ignore[misc]


def test_a_stratified_record_has_a_time_axis_of_its_own():
    """``inclusion`` runs over all steps, ``terms`` over the few evaluations: the two lengths are
    independent.
    """
    fields = {key: value for key, value in BOUND.items() if key not in ("terms", "x_0_squared_error")}
    few = np.ones((3, 2))
    atoms = StratifiedBoundTerms(
        **fields,
        t=few.astype(int),
        terms=few,
        x_0_squared_error=few,
        inclusion=np.ones(7),
        offset=np.ones(3),
        network_evaluations=6,
    )
    assert len(atoms.inclusion) == 7
    with pytest.raises(ValueError, match="'evaluation'"):
        dataclasses.replace(atoms, t=np.ones((3, 4), int))


@pytest.mark.parametrize("record_type", TYPES)
def test_every_array_states_its_axes_unit_and_meaning(record_type):
    for field in array_fields(record_type):
        assert field.metadata["dims"] and field.metadata["unit"] and field.metadata["meaning"]
    assert {f.name for f in (*array_fields(record_type), *scalar_fields(record_type))} == {
        f.name for f in dataclasses.fields(record_type)
    }


@pytest.mark.parametrize(
    ("status", "diverged"), [("ok", False), ("stopped", False), ("running", False), ("diverged", True)]
)
def test_only_divergence_is_divergence(status, diverged):
    log = TrainingLog(
        np.ones(2), np.ones(2), status=status, reason="", steps=2, images=8, seconds=1.0, parameters=1
    )
    assert log.diverged is diverged


def test_images_are_four_dimensional():
    with pytest.raises(ValueError, match=r"Samples.images has 3 dimensions"):
        Samples(
            np.zeros((2, 8, 8), np.uint8),
            np.zeros(2),
            np.zeros(2),
            method="ancestral",
            sampling_steps=20,
            seed=0,
        )
