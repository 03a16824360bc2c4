"""One model under every protocol: the paper's first, floors of fixed variances, splits and estimators."""

import numpy as np
import pandas as pd
from stored_results import STEPS, bounds, make_log, store_results

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results.bound_terms import bound_name
from experiments.sections.protocol_comparison import section


def test_rows_are_the_stored_protocols_the_papers_first(measured):
    section(measured)
    table = pd.read_csv(measured.tables / "protocols.csv")
    assert table["protocol"].tolist() == [
        *("paper", "exact", "exact+fixed-small", "exact+optimal", "paper+fixed-small", "paper+optimal")
    ]
    assert table["difference_bits_per_dim"].tolist() == [0] * 6  # all are of the same made-up terms
    assert table["split"].unique().tolist() == ["test"]


def test_only_fixed_variances_have_a_floor(measured):
    section(measured)
    floors = pd.read_csv(measured.tables / "protocols.csv").set_index("protocol")["floor_bits_per_dim"]
    large = (STEPS - 1) * 0.5 * (0.5 - 1 - np.log(0.5)) / np.log(2)
    np.testing.assert_allclose(floors[["paper", "exact"]], large, rtol=1e-9)
    np.testing.assert_allclose(floors[["paper+fixed-small", "exact+fixed-small"]], 0, atol=1e-12)
    assert floors[["paper+optimal", "exact+optimal"]].isna().all()


def test_test_and_training_images_are_compared(measured):
    found = section(measured)
    assert found.tables[1].caption == "Training against test images of digits, protocol paper, n = 8 and 12."
    gap = pd.read_csv(measured.tables / "gap.csv")
    assert (gap["n_train"].iloc[0], gap["n_test"].iloc[0]) == (8, 12)


def test_estimators_are_compared_at_sizes_below_the_chains_length(measured):
    (figure,) = section(measured).figures
    frame = pd.read_csv(figure.stem.with_suffix(".csv"))
    evaluations = frame.loc[frame["estimator"] == "stratified", "network_evaluations"].tolist()
    assert len(evaluations) == 3  # of 3, 5 and 10 evaluations per image; 20 would be all of the chain
    assert evaluations == sorted(evaluations)


def test_what_is_not_stored_is_not_compared(empty):
    exact = bound_name("test", PROTOCOLS["exact"])
    store_results(empty.main, {"training": make_log(), exact: bounds()[exact]})
    found = section(empty)
    assert [table.stem.name for table in found.tables] == ["protocols"]
    assert found.figures == []
