"""The split, Table 4, the baseline and the figures are of one bound and say which."""

import numpy as np
import pandas as pd
import pytest
from simulated_bounds import make_terms
from stored_results import STEPS, cell_results, main_results, make_simple_codes, store_results

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results.bound_terms import bound_name
from experiments.sections.bound_split import section

HOW = (
    "digits test set, n = 12 images, protocol paper: trained variance, x_0 clipped, tanh decoder, one draw, "
    "all terms, 95% intervals over images"
)


def test_tables_and_figures_are_of_the_test_bound_under_protocol_paper(measured):
    found = section(measured)
    assert [table.stem.name for table in found.tables] == ["split", "table4", "baseline"]
    assert [figure.stem.name for figure in found.figures] == ["rate_distortion", "bits", "terms"]
    assert all(HOW in part.caption for part in (*found.tables[:2], *found.figures))
    split = pd.read_csv(measured.tables / "split.csv").set_index("quantity")
    expected = measured.main.bound("test", PROTOCOLS["paper"]).values()
    for quantity, values in expected.items():
        np.testing.assert_allclose(split.loc[quantity, "bits_per_dim"], values.mean(), rtol=1e-12)
    assert split["paper_bits_per_dim"].dropna().tolist() == [1.78, 1.97, 3.75]
    assert len(pd.read_csv(measured.tables / "table4.csv")) == 10


def test_latex_of_table_4_counts_the_steps_as_the_paper_does(measured):
    section(measured)
    lines = (measured.tables / "table4.tex").read_text().splitlines()
    assert lines[lines.index(r"\midrule") - 1] == (
        r"Reverse process time ($T - t + 1$) & Rate (bits/dim) & Distortion (RMSE, 0--255) & "
        r"Rate & Distortion \\"
    )
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert [line.split(" & ")[0] for line in body] == [str(step) for step in range(20, 0, -2)]
    assert all(line.count(" & ") == 4 for line in body)


def test_the_table_of_baselines_lists_codes_that_know_no_image(measured):
    section(measured)
    table = pd.read_csv(measured.tables / "baseline.csv").set_index("model")
    assert list(table.index) == [
        *("this model, bound", "Gaussian, likelihood", "Gaussian, bound"),
        *("uniform over the 17 levels that occur", "one histogram", "a histogram per pixel"),
        "PNG, all images as one",
    ]
    assert table.loc["PNG, all images as one", "bits_per_dim"] == 8 * 300 / (12 * 64)
    assert np.isnan(table.loc["PNG, all images as one", "low"])
    assert "(AVIF is not exact)" in section(measured).tables[2].caption


@pytest.mark.parametrize(("shift", "beaten"), [(0.0, False), (30.0, True)])
def test_it_is_said_which_baselines_the_model_does_not_beat_and_why(empty, shift, beaten):
    codes = make_simple_codes()
    names = ("uniform", "histogram", "pixel_histograms", "coded_bytes")
    higher = {name: getattr(codes, name) + shift * (100 if name == "coded_bytes" else 1) for name in names}
    store_results(empty.main, {**main_results(), "simple-codes": make_simple_codes(**higher)})
    text = section(empty).text
    if beaten:
        assert text == ""
    else:
        assert text.startswith("On digits the model's bound (") and "a histogram per pixel (2.5)" in text
        assert "Its images have 17 of 256 levels only" in text
    store_results(empty.main, {"simple-codes": make_simple_codes(levels=256)}, created="9999")
    assert "levels only" not in section(empty).text


def test_the_mean_image_is_drawn_beside_rate_and_distortion(measured):
    assert (
        section(measured).figures[0].caption.endswith("Dotted: the mean training image as the estimate (66).")
    )


def test_the_terms_are_drawn_above_the_floor_of_the_variance(measured):
    section(measured)
    terms = pd.read_csv(measured.figures / "terms.csv")
    assert len(terms) == STEPS
    # the fixed-large variance of these tables is twice the posterior one
    floor = 0.5 * (0.5 - 1 - np.log(0.5)) / np.log(2)
    np.testing.assert_allclose(terms["floor_bits_per_dim"], [0, *[floor] * (STEPS - 1)], rtol=1e-9)


def test_the_stratified_bound_stands_in_for_the_full_one(empty):
    store_results(empty.main, cell_results())
    found = section(empty)
    assert [table.stem.name for table in found.tables] == ["split", "table4"]  # no baseline is stored
    assert pd.read_csv(empty.figures / "terms.csv")["floor_bits_per_dim"].isna().all()  # nor a schedule


def test_table_4_is_of_all_terms_of_fewer_images_and_the_split_of_all_images(empty):
    name = bound_name("test", PROTOCOLS["paper"])
    few = make_terms([[1.0] * STEPS] * 5, protocol=PROTOCOLS["paper"])
    store_results(empty.main, {**cell_results(), name: few})
    split, table4 = section(empty).tables
    assert pd.read_csv(empty.tables / "split.csv")["n_images"].tolist() == [12] * 4
    assert set(pd.read_csv(empty.tables / "table4.csv")["n_images"]) == {5}
    assert "n = 12 images" in split.caption and "the stratified estimator" in split.caption
    assert "n = 5 images" in table4.caption and "of fewer images than the split" in table4.caption
    assert set(pd.read_csv(empty.figures / "rate_distortion.csv")["n_distortion"]) == {5}
