"""Density and coverage beside the other figures, and the classes of samples against the data's."""

import numpy as np
import pytest
from quality_examples import make_coverage, make_quality
from scipy import stats

from ddpm_eval.reporting.coverage_tables import class_difference, class_matrix, class_table, coverage_table
from ddpm_eval.reporting.intervals import share_interval
from ddpm_eval.reporting.quality_tables import quality_table


def test_density_and_coverage_have_the_columns_of_the_other_figures():
    table = coverage_table({"a": make_coverage(), "b": make_coverage(n_samples=40)})
    assert list(table) == list(quality_table({"a": make_quality()}))
    assert table.values.tolist()[:2] == [
        ["a", "density", 0.9, 0.8, 1.0, 80, "digits-classifier", "train"],
        ["a", "coverage", 0.6, 0.5, 0.7, 80, "digits-classifier", "train"],
    ]
    assert table["n"].tolist() == [80, 80, 40, 40]


def test_shares_of_the_classes_have_wilson_intervals():
    table = class_table(make_coverage())
    assert table["images"].tolist() == ["samples"] * 2 + ["training images"] * 2
    assert table["class"].tolist() == [3, 7, 3, 7]
    assert table["share"].tolist() == [0.5, 0.5, 0.75, 0.25]
    assert table.loc[3, ["share_low", "share_high"]].tolist() == list(share_interval(0.25, 100))
    matrix = class_matrix(table)
    assert matrix["class"].tolist() == [3, 7]
    assert matrix["share_of_samples"].tolist() == [0.5, 0.5]
    assert matrix["share_of_training_images"].tolist() == [0.75, 0.25]
    assert matrix["share_of_samples_low"].tolist() == [share_interval(0.5, 80)[0]] * 2


def test_the_difference_of_the_classes_is_a_distance_and_a_test():
    """2 x 2: (ad - bc)^2 N / (products of the margins), by hand."""
    statistic = (40 * 25 - 40 * 75) ** 2 * 180 / (80 * 100 * 115 * 65)
    p = stats.chi2.sf(statistic, 1)
    assert class_difference(make_coverage()) == (
        "Total variation distance of the two distributions: 0.250; chi-squared test that they are equal: "
        f"{statistic:.1f} on 1 degrees of freedom, p = {p:.2g}."
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"class_counts": [78, 2], "reference_counts": [97, 3]}, "(a class has few images: p is rough)."),
        ({"class_counts": [80, 0], "reference_counts": [100, 0]}, "All images are of one class."),
        ({"class_counts": [0, 40, 40], "reference_counts": [0, 75, 25]}, "on 1 degrees of freedom"),
    ],
)
def test_rare_and_absent_classes_are_said(counts, expected):
    arrays = {name: np.array(values) for name, values in counts.items()}
    found = make_coverage(**arrays, class_label=np.arange(len(arrays["class_counts"])))
    assert expected in class_difference(found)
