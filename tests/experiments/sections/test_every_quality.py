"""Every quality figure of every run, in the order of Table 2, with each caveat once."""

import pandas as pd
from quality_examples import make_quality
from stored_results import make_log, store_results

from experiments.sections.every_quality import section


def test_all_runs_are_listed_in_the_order_of_table_2(measured):
    found = section(measured)
    table = pd.read_csv(measured.tables / "quality.csv")
    assert table["run"].drop_duplicates().tolist() == [run.label for run in measured.runs]
    assert found.text == ""
    assert found.tables[0].caption == (
        "Sample quality of every run; 70 samples. The reference distance is that of the test to the training "
        "images."
    )


def test_caveats_are_said_once(empty):
    for run, caveat in zip(empty.runs, ["biased", "biased", "few"], strict=False):
        store_results(run, {"training": make_log(), "quality": make_quality(caveat=caveat)})
    assert section(empty).paragraphs == ["biased", "few"]
