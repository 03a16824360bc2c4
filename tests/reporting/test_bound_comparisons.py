"""Comparisons of bounds against differences by hand; paired intervals against unpaired ones."""

import math
from dataclasses import replace

import numpy as np
import pytest
from simulated_bounds import DIMENSIONS, NATS, make_terms, realistic, subsample

from ddpm_eval.protocol import PROTOCOLS, combine
from ddpm_eval.reporting.bound_comparisons import (
    baseline_table,
    differences_from_first,
    estimator_table,
    gap_table,
    paired_table,
    protocol_table,
    step_differences,
)
from ddpm_eval.reporting.bound_tables import split_table
from ddpm_eval.reporting.intervals import difference, mean_estimate
from ddpm_eval.results.records import Baseline


def test_gap_is_test_minus_train():
    train, test = make_terms(np.full((4, 3), 1.0), split="train"), make_terms(np.full((6, 3), 1.25))
    table = gap_table(train, test).set_index("quantity")
    np.testing.assert_allclose(table["gap_bits_per_dim"], [0.5, 0.25, 0.0, 0.75], atol=1e-12)
    np.testing.assert_allclose(table["gap_bits_per_dim_low"], table["gap_bits_per_dim_high"], atol=1e-9)
    assert (table["n_train"].iloc[0], table["n_test"].iloc[0]) == (4, 6)
    with pytest.raises(ValueError, match="different protocols"):
        gap_table(train, make_terms(np.ones((6, 3)), protocol=PROTOCOLS["paper"]))


def test_paired_differences_are_far_more_precise_than_the_values():
    """Of 1% of each term, with a part of 1e-3 that varies: the interval is of the differences alone."""
    rng = np.random.default_rng(23)
    first = realistic(200, rng, steps=30)
    lower = replace(first, terms=first.terms * (1.01 + 1e-3 * rng.standard_normal((200, 1))))
    table = paired_table(lower, first, ("bf16", "fp32")).set_index("quantity")
    splits = {"bf16": lower, "fp32": first}
    values = {name: split_table(terms).set_index("quantity") for name, terms in splits.items()}
    for name, split in values.items():
        np.testing.assert_allclose(table[f"{name}_bits_per_dim"], split["bits_per_dim"])
    difference = table["bf16_bits_per_dim"] - table["fp32_bits_per_dim"]
    np.testing.assert_allclose(table["difference"], difference, atol=1e-12)
    total, row = values["fp32"].loc["total"], table.loc["total"]
    assert row["difference_low"] < 0.01 * total["bits_per_dim"] < row["difference_high"]
    assert row["difference_high"] - row["difference_low"] < 0.02 * (total["high"] - total["low"])
    assert table.loc["prior", "difference"] == 0 and set(table["n_images"]) == {200}
    for other in (replace(first, image_id=first.image_id + 1), replace(first, protocol=PROTOCOLS["paper"])):
        with pytest.raises(ValueError, match="nothing is paired"):
            paired_table(first, other, ("a", "b"))


def three_models(rng, n=100):
    """A first model, one whose terms are 1% larger, and one that is worse at the decoder only."""
    first = realistic(n, rng, steps=30)
    larger = replace(first, terms=first.terms * 1.01)
    worse = first.terms.copy()
    worse[:, 0] += 0.1 * NATS * rng.uniform(0.5, 1.5, n)
    return {"first": first, "larger": larger, "worse decoder": replace(first, terms=worse)}


def test_models_are_compared_with_the_first_pair_by_pair_and_as_if_unpaired():
    found = three_models(np.random.default_rng(31))
    table = differences_from_first(found)
    assert list(table["run"]) == ["larger"] * 4 + ["worse decoder"] * 4
    for name, rows in table.groupby("run"):
        rows = rows.set_index("quantity")
        paired = paired_table(found[name], found["first"], ("a", "b")).set_index("quantity")
        for end in ("", "_low", "_high"):
            np.testing.assert_array_equal(rows[f"difference_bits_per_dim{end}"], paired[f"difference{end}"])
        totals = [mean_estimate(found[which].values()["total"]) for which in (name, "first")]
        unpaired = difference(*totals).estimate("bits/dim")
        total = rows.loc["total"]
        assert total["unpaired_bits_per_dim"] == pytest.approx(total["difference_bits_per_dim"], abs=1e-12)
        assert (total["unpaired_bits_per_dim_low"], total["unpaired_bits_per_dim_high"]) == unpaired[1:3]
        width = total["difference_bits_per_dim_high"] - total["difference_bits_per_dim_low"]
        assert total["times_narrower"] == pytest.approx((unpaired.high - unpaired.low) / width)
        assert total["times_narrower"] > 20
        assert math.isnan(rows.loc["prior", "times_narrower"])  # the priors are equal
    other = replace(found["larger"], image_id=found["larger"].image_id + 1)
    with pytest.raises(ValueError, match="nothing is paired"):
        differences_from_first({"first": found["first"], "other": other})


def test_a_difference_is_located_at_the_steps_where_it_arises():
    found = three_models(np.random.default_rng(32))
    table = step_differences(found)
    assert len(table) == 3 * 30 and list(table["t"].unique()) == list(range(1, 31))
    first, larger, worse = (rows.set_index("t") for _, rows in table.groupby("run", sort=False))
    columns = ("difference_bits_per_dim", "cumulated_bits_per_dim")
    assert all((first[f"{name}{end}"] == 0).all() for name in columns for end in ("", "_low", "_high"))
    np.testing.assert_allclose(
        larger["difference_bits_per_dim"], 0.01 * found["first"].term_values().mean(0), rtol=1e-9
    )
    assert worse.loc[1, "difference_bits_per_dim_low"] > 0.08
    assert (worse.loc[2:, "difference_bits_per_dim"].abs() < 1e-12).all()
    for name in ("larger", "worse decoder"):
        rows = differences_from_first(found).set_index(["run", "quantity"])
        total = rows.loc[(name, "total"), "difference_bits_per_dim"]  # the priors are equal
        last = table[(table["run"] == name) & (table["t"] == 30)].iloc[0]
        assert last["cumulated_bits_per_dim"] == pytest.approx(total, abs=1e-12)
    assert set(table["n_images"]) == {100}


def test_a_baselines_nats_become_bits_per_dim():
    terms = make_terms(np.full((5, 3), 1.5), prior=np.zeros(5))
    baseline = Baseline(
        image_id=np.arange(5),
        nll=np.full(5, 5 * NATS),
        bound=np.arange(4, 9) * NATS,
        split="test",
        variance="fixed-small",
        dimensions=DIMENSIONS,
        n_train=10,
    )
    table = baseline_table(terms, baseline)
    assert list(table["model"]) == ["this model, bound", "Gaussian, likelihood", "Gaussian, bound"]
    np.testing.assert_allclose(table["bits_per_dim"], [4.5, 5, 6], rtol=1e-12)
    np.testing.assert_allclose(table["high"] - table["low"], [0, 0, 2 * 2.7764 * (2.5 / 5) ** 0.5], atol=1e-3)
    assert set(table["n_images"]) == {5}


def test_protocol_table_pairs_images():
    """Other draws on the same images: the difference's interval is far narrower than the totals'."""
    rng = np.random.default_rng(16)
    first = realistic(100, rng, steps=30)
    twice = combine(PROTOCOLS["paper"], decoder="exact", draws=2).model_copy(update={"name": "paper"})
    shifted = replace(first, terms=first.terms * 1.01, protocol=twice, network_evaluations=6000)
    others = replace(first, image_id=first.image_id + 1)
    table = protocol_table([first, shifted, others], [0.486, 0.486, math.nan])
    assert list(table["protocol"]) == ["exact", "paper", "exact"]
    assert list(table["clip"]) == [False, True, False]
    assert list(table["draws"]) == [1, 2, 1]
    assert list(table["network_evaluations"]) == [3000, 6000, 3000]
    assert (table["variance"] == "fixed-large").all()
    row = table.iloc[1]
    assert row["difference_bits_per_dim"] == pytest.approx(
        row["total_bits_per_dim"] - table["total_bits_per_dim"][0]
    )
    wide = row["total_bits_per_dim_high"] - row["total_bits_per_dim_low"]
    assert row["difference_bits_per_dim_high"] - row["difference_bits_per_dim_low"] == pytest.approx(
        wide * 0.01 / 1.01, rel=1e-3
    )
    assert math.isnan(table["difference_bits_per_dim"][2])
    np.testing.assert_allclose(
        table["decoder_share"], table["distortion_bits_per_dim"] / table["total_bits_per_dim"]
    )


def test_the_difference_from_a_stratified_result_has_its_design():
    """Stratified terms differ from the full ones that they were drawn from only by their design."""
    rng = np.random.default_rng(24)
    full = realistic(200, rng, steps=50)
    part = subsample(full, 6, rng)
    first, second = protocol_table([part, full])["estimator"], protocol_table([part, full]).iloc[1]
    assert list(first) == ["stratified", "full"]
    paired = full.values()["total"] - part.values()["total"]
    ordered = paired[np.argsort(part.offset)]
    error = np.sqrt(np.sum(np.diff(ordered) ** 2) / (2 * 200 * 199))
    width = second["difference_bits_per_dim_high"] - second["difference_bits_per_dim_low"]
    assert width == pytest.approx(2 * 1.976 * error, rel=0.01)  # Student's t with 133 degrees of freedom


def test_estimator_table_lists_smaller_full_evaluations():
    rng = np.random.default_rng(17)
    full = realistic(64, rng, steps=50)
    part = subsample(full, 5, rng)
    table = estimator_table([full, part])
    assert list(table["n_images"]) == [64, 32, 16, 8, 64]
    assert list(table["network_evaluations"]) == [3200, 1600, 800, 400, part.network_evaluations]
    total = (full.terms.sum(1) + full.prior) / NATS
    np.testing.assert_allclose(table["standard_error"][:4], total.std(ddof=1) / np.sqrt([64, 32, 16, 8]))
    assert table["bits_per_dim"][2] == pytest.approx(total[:16].mean())
