"""Training curves by objective, and the bound over training of whatever weights."""

import pandas as pd
from stored_results import make_history, make_log, store_results

from ddpm_eval.results.bound_terms import BOUND_HISTORY
from experiments.sections.training_curves import section


def test_each_objective_has_its_figure_and_all_runs_one_table(measured):
    found = section(measured)
    assert [figure.stem.name for figure in found.figures] == [
        "training_mse",
        "training_vlb",
        "training_bound",
    ]
    runs = pd.read_csv(measured.figures / "training_mse.csv")["run"].drop_duplicates().tolist()
    assert runs == ["mu, MSE, fixed variance", "eps, MSE, fixed variance"]
    table = pd.read_csv(measured.tables / "training.csv")
    assert table["run"].tolist() == [
        *("mu-mse-fixed-large", "eps-mse-fixed-large"),
        *("mu-vlb-learned", "mu-vlb-fixed-large", "eps-vlb-learned", "eps-vlb-fixed-large"),
    ]
    assert [row[0] for row in found.tables[0].rows][:3] == [
        *("mu, MSE, fixed variance", "eps, MSE, fixed variance", "mu, L, learned variance"),
    ]
    assert list(table.columns) == ["run", "status", "updates", "images", "seconds", "parameters"]
    assert found.figures[0].caption == (
        "Training of the runs with objective MSE: block means of loss and gradient norm before clipping."
    )


def test_the_bound_over_training_is_drawn_though_the_weights_have_changed(empty):
    store_results(empty.main, {BOUND_HISTORY: make_history()}, "old")
    store_results(empty.main, {"training": make_log()}, "new")
    figure = section(empty).figures[-1]
    curve = pd.read_csv(figure.stem.with_suffix(".csv"))
    assert curve["update"].tolist() == [10, 20, 30]
    assert (curve["n_images"] == 6).all()
    assert figure.caption == (
        "The bound of the averaged weights over training; protocol paper: trained variance, x_0 clipped, "
        "tanh decoder, one draw; stratified estimator, 8 evaluations of each of the same 6 test images; 95% "
        "intervals over images."
    )


def test_nothing_is_shown_of_an_imported_runs_training(empty):
    log = make_log(status="imported", reason="imported from owner/name")
    store_results(empty.main, {"training": log})
    found = section(empty)
    assert found.text == "Not here: imported from owner/name."
    assert [*found.tables, *found.figures] == []
