"""A figure's files: whole, equal for equal results, and without traces in the process."""

import io

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from full_disk import full_after
from matplotlib import pyplot
from PIL import Image

from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.plots import plot_rate_distortion


def test_a_figure_is_four_files_and_equal_results_give_equal_bytes(curve, tmp_path):
    for name in ("a", "b"):
        found = write_figure(plot_rate_distortion(curve), curve, tmp_path / name / "fig5", "A caption.")
        assert (found.stem, found.caption) == (tmp_path / name / "fig5", "A caption.")
    for suffix in (".svg", ".png", ".pdf", ".csv"):
        first, second = ((tmp_path / name / f"fig5{suffix}").read_bytes() for name in ("a", "b"))
        assert first == second
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        f"fig5.{kind}" for kind in ("csv", "pdf", "png", "svg")
    ]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a" / "fig5.csv"), curve)
    image = np.asarray(Image.open(io.BytesIO((tmp_path / "a" / "fig5.png").read_bytes())).convert("RGB"))
    assert image.shape[1] > 1000
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    assert (tmp_path / "a" / "fig5.pdf").read_bytes().startswith(b"%PDF")


def test_nothing_global_is_left_behind(figures, curve, tmp_path):
    before = dict(mpl.rcParams)
    for i, figure in enumerate(figures):
        write_figure(figure, curve, tmp_path / str(i), "c")
    assert dict(mpl.rcParams) == before
    assert pyplot.get_fignums() == []


def test_a_figure_is_laid_out_once_for_all_its_files(curve, tmp_path, monkeypatch):
    layouts, draws = [], []
    figure = plot_rate_distortion(curve)
    engine, draw = figure.get_layout_engine(), figure.draw
    monkeypatch.setattr(engine, "execute", lambda of, run=engine.execute: layouts.append(of) or run(of))
    monkeypatch.setattr(figure, "draw", lambda renderer: draws.append(renderer) or draw(renderer))
    write_figure(figure, curve, tmp_path / "f", "c")
    assert (len(layouts), len(draws)) == (1, 3)


def test_a_full_disk_is_a_sentence_and_leaves_the_previous_figure(curve, tmp_path):
    write_figure(plot_rate_distortion(curve), curve, tmp_path / "fig5", "A caption.")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with full_after(4000), pytest.raises(ValueError, match=r"cannot write .*fig5\.\w+ \(disk full"):
        write_figure(plot_rate_distortion(curve), curve, tmp_path / "fig5", "A caption.")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_name_that_looks_like_a_formula_is_shown_letter_by_letter_and_a_formula_is_drawn(curve, tmp_path):
    figure = plot_rate_distortion(curve)
    figure.axes[0].set_title("$x^$ and $10^{3}$\n$y$")
    figure.axes[0].set_xlabel("$10^{3}$")
    write_figure(figure, curve, tmp_path / "fig5", "A caption.")
    assert not figure.axes[0].title.get_parse_math() and figure.axes[0].xaxis.label.get_parse_math()
    assert "$x^$ and $10^{3}$" in (tmp_path / "fig5.svg").read_text()
