"""Fig. 9 has a row for every time that is stored, from noise to pixels."""

import pandas as pd
from stored_results import make_interpolations, make_log, store_results

from experiments.sections.fig9_interpolation_times import TITLE, section


def test_rows_go_from_the_latest_time_to_the_mixture_of_pixels(measured):
    (figure,) = section(measured).figures
    frame = pd.read_csv(figure.stem.with_suffix(".csv"))
    assert frame["panel"].drop_duplicates().tolist() == ["t = 20", "t = 5", "t = 0"]
    rows = frame.set_index(["panel", "image"])["0_0_0"]
    assert rows["t = 20"].tolist() == rows["t = 5"].tolist() == [0, 7, 7, 7, 255]
    assert rows["t = 0"].tolist() == [0, 0, 128, 255, 255]
    assert "diffused to the time t of the row with the same noise" in figure.caption


def test_one_time_is_shown_by_fig_8_alone(empty):
    store_results(empty.main, {"training": make_log(), "interpolation": make_interpolations(5, 2)})
    found = section(empty)
    assert found.title == TITLE and list(found.figures) == []
