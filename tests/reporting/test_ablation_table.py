"""Table 2: all six cells in the paper's order, whatever is stored of them."""

import math

import numpy as np
import pytest
from quality_examples import make_quality
from simulated_bounds import make_terms

from ddpm_eval.reporting.ablation_table import TABLE2_COLUMNS, AblationCell, ablation_table
from ddpm_eval.results.records import TrainingLog
from experiments.paper import published


def make_log(status="ok"):
    return TrainingLog(
        loss=np.ones(9),
        gradient_norm=np.ones(9),
        status=status,
        reason="",
        steps=9,
        images=9,
        seconds=1.0,
        parameters=10,
    )


def test_table_2_has_all_six_cells_in_the_papers_order():
    terms = make_terms([[1.0, 2.0], [2.0, 2.0], [3.0, 2.0]], prior=np.zeros(3))
    quality = make_quality(frechet_distance=(5.5, 5.0, 6.5), score=(3.0, 2.5, 3.25), score_std=0.125)
    cells = [
        AblationCell("eps", "mse", "fixed-large", make_log(), quality, terms),
        AblationCell("mu", "mse", "fixed-small", make_log("diverged")),
        AblationCell("eps", "vlb", "learned-range", make_log(), None, terms),
    ]
    complete = ablation_table(cells, published.table_2())
    table = complete[list(TABLE2_COLUMNS)]
    contract = (
        "prediction objective variance status score score_std "
        "frechet_distance frechet_distance_low frechet_distance_high "
        "bits_per_dim bits_per_dim_low bits_per_dim_high n_samples features paper_inception_score paper_fid"
    )
    assert list(table.columns) == contract.split()
    place = ["prediction", "objective", "variance"]
    keys = [tuple(row) for row in table[place].to_numpy()]
    assert keys == [tuple(row) for row in published.table_2()[place].to_numpy()]
    assert list(table["status"]) == ["missing", "missing", "diverged", "missing", "missing", "ok"]
    assert table["frechet_distance"].notna().tolist() == [False] * 5 + [True]
    assert table["bits_per_dim"].tolist()[3:] == pytest.approx([4.0, math.nan, 4.0], nan_ok=True)
    assert table["paper_fid"].tolist() == pytest.approx(
        [23.69, 13.22, math.nan, math.nan, 13.51, 3.17], nan_ok=True
    )
    last = complete.iloc[5]
    measured = ["score", "score_low", "score_high", "score_std"]
    measured += ["frechet_distance", "frechet_distance_low", "frechet_distance_high", "reference_distance"]
    assert last[measured].tolist() == [3.0, 2.5, 3.25, 0.125, 5.5, 5.0, 6.5, 0.5]
    assert (last["n_samples"], last["n_images"], last["features"]) == (512, 3, "digits-classifier")
    with pytest.raises(ValueError, match="distinct"):
        ablation_table([cells[0], cells[0]], published.table_2())
    with pytest.raises(ValueError, match="among"):
        ablation_table([AblationCell("x0", "mse", "fixed-large")], published.table_2())
