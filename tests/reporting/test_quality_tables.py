"""Which numbers of which record the tables of sample quality show."""

import math

import numpy as np
from quality_examples import make_curve, make_quality

from ddpm_eval.reporting.intervals import share_interval
from ddpm_eval.reporting.quality_tables import (
    memorisation_table,
    quality_matrix,
    quality_over_steps,
    quality_over_time,
    quality_table,
    table1,
)
from ddpm_eval.results.fields import Estimate, array_fields
from ddpm_eval.results.records import Neighbours
from experiments.paper import published


def test_quality_table_leaves_out_what_was_not_asked_for():
    qualities = {
        "a": make_quality(kid=(math.nan,) * 3),
        "b": make_quality(score=(9.0, 8.5, 9.75)),
        "c": make_quality(n_test=0),
    }
    table = quality_table(qualities)
    assert "kid" not in set(table.loc[table["run"] == "a", "metric"])
    row = table[(table["run"] == "b") & (table["metric"] == "score")].iloc[0]
    assert (row["value"], row["low"], row["high"]) == (9.0, 8.5, 9.75)
    assert (row["n"], row["features"], row["reference"]) == (512, "digits-classifier", "train")
    assert set(table.loc[table["metric"] == "reference_distance", "n"]) == {360}
    accuracy = table[table["metric"] == "classifier_test_accuracy"].iloc[0]
    assert (accuracy["low"], accuracy["high"]) == share_interval(0.5, 360)
    assert "reference_distance" not in set(table.loc[table["run"] == "c", "metric"])
    metrics = ["frechet_distance", "frechet_infinite", "score", "kid", "precision", "recall"]
    metrics += ["mean_confidence", "reference_distance", "classifier_test_accuracy"]
    assert list(table.loc[table["run"] == "b", "metric"]) == metrics


def test_the_accuracy_of_a_classifier_is_of_the_images_that_it_was_tested_on():
    qualities = {
        "of others": make_quality(n_test=360, n_classifier_test=288),
        "without test images": make_quality(n_test=0, n_classifier_test=288),
        "of an earlier version": make_quality(n_test=360, n_classifier_test=0),
    }
    table = quality_table(qualities)
    rows = table[table["metric"] == "classifier_test_accuracy"].set_index("run")
    assert rows["n"].to_dict() == {"of others": 288, "without test images": 288, "of an earlier version": 360}
    for row in rows.itertuples():
        assert (row.low, row.high) == share_interval(0.5, row.n)
    neither = quality_table({"": make_quality(n_test=0, n_classifier_test=0)})
    assert "classifier_test_accuracy" not in set(neither["metric"])


def test_the_matrix_has_the_same_numbers_in_a_row_for_each_run():
    table = quality_table({"a": make_quality(kid=(math.nan,) * 3), "b": make_quality()})
    matrix = quality_matrix(table).set_index("run")
    assert list(matrix.index) == ["a", "b"]
    for row in table.itertuples():
        shown = matrix.loc[row.run, [row.metric, f"{row.metric}_low", f"{row.metric}_high"]].astype(float)
        np.testing.assert_array_equal(shown, [row.value, row.low, row.high])
    assert math.isnan(matrix.loc["a", "kid"])
    assert set(matrix["n_samples"]) == {512}


def test_quality_over_time_counts_reverse_steps_as_table_4_does():
    table = quality_over_time(make_curve("t", [1000, 901, 1]), 1000)
    assert table["reverse_steps"].tolist() == [1, 100, 1000] and table["t"].tolist() == [1000, 901, 1]
    assert table["score_high"].tolist() == [1002, 903, 3] and set(table["n_samples"]) == {70}


def test_quality_over_steps_lists_each_method():
    table = quality_over_steps([make_curve("steps", [10, 1000]), make_curve("steps", [20], "ddim")])
    assert list(zip(table["method"], table["steps"], strict=True)) == [
        ("ancestral", 10),
        ("ancestral", 1000),
        ("ddim", 20),
    ]
    assert table["seconds_per_image"].tolist() == [0.01, 1.0, 0.02]
    assert table["frechet_distance_low"].tolist() == [11, 1001, 21]


def test_memorisation_table_pairs_each_space_with_its_distances():
    arrays = {f.name: np.zeros([2] * len(f.metadata["dims"])) for f in array_fields(Neighbours)}
    arrays["pixel_distance"] = np.array([[3.0, 9.0], [5.0, 9.0]])
    arrays["feature_distance"] = np.array([[1.0, 2.0], [1.5, 2.0]])
    arrays["held_out_pixel_distance"] = np.array([7.0, 9.0])
    found = Neighbours(
        **arrays,
        pixel_memorisation=Estimate(0.5, 0.375, 0.625, "1"),
        feature_memorisation=Estimate(0.75, 0.625, 1.0, "1"),
        n_samples=12,
        n_train=30,
        n_held_out=14,
        mirrored=False,
        features="digits-classifier",
        weights_digest="",
    )
    table = memorisation_table(found).set_index("space")
    assert table.loc["pixel", ["median_distance", "median_held_out_distance"]].tolist() == [4.0, 8.0]
    assert table.loc["feature", "median_distance"] == 1.25
    memorisation = table[["memorisation", "memorisation_low", "memorisation_high"]]
    assert memorisation.loc["pixel"].tolist() == [0.5, 0.375, 0.625]
    assert memorisation.loc["feature"].tolist() == [0.75, 0.625, 1.0]
    assert table.loc["pixel", ["unit", "n_samples", "n_held_out"]].tolist() == ["8-bit levels", 12, 14]


def test_table_1_says_of_each_row_what_it_was_measured_with():
    ours = {"model": "ours", "data": "digits", "conditional": False, "features": "digits-classifier"}
    ours |= {"score": 6.0, "test_bits_per_dim": 4.8, "is_bound": True}
    table = table1([ours], published.table_1()).set_index("model")
    assert len(table) == 1 + len(published.table_1())
    columns = ["data", "features", "score", "test_bits_per_dim"]
    assert table.loc["ours", columns].tolist() == ["digits", "digits-classifier", 6, 4.8]
    paper = table.loc["DDPM (L_simple)"]
    columns = ["data", "features", "score", "frechet_distance"]
    assert paper[columns].tolist() == ["CIFAR-10", "Inception", 9.46, 3.17]
    assert paper[["test_bits_per_dim", "train_bits_per_dim", "is_bound"]].tolist() == [3.75, 3.72, True]
    assert table.loc["BigGAN", "is_bound"] is None  # of no number
