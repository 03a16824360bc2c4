"""Fig. 8 shows the source, the mixtures by weight, and the target."""

import pandas as pd
from stored_results import main_results

from experiments.sections.fig8_interpolation import interpolation_figure, section


def test_columns_go_from_the_source_to_the_target(measured):
    (figure,) = section(measured).figures
    frame = pd.read_csv(figure.stem.with_suffix(".csv"))
    assert frame["panel"].drop_duplicates().tolist() == ["source", "0.0", "0.5", "1.0", "target"]
    assert "diffused to t = 5 with the same noise, mixed with the weight" in figure.caption


def test_a_figure_of_its_own_lies_where_it_is_asked_for(tmp_path):
    figure = interpolation_figure(main_results()["interpolation"], tmp_path / "between")
    assert figure.stem == tmp_path / "between"
    assert {path.suffix for path in tmp_path.iterdir()} == {".svg", ".png", ".pdf", ".csv"}
