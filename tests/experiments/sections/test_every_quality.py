"""Every quality figure of every run, in the order of Table 2, with each caveat once."""

from dataclasses import replace

import numpy as np
import pandas as pd
from quality_examples import make_coverage, make_quality
from stored_results import make_log, store_results

from experiments.sections.every_quality import section


def test_all_runs_are_listed_in_the_order_of_table_2(measured):
    found = section(measured)
    table = pd.read_csv(measured.tables / "quality.csv")
    assert table["run"].drop_duplicates().tolist() == [run.label for run in measured.runs]
    assert found.text == ""
    assert found.tables[0].caption == (
        "Sample quality of every run; 70 samples. The reference distance is that of the test to the training "
        "images. Density and coverage (Naeem et al. 2020) are of 5 neighbours."
    )
    main = table[table["run"] == measured.main.label].set_index("metric")
    assert main.loc[["density", "coverage"], "value"].tolist() == [0.9, 0.6]


def test_of_several_seeds_the_first_is_named(measured):
    several = replace(measured, replicates=(measured,))
    assert section(several).tables[0].caption.startswith("Sample quality of every run of seed 0; 70 samples.")


def test_the_classes_of_the_main_runs_samples_are_shown(measured):
    found = section(measured)
    shown = pd.read_csv(measured.tables / "classes.csv")
    assert shown["n_assigned"].tolist() == [40, 40, 75, 25]
    assert found.tables[1].rows[0][0] == "3" and len(found.tables[1].rows) == 2
    assert "80 samples" in found.tables[1].caption and "chi-squared" in found.tables[1].caption
    assert found.figures[0].stem == measured.figures / "classes"
    assert (measured.figures / "classes.svg").exists()


def test_without_classes_there_is_neither_their_table_nor_their_figure(empty):
    none = np.empty(0, np.int64)
    bare = make_coverage(class_label=none, class_counts=none, reference_counts=none)
    store_results(empty.main, {"training": make_log(), "quality": make_quality(), "coverage": bare})
    found = section(empty)
    assert len(found.tables) == 1 and not found.figures


def test_caveats_are_said_once(empty):
    for run, caveat in zip(empty.runs, ["biased", "biased", "few"], strict=False):
        store_results(run, {"training": make_log(), "quality": make_quality(caveat=caveat)})
    assert section(empty).paragraphs == ["biased", "few"]
