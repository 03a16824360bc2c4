"""Terms of the bound as records: the figures that are derived from them, and terms that are not finite."""

import dataclasses
import math

import numpy as np
import pytest

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results.bound_terms import FullBoundTerms, StratifiedBoundTerms, bound_name

SHARED = {
    "image_id": np.array([7, 2, 9]),
    "prior": np.array([0.5, 0.25, 0.125]),
    "split": "test",
    "protocol": PROTOCOLS["paper"],
    "variance": "fixed-large",
    "dimensions": 4,
    "inexact_left_out": 0,
    "network_evaluations": 15,
}
NATS_PER_BIT_PER_DIM = 4 * math.log(2)
TERMS = np.arange(15, dtype=np.float32).reshape(3, 5) + 1


def full(**changes):
    return FullBoundTerms(**{**SHARED, "terms": TERMS, "x_0_squared_error": 0 * TERMS, **changes})


def stratified(t, inclusion, **changes):
    """Return the stratified terms that read TERMS at the times ``t``; 0 is padding."""
    t = np.array(t)
    terms = np.where(t > 0, TERMS[np.arange(3)[:, None], t - 1], 0.0)
    fields = {"terms": terms, "x_0_squared_error": 0 * terms, "offset": np.array([0.1, 0.8, 0.5])}
    return StratifiedBoundTerms(**{**SHARED, **fields, "t": t, "inclusion": np.array(inclusion), **changes})


def test_full_terms_become_bits_per_dim():
    """Rate is the sum of t > 1, distortion the term of t = 1, and the total has the prior as well."""
    values = full().values()
    nats = TERMS.astype(np.float64)
    np.testing.assert_allclose(values["distortion"], nats[:, 0] / NATS_PER_BIT_PER_DIM, rtol=1e-14)
    np.testing.assert_allclose(values["rate"], nats[:, 1:].sum(1) / NATS_PER_BIT_PER_DIM, rtol=1e-14)
    np.testing.assert_allclose(values["prior"], SHARED["prior"] / NATS_PER_BIT_PER_DIM, rtol=1e-14)
    parts = values["rate"] + values["distortion"] + values["prior"]
    np.testing.assert_array_equal(values["total"], parts)
    assert full().term_values().dtype == np.float64


def test_stratified_terms_are_weighted_by_their_probabilities():
    terms = stratified([[1, 4], [2, 0], [5, 3]], [1.0, 0.5, 0.25, 0.125, 0.8])
    expected = np.zeros((3, 5))
    expected[0, 0] = 1 / 1.0
    expected[0, 3] = 4 / 0.125
    expected[1, 1] = 7 / 0.5
    expected[2, 4] = 15 / 0.8
    expected[2, 2] = 13 / 0.25
    np.testing.assert_allclose(terms.term_values(), expected / NATS_PER_BIT_PER_DIM, rtol=1e-14)
    np.testing.assert_array_equal(terms.evaluated_per_step, [1, 1, 1, 1, 1])


def test_each_estimator_says_how_it_sampled():
    every, some = full(), stratified([[1, 4], [2, 0], [5, 3]], [0.5] * 5)
    assert (every.estimator, every.num_steps, some.estimator, some.num_steps) == ("full", 5, "stratified", 5)
    assert every.stratified_by is None
    np.testing.assert_array_equal(some.stratified_by, some.offset)
    np.testing.assert_array_equal(every.evaluated_per_step, [3] * 5)
    complete = stratified(np.tile(np.arange(1, 6), (3, 1)), np.ones(5))
    assert complete.stratified_by is None  # nothing was sampled
    np.testing.assert_allclose(complete.term_values(), every.term_values(), rtol=1e-14)


def test_entries_name_image_and_column_of_each_value():
    image, column, value = full().entries(TERMS)
    np.testing.assert_array_equal(TERMS[image, column], value)
    assert len(value) == 15 and value.dtype == np.float64
    terms = stratified([[1, 4], [2, 0], [5, 3]], [0.5] * 5)
    image, column, value = terms.entries(terms.terms)
    np.testing.assert_array_equal(image, [0, 0, 1, 2, 2])
    np.testing.assert_array_equal(column, [0, 3, 1, 4, 2])
    np.testing.assert_array_equal(TERMS[image, column], value)


def test_a_stratified_record_has_a_time_axis_of_its_own():
    """``inclusion`` runs over all steps, ``terms`` over the few evaluations: the lengths are independent."""
    terms = stratified([[1, 4], [2, 0], [5, 3]], np.ones(7))
    assert len(terms.inclusion) == 7
    with pytest.raises(ValueError, match="'evaluation'"):
        dataclasses.replace(terms, t=np.ones((3, 4), int))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("field", ["terms", "x_0_squared_error"])
def test_a_term_that_is_not_finite_names_image_and_time(field, value):
    bad = TERMS.copy()
    bad[1, 2] = bad[2, 0] = value
    message = "2 measured terms are not finite, the first for image 2 at t = 3"
    with pytest.raises(ValueError, match=message):
        full(**{field: bad}).values()
    broken = stratified([[1, 4], [2, 3], [5, 3]], [0.5] * 5)
    few = np.array([[1, 2], [3, value], [4, 5]])
    with pytest.raises(ValueError, match="1 measured terms are not finite, the first for image 2 at t = 3"):
        dataclasses.replace(broken, **{field: few}).values()


def test_padding_may_hold_anything():
    terms = stratified([[1, 4], [2, 0], [5, 3]], [0.5] * 5)
    padded = terms.terms.copy()
    padded[1, 1] = math.nan
    np.testing.assert_array_equal(dataclasses.replace(terms, terms=padded).term_values(), terms.term_values())


def test_a_prior_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="the prior term of an image is not finite"):
        full(prior=np.array([0.0, math.inf, 0.0])).values()


def test_names_say_estimator_chain_split_and_protocol():
    paper = PROTOCOLS["paper"]
    assert bound_name("test", paper) == "bound/full/test/paper"
    assert bound_name("train", paper, "stratified", 50) == "bound/stratified-50-steps/train/paper"
    assert bound_name("test", paper, paired=True) == "bound/full-paired/test/paper"
