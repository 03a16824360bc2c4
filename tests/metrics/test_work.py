"""Work in one process and in memory: every item once, in order, with the progress of all."""

import numpy as np
import pytest

from ddpm_eval.metrics.work import SERIAL, SerialWork


def squares(numbers):
    return {"square": np.array(numbers) ** 2, "image_id": np.array(numbers)}


def test_items_are_computed_once_and_joined_in_their_order():
    seen = []

    def compute(item):
        seen.append(item)
        return squares(item)

    found = SERIAL.map("squares", "key", [[3, 1], [2], [5]], compute, [2, 1, 1])
    assert seen == [[3, 1], [2], [5]]
    np.testing.assert_array_equal(found["square"], [9, 1, 4, 25])
    np.testing.assert_array_equal(found["image_id"], [3, 1, 2, 5])


def test_nothing_is_remembered_between_two_works():
    """Their names and keys are for those who keep items."""
    first = SERIAL.map("squares", "key", [[1]], squares, [1])
    second = SERIAL.map("squares", "key", [[2]], squares, [1])
    assert (first["square"], second["square"]) == ([1], [4])


def test_progress_counts_what_items_report_and_then_their_cost():
    seen = []
    work = SerialWork(lambda name, done, total: seen.append((name, done, total)))

    def compute(item):
        if item == [2]:
            work.advance(3)
        return squares(item)

    work.map("squares", "key", [[1], [2]], compute, [10, 5])
    assert seen == [("squares", 10, 15), ("squares", 13, 15), ("squares", 15, 15)]


def test_work_whose_result_everybody_needs_shows_no_progress():
    work = SerialWork(lambda *event: pytest.fail("it was shown"))
    found = work.map("pilot", "key", [[1]], squares, [1], everywhere=True)
    np.testing.assert_array_equal(found["square"], [1])


def test_a_failure_is_handed_on():
    def fail(item):
        raise ValueError("no square")

    with pytest.raises(ValueError, match="no square"):
        SERIAL.map("squares", "key", [[1]], fail, [1])
