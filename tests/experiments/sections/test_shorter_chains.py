"""Bits/dim against the number of steps: for each variance the whole chain, then the shorter ones."""

import pandas as pd
from stored_results import STEPS, bounds, make_log, store_results

from experiments.sections.shorter_chains import TITLE, _found, section


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
    lowest = table.loc[table["total_bits_per_dim"].idxmin()]
    assert found.text.startswith(
        f"The lowest bound is {lowest['total_bits_per_dim']:.3g} bits/dim, of {lowest['steps']} steps, "
        f"{lowest['variance']}."
    )


def test_it_is_said_why_fewer_steps_or_another_variance_can_be_lower():
    rows = [("optimal", 20, 3.0), ("optimal", 10, 3.5), ("fixed-large", 20, 3.3), ("fixed-large", 10, 3.1)]
    frame = pd.DataFrame(rows, columns=["variance", "steps", "total_bits_per_dim"])
    text = _found(frame)
    assert "Under fixed-large a shorter chain has a lower bound than the whole one: each chain is" in text
    assert "At 10 steps another variance than the optimal one is lower: it is fitted to training" in text
    plain = _found(frame.assign(total_bits_per_dim=[3.0, 3.1, 3.3, 3.5]))
    assert plain == "The lowest bound is 3 bits/dim, of 20 steps, optimal."


def test_a_variance_whose_whole_chain_was_not_measured_is_compared_with_no_other():
    rows = [("fixed-large", 10, 3.0), ("fixed-small", 20, 3.3), ("fixed-small", 10, 3.1)]
    text = _found(pd.DataFrame(rows, columns=["variance", "steps", "total_bits_per_dim"]))
    assert text.startswith("The lowest bound is 3 bits/dim, of 10 steps, fixed-large. Under fixed-small a ")


def test_whole_chains_alone_are_no_comparison(empty):
    whole = {name: terms for name, terms in bounds().items() if name.startswith("bound/full/")}
    store_results(empty.main, {"training": make_log(), **whole})
    assert section(empty).title == TITLE
    assert not empty.report_folder.exists()
