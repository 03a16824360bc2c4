"""Table 2 shows all six cells, says how each was measured, and which diverged."""

import numpy as np
import pandas as pd
import pytest
from stored_results import cell_results, make_log, store_results

from ddpm_eval.reporting.ablation_table import TABLE2_COLUMNS
from experiments.sections.table2 import section


def test_all_six_cells_are_shown_with_the_papers_numbers(measured):
    found = section(measured)
    table = pd.read_csv(measured.tables / "table2.csv")
    assert list(table.columns) == list(TABLE2_COLUMNS)
    assert set(table["status"]) == {"ok"}
    assert table["paper_fid"].dropna().tolist() == [23.69, 13.22, 13.51, 3.17]
    assert found.text == ""
    caption = found.tables[0].caption
    assert caption.startswith(
        "Ablation of prediction, objective and variance on digits; 70 samples. Bits/dim: test set, protocol "
        "paper, 95% intervals over images (all terms of 1 cells, the stratified estimator of 5)."
    )
    assert caption.endswith("another data set, shown for orientation only.")
    assert found.figures[0].caption.endswith(caption)


def test_what_a_narrow_page_may_hide_comes_last_or_is_said_once(measured):
    (table,) = section(measured).tables
    last = ("std over splits", "n (samples)", "n (images)", "features", "reference distance")
    shown = [name for name in table.header if name in last]
    assert table.header[len(table.header) - len(shown) :] == tuple(shown)
    assert {*shown, *(name for name, _ in table.constants)} >= set(last)


def test_cells_that_diverged_are_results(empty):
    first = empty.runs[0]
    store_results(first, {"training": make_log(status="diverged", reason="loss is nan at update 7")})
    found = section(empty)
    assert found.text == "Cells that diverged are results, as in the paper: mu/vlb: loss is nan at update 7."
    status = pd.read_csv(empty.tables / "table2.csv")["status"].tolist()
    assert status == ["diverged", *["missing"] * 5]
    assert list(found.figures) == []  # nothing was measured
    assert (
        "sample quality not measured (without labels it needs --inception-weights)" in found.tables[0].caption
    )


def test_rows_say_where_gradients_were_clipped(empty):
    norms = np.array([31.0] * 30)
    store_results(empty.runs[0], {**cell_results(), "training": make_log(gradient_norm=norms)})
    store_results(empty.main, cell_results())
    found = section(empty)
    assert found.text == (
        "Gradients were clipped at norm 1 in most updates of mu, L, learned (100%, median norm 31)."
    )
    (table,) = found.tables
    column = table.header.index("clipped updates")
    assert [row[column] for row in table.rows] == ["1", "--", "--", "--", "--", "0"]


@pytest.mark.parametrize("left_out", ["quality", "training"])
def test_a_cell_is_missing_until_everything_is_measured(empty, left_out):
    results = cell_results()
    store_results(empty.main, {name: record for name, record in results.items() if name != left_out})
    section(empty)
    if left_out == "training":  # without it the weights of the results are not known
        assert not empty.report_folder.exists()
    else:
        assert pd.read_csv(empty.tables / "table2.csv")["status"].tolist() == ["missing"] * 6
