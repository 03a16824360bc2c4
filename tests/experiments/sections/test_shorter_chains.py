"""Bits/dim against the number of steps: for each variance the whole chain, then the shorter ones."""

import pandas as pd
from stored_results import STEPS, bounds, make_log, store_results

from experiments.sections.shorter_chains import TITLE, section


def test_each_variance_has_its_whole_chain_and_the_shorter_ones(measured):
    found = section(measured)
    table = pd.read_csv(measured.tables / "chains.csv")
    rows = list(zip(table["variance"], table["steps"], table["estimator"], strict=True))
    assert rows == [
        *[("fixed-large", STEPS, "full"), ("fixed-large", 10, "stratified")],
        *[("fixed-small", STEPS, "full"), ("fixed-small", 10, "stratified")],
        *[("optimal", STEPS, "full"), ("optimal", 10, "stratified")],
    ]
    assert list(table.columns) == [
        *("variance", "steps", "total_bits_per_dim", "total_bits_per_dim_low", "total_bits_per_dim_high"),
        *("estimator", "network_evaluations", "n_images"),
    ]
    assert found.figures[0].caption == found.tables[0].caption


def test_whole_chains_alone_are_no_comparison(empty):
    whole = {name: terms for name, terms in bounds().items() if name.startswith("bound/full/")}
    store_results(empty.main, {"training": make_log(), **whole})
    assert section(empty).title == TITLE
    assert not empty.report_folder.exists()
