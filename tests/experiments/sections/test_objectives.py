"""What L and L_simple weight, and which terms of their models' bounds differ."""

from dataclasses import replace

import pandas as pd
from stored_results import cell_results, main_results, store_results

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.reporting.report_parts import Section
from ddpm_eval.results.bound_terms import bound_name
from experiments.paper.evidence import EPS_L
from experiments.paper.presets import cell_of
from experiments.sections.objectives import TITLE, section

FULL = bound_name("test", PROTOCOLS["paper"])


def test_the_terms_of_both_models_stand_beside_each_other(measured):
    found = section(measured)
    frame = pd.read_csv(measured.tables / "objectives.csv")
    assert frame["t"].tolist() == ["1", "2", "3-5", "6-10", "11-20"]
    assert found.text.startswith("Training on L_simple costs ")
    worst = frame.set_index("t")["difference_bits_per_dim"].idxmax()
    assert f"the largest loss is at t = {worst} (" in found.text
    assert {path.suffix for path in measured.figures.glob("objectives.*")} == {".svg", ".png", ".pdf", ".csv"}


def test_other_images_are_not_paired(empty):
    (of_l,) = [run for run in empty.runs if cell_of(run.spec) == EPS_L]
    results = main_results()
    store_results(empty.main, results)
    terms = results[FULL]
    store_results(of_l, {**cell_results(), FULL: replace(terms, image_id=terms.image_id + 1)})
    assert section(empty).text.startswith("The two bounds are of different images, so that")


def test_one_model_alone_is_no_comparison(empty):
    store_results(empty.main, main_results())
    assert section(empty) == Section(
        TITLE, "Not measured: the run eps, L, fixed variance is not trained yet."
    )
    assert not empty.report_folder.exists()
