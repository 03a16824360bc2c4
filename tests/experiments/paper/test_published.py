"""The published numbers against each other."""

import pytest

from experiments.paper import published


def test_published_numbers_are_consistent():
    """The paper prints the same results in its text and in Tables 1, 2 and 4, to different precision."""
    split = published.SPLIT_BITS_PER_DIM
    first, second = published.table_1().set_index("model"), published.table_2()
    assert split["rate"] + split["distortion"] == pytest.approx(split["total"])
    assert split["total"] == first.loc["DDPM (L_simple)", "nll_test_bits_per_dim"]
    assert round(published.table_4()["rate_bits_per_dim"][0], 2) == split["rate"]
    assert round(published.table_4()["rmse_255"][0], 2) == published.RMSE_255
    for row, model in ((5, "DDPM (L_simple)"), (4, "DDPM (L, fixed isotropic Sigma)")):
        for column in ("inception_score", "inception_score_std", "fid"):
            assert second[column][row] == first.loc[model, column]
    assert (published.table_4()[["rate_bits_per_dim"]].diff().dropna() < 0).all(axis=None)
    assert (published.table_4()[["rmse_255"]].diff().dropna() > 0).all(axis=None)
    for table in (published.table_1(), published.table_2(), published.table_3(), published.table_4()):
        assert table["source"].str.startswith("arXiv:2006.11239").all()
