"""The command's table and verdict, and the choice of checks."""

import pandas as pd
import pytest
import torch

from experiments import validate
from experiments.validation_row import Row


def test_only_selects_by_part_of_a_name_and_refuses_none():
    said = []
    text, passed = validate.run("frech", said.append)
    assert passed and text.endswith("all 3 rows passed")
    assert said == ["checking frechet"]
    with pytest.raises(
        ValueError, match=r"no check has 'fid' in its name \(there are bound, optimal-variance"
    ):
        validate.run("fid", said.append)


def test_a_failed_row_is_named(monkeypatch):
    rows = [Row("good", "1", 1.0, 1.0, 0.5, 2.0), Row("bad", "1", 1.0, 9.0, 1.0, 4.5)]
    monkeypatch.setattr(validate, "CHECKS", {"both": lambda models: rows})
    text, passed = validate.run(None, lambda _: None)
    assert not passed and text.endswith("\nFAILED: bad")


def test_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        validate.validation_rows("frechet")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_table_has_a_row_each():
    rows = [Row("a", "1", 1.0, 1.0, 0.5, 2.0), Row("b", "nats", 1.0, 9.0, 1.0, 4.5)]
    frame = validate.validation_table(rows)
    columns = [
        "quantity",
        "unit",
        "measured",
        "exact",
        "difference_in_standard_errors",
        "tolerance",
        "passed",
    ]
    assert list(frame.columns) == columns
    assert frame["passed"].tolist() == [True, False]
    assert frame["difference_in_standard_errors"].tolist() == [0.0, -8.0]
    assert isinstance(frame, pd.DataFrame)
