"""The split, Table 4, the baseline and the figures are of one bound and say which."""

import numpy as np
import pandas as pd
from stored_results import STEPS, cell_results, store_results

from ddpm_eval.protocol import PROTOCOLS
from experiments.sections.bound_split import section

HOW = (
    "digits test set, n = 12 images, protocol paper: trained variance, x_0 clipped, tanh decoder, one draw, "
    "95% intervals over images"
)


def test_tables_and_figures_are_of_the_test_bound_under_protocol_paper(measured):
    found = section(measured)
    assert [table.stem.name for table in found.tables] == ["split", "table4", "baseline"]
    assert [figure.stem.name for figure in found.figures] == ["rate_distortion", "terms"]
    assert all(HOW in part.caption for part in (*found.tables[:2], *found.figures))
    split = pd.read_csv(measured.tables / "split.csv").set_index("quantity")
    expected = measured.main.bound("test", PROTOCOLS["paper"]).values()
    for quantity, values in expected.items():
        np.testing.assert_allclose(split.loc[quantity, "bits_per_dim"], values.mean(), rtol=1e-12)
    assert split["paper_bits_per_dim"].dropna().tolist() == [1.78, 1.97, 3.75]
    assert len(pd.read_csv(measured.tables / "table4.csv")) == 10


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
