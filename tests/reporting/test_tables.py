"""What a table's cells and files hold."""

import math

import numpy as np
import pandas as pd
import pytest

from ddpm_eval.reporting.tables import format_estimate, heading, write_table


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (3.7512, 3.7106, 3.7894, "3.751 [3.711, 3.789]"),
        (3.75, 3.61, 3.89, "3.75 [3.61, 3.89]"),
        (1161.4, 1080.1, 1265.2, "1161 [1080, 1265]"),
        (7.4e-6, 7.35e-6, 7.45e-6, "7.400e-06 [7.350e-06, 7.450e-06]"),
        (-0.009, -0.082, 0.066, "-0.009 [-0.082, 0.066]"),
        (0.5, math.nan, math.nan, "0.5"),
        (2.0, 2.0, 2.0, "2"),
        (math.nan, math.nan, math.nan, "--"),
    ],
)
def test_estimates_are_rounded_to_their_interval(value, low, high, text):
    assert format_estimate(value, low, high) == text


def test_a_table_keeps_raw_numbers_in_its_csv_and_joins_intervals_elsewhere(ablation, tmp_path):
    table = write_table(ablation, tmp_path / "tables" / "table2", "Numbers of 50% & more_or_less.")
    pd.testing.assert_frame_equal(
        pd.read_csv(
            tmp_path / "tables" / "table2.csv",
            dtype={"n_samples": "Int64"},
            keep_default_na=False,
            na_values=[""],
        ),
        ablation.replace({"features": {"": np.nan}}),
        check_dtype=False,
    )
    assert table.header[3:8] == ("status", "score", "Frechet distance", "bits/dim", "reference distance")
    assert table.header[-1] == "paper (CIFAR-10): FID"
    assert table.rows[0][4:] == (
        "3.0 [2.0, 4.0]",
        "10.0 [9.0, 12.0]",
        "3.75 [3.50, 4.12]",
        "5",
        "512",
        "digits-classifier",
        "23.69",
    )
    assert table.rows[2][3:7] == ("diverged", "--", "--", "--")
    lines = (tmp_path / "tables" / "table2.md").read_text().splitlines()
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == list(table.rows[0])
    assert "Numbers of 50% & more_or_less." in lines


def test_pipes_do_not_break_a_markdown_row(tmp_path):
    write_table(pd.DataFrame({"name": ["a|b"], "x": [1.0]}), tmp_path / "t", "c")
    assert (tmp_path / "t.md").read_text().splitlines()[2] == r"| a\|b | 1 |"


@pytest.mark.parametrize(
    ("features", "expected"),
    [("inception-v3-compat", ("IS", "FID")), ("digits-classifier", ("score", "Frechet distance"))],
)
def test_only_inception_gives_fid_and_is(features, expected, tmp_path):
    frame = pd.DataFrame({"score": [1.0], "frechet_distance": [2.0], "features": [features]})
    assert write_table(frame, tmp_path / "t", "c").header[:2] == expected


def test_mixed_extractors_are_never_called_fid(tmp_path):
    frame = pd.DataFrame(
        {"frechet_distance": [2.0, 3.0], "features": ["inception-v3-compat", "digits-classifier"]}
    )
    assert write_table(frame, tmp_path / "t", "c").header[0] == "Frechet distance"


def test_a_failed_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    frame = pd.DataFrame({"x": [1.0]})
    write_table(frame, tmp_path / "t", "first")

    def fail(_frame, path, **_options):
        path.write_text("half of i")
        raise OSError("no space left")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(ValueError, match=r"cannot write .*t\.csv.*no space left"):
        write_table(frame * 2, tmp_path / "t", "second")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.md", "t.tex"]
    assert (tmp_path / "t.csv").read_text() == "x\n1.0\n"


def test_a_reader_of_the_earlier_file_keeps_it_whole(tmp_path):
    frame = pd.DataFrame({"x": [1.0]})
    write_table(frame, tmp_path / "t", "first")
    with (tmp_path / "t.csv").open() as reader:
        write_table(frame * 2, tmp_path / "t", "second")
        assert reader.read() == "x\n1.0\n"


def test_csv_columns_may_be_fixed(tmp_path):
    frame = pd.DataFrame({"a": [1.0], "b": [2.0], "b_low": [1.5], "b_high": [2.5]})
    table = write_table(frame, tmp_path / "t", "c", csv_columns=["b", "a"])
    assert (tmp_path / "t.csv").read_text() == "b,a\n2.0,1.0\n"
    assert table.rows == (("1", "2.00 [1.50, 2.50]"),)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("total_bits_per_dim", "total (bits/dim)"),
        ("bits_per_dim", "bits/dim"),
        ("paper_rmse_255", "paper (CIFAR-10): RMSE (0-255)"),
        ("inexact_left_out", "inexact left out"),
    ],
)
def test_headings_are_words_with_units(column, words):
    assert heading(column) == words


def test_what_is_the_same_in_every_row_is_said_once_outside_the_csv(tmp_path):
    frame = pd.DataFrame(
        {
            "name": ["a", "b"],
            "split": "test",
            "n_images": 7,
            "x": [1.0, 2.0],
            "x_low": [0.9, 1.9],
            "x_high": [1.1, 2.1],
        }
    )
    table = write_table(frame, tmp_path / "t", "Caption.")
    assert table.header == ("name", "x")
    assert table.full_caption == "Caption. In every row: split: test; n (images): 7."
    assert table.full_caption in (tmp_path / "t.md").read_text()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), frame)


def test_results_come_before_counts_and_numbers_are_aligned_on_the_right(tmp_path):
    frame = pd.DataFrame(
        {"name": ["a", "b"], "n_images": [7, 8], "x": [1.0, 2.0], "x_low": [0.9, 1.9], "x_high": [1.1, 2.1]}
    )
    table = write_table(frame, tmp_path / "t", "Caption.")
    assert table.header == ("name", "x", "n (images)")
    assert table.columns == ("name", "x", "n_images")
    assert table.values == (("a", 1.0, 7), ("b", 2.0, 8))
    assert table.numeric == (False, True, True)
    assert (tmp_path / "t.md").read_text().splitlines()[1] == "| --- | ---: | ---: |"
    assert r"\begin{tabular}{lrr}" in (tmp_path / "t.tex").read_text()


def test_a_table_may_be_shown_in_another_shape(tmp_path):
    frame = pd.DataFrame({"run": ["a", "b"], "value": [1.0, 2.0]})
    table = write_table(
        frame, tmp_path / "t", "Caption.", shown=pd.DataFrame({"metric": ["m"], "a": [1.0], "b": [2.0]})
    )
    assert table.header == ("metric", "a", "b")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), frame)


def test_a_text_is_read_instead_of_its_number_which_still_sorts_the_column(tmp_path):
    frame = pd.DataFrame({"model": ["a", "b"], "score": [9.46, 2.0]})
    table = write_table(frame, tmp_path / "t", "c", texts={"score": ["9.46 ± 0.11", ""]})
    assert table.rows == (("a", "9.46 ± 0.11"), ("b", "2"))
    assert (table.values, table.numeric) == ((("a", 9.46), ("b", 2.0)), (False, True))
    assert r"9.46 $\pm$ 0.11" in (tmp_path / "t.tex").read_text()
    assert pd.read_csv(tmp_path / "t.csv")["score"].tolist() == [9.46, 2.0]
