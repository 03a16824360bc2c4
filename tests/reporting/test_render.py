"""What tables and figures show, tested as data: cells, drawn coordinates, pixels, files."""

import io
import math

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from ddpm_eval.reporting import render
from experiments.paper import published

# Tables


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
    assert render.format_estimate(value, low, high) == text


@pytest.fixture
def ablation():
    frame = published.table_2()[["prediction", "objective", "variance"]].copy()
    frame["status"] = ["ok", "ok", "diverged", "ok", "missing", "ok"]
    measured = frame["status"].eq("ok")
    for column, low, value, high in (
        ("score", 2, 3, 4),
        ("frechet_distance", 9, 10, 12),
        ("bits_per_dim", 3.5, 3.75, 4.125),
    ):
        for name, number in ((column, value), (f"{column}_low", low), (f"{column}_high", high)):
            frame[name] = np.where(measured, number, np.nan)
    frame["reference_distance"] = np.where(measured, 5.0, np.nan)
    frame["n_samples"] = pd.array([512 if ok else pd.NA for ok in measured], dtype="Int64")
    frame["features"] = np.where(measured, "digits-classifier", "")
    frame["paper_fid"] = published.table_2()["fid"]
    return frame


def test_a_table_keeps_raw_numbers_in_its_csv_and_joins_intervals_elsewhere(ablation, tmp_path):
    table = render.write_table(ablation, tmp_path / "tables" / "table2", "Numbers of 50% & more_or_less.")
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


def test_latex_is_escaped_and_every_row_has_all_cells(ablation, tmp_path):
    table = render.write_table(ablation, tmp_path / "t", r"50% & a_b ~ \x {y} $z$ #1 ^")
    text = (tmp_path / "t.tex").read_text()
    assert (
        r"\caption{50\% \& a\_b \textasciitilde{} \textbackslash{}x \{y\} \$z\$ \#1 \textasciicircum{}}"
        in text
    )
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 1 + len(ablation)
    assert {line.replace(r"\&", "").count("&") for line in body} == {len(table.header) - 1}


def test_pipes_do_not_break_a_markdown_row(tmp_path):
    render.write_table(pd.DataFrame({"name": ["a|b"], "x": [1.0]}), tmp_path / "t", "c")
    assert (tmp_path / "t.md").read_text().splitlines()[2] == r"| a\|b | 1 |"


@pytest.mark.parametrize(
    ("features", "expected"),
    [("inception-v3-compat", ("IS", "FID")), ("digits-classifier", ("score", "Frechet distance"))],
)
def test_only_inception_gives_fid_and_is(features, expected, tmp_path):
    frame = pd.DataFrame({"score": [1.0], "frechet_distance": [2.0], "features": [features]})
    assert render.write_table(frame, tmp_path / "t", "c").header[:2] == expected


def test_mixed_extractors_are_never_called_fid(tmp_path):
    frame = pd.DataFrame(
        {"frechet_distance": [2.0, 3.0], "features": ["inception-v3-compat", "digits-classifier"]}
    )
    assert render.write_table(frame, tmp_path / "t", "c").header[0] == "Frechet distance"


def test_a_failed_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    frame = pd.DataFrame({"x": [1.0]})
    render.write_table(frame, tmp_path / "t", "first")

    def fail(_frame, path, **_options):
        path.write_text("half of i")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match="disk full"):
        render.write_table(frame * 2, tmp_path / "t", "second")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.md", "t.tex"]
    assert (tmp_path / "t.csv").read_text() == "x\n1.0\n"


def test_a_reader_of_the_earlier_file_keeps_it_whole(tmp_path):
    frame = pd.DataFrame({"x": [1.0]})
    render.write_table(frame, tmp_path / "t", "first")
    with (tmp_path / "t.csv").open() as reader:
        render.write_table(frame * 2, tmp_path / "t", "second")
        assert reader.read() == "x\n1.0\n"


# Figures


@pytest.fixture
def curve():
    steps = np.arange(1, 11)
    frame = pd.DataFrame(
        {"reverse_steps": steps, "rate_bits_per_dim": steps / 10, "rmse_255": 100.0 - 9 * steps}
    )
    for column in ("rate_bits_per_dim", "rmse_255"):
        frame[f"{column}_low"], frame[f"{column}_high"] = frame[column] * 0.9, frame[column] * 1.1
    return frame


def line(ax, label):
    return next(item for item in ax.lines if item.get_label() == label).get_xydata()


def test_rate_distortion_draws_the_three_panels_of_figure_5(curve):
    curve["reverse_steps"] *= 100
    figure = render.plot_rate_distortion(curve, published.table_4())
    pairs = [
        ("reverse_steps", "rmse_255"),
        ("reverse_steps", "rate_bits_per_dim"),
        ("rate_bits_per_dim", "rmse_255"),
    ]
    for ax, (x, y) in zip(figure.axes, pairs, strict=True):
        np.testing.assert_array_equal(line(ax, "this model"), curve[[x, y]])
        np.testing.assert_array_equal(line(ax, "paper (CIFAR-10)"), published.table_4()[[x, y]])
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == (curve[f"{y}_low"].min(), curve[f"{y}_high"].max())
        assert ax.get_xlabel() and ax.get_ylabel()


def test_the_papers_points_are_not_drawn_over_the_steps_of_a_shorter_chain(curve):
    """In the fixture's chain of ten steps, the paper's 1000 would squeeze the model's curve into the axis."""
    counts = [len(ax.lines) for ax in render.plot_rate_distortion(curve, published.table_4()).axes]
    assert counts == [1, 1, 2]
    longer = curve.assign(reverse_steps=curve["reverse_steps"] * 100)
    assert [len(ax.lines) for ax in render.plot_rate_distortion(longer, published.table_4()).axes] == [
        2,
        2,
        2,
    ]


@pytest.mark.parametrize(
    ("low", "high", "labels"), [(0.6, 1.1, ["0.6", "0.8", "1"]), (2, 40, ["2", "5", "10", "20"])]
)
def test_logarithmic_axes_have_plain_numbers(low, high, labels):
    frame = pd.DataFrame({"update": [1, 2], "loss": [low, high], "gradient_norm": [low, high]})
    figure = render.plot_training(frame, "loss")
    figure.draw_without_rendering()
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels(which="both")]
    assert set(labels) <= set(shown)
    assert not any("times" in text for text in shown)


def test_csv_columns_may_be_fixed(tmp_path):
    frame = pd.DataFrame({"a": [1.0], "b": [2.0], "b_low": [1.5], "b_high": [2.5]})
    table = render.write_table(frame, tmp_path / "t", "c", csv_columns=["b", "a"])
    assert (tmp_path / "t.csv").read_text() == "b,a\n2.0,1.0\n"
    assert table.rows == (("1", "2.00 [1.50, 2.50]"),)


def test_several_runs_get_a_line_each_and_a_legend(curve):
    both = pd.concat([curve.assign(run="full"), (curve * 1.5).assign(run="stratified")])
    figure = render.plot_rate_distortion(both)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["full", "stratified"]
    np.testing.assert_array_equal(
        line(figure.axes[0], "stratified"), 1.5 * curve[["reverse_steps", "rmse_255"]]
    )


def test_ablation_shows_intervals_the_yardstick_and_why_a_cell_is_empty(ablation):
    figure = render.plot_ablation(ablation)
    for ax, (low, value, high) in zip(figure.axes, ((9, 10, 12), (2, 3, 4), (3.5, 3.75, 4.125)), strict=True):
        bars, points = ax.collections
        assert {tuple(path[:, 0]) for path in bars.get_segments() if path.ndim == 2} == {(low, high)}
        assert set(points.get_offsets()[[0, 1, 3, 5], 0]) == {value}
        assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [
            ("diverged", 2),
            ("missing", 4),
        ]
    assert figure.axes[0].get_xlabel() == "Frechet distance\n(digits-classifier)"
    assert list(figure.axes[0].lines[0].get_xdata()) == [5.0, 5.0]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][2] == "mu, MSE, fixed"


def test_ablation_of_nothing_yet_can_be_drawn(ablation):
    empty = ablation.assign(status="missing", features="")
    empty.iloc[:, 4:14] = np.nan
    assert [text.get_text() for text in render.plot_ablation(empty).axes[1].texts] == ["missing"] * 6


def test_terms_show_the_floor():
    t = np.arange(1, 6)
    frame = pd.DataFrame({"t": t, "bits_per_dim": 1.0 / t, "low": 0.9 / t, "high": 1.1 / t})
    with_floor = render.plot_terms(frame.assign(floor_bits_per_dim=[0, 0.1, 0.05, 0.01, 0.001]))
    np.testing.assert_array_equal(line(with_floor.axes[0], "variance floor")[:, 0], [2, 3, 4, 5])
    without = render.plot_terms(frame.assign(floor_bits_per_dim=np.nan))
    assert [item.get_label() for item in without.axes[0].lines] == ["term"]


def test_training_curves_stop_where_the_run_diverged():
    frame = pd.DataFrame(
        {"update": [1, 2, 3], "loss": [1.0, 0.5, np.inf], "gradient_norm": [2.0, 1.0, np.nan]}
    )
    figure = render.plot_training(frame, "training loss")
    assert [ax.get_yscale() for ax in figure.axes] == ["log", "log"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["training loss", "gradient norm before clipping"]
    figure.draw_without_rendering()
    assert figure.axes[0].get_ylim()[1] < 10


def test_plot_against_draws_points_with_intervals():
    frame = pd.DataFrame({"steps": [10, 5], "b": [1.0, 2.0], "b_low": [0.5, 1.5], "b_high": [1.5, 3.0]})
    ax = render.plot_against(frame, "steps", "b", xlabel="steps", ylabel="bits/dim", log=True).axes[0]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[5, 2], [10, 1]])
    assert [path[:, 1].tolist() for path in ax.collections[0].get_segments()] == [[1.5, 3.0], [0.5, 1.5]]
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_quality_curves_are_drawn_with_intervals_and_against_time_where_it_is_known():
    frame = pd.DataFrame(
        {"method": ["a", "a", "b"], "steps": [20, 10, 10], "seconds_per_image": [0.2, 0.1, 0.3]}
    )
    for name in ("frechet_distance", "score"):
        frame = frame.assign(
            **{name: [1.0, 2.0, 3.0], f"{name}_low": [0.5, 1.5, 2.5], f"{name}_high": [1.5, 2.5, 3.5]}
        )
    figure = render.plot_quality(frame, "steps", "sampling steps", "digits-classifier")
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "sampling steps",
        "sampling steps",
        "seconds per image",
    ]
    np.testing.assert_array_equal(line(figure.axes[0], "a"), [[10, 2], [20, 1]])
    np.testing.assert_array_equal(line(figure.axes[2], "b"), [[0.3, 3]])
    assert figure.axes[1].collections[0].get_segments()[1][:, 1].tolist() == [0.5, 1.5]
    assert "digits-classifier" in figure.axes[0].get_ylabel()
    over_time = frame.drop(columns=["seconds_per_image", "method"]).rename(columns={"steps": "reverse_steps"})
    assert len(render.plot_quality(over_time, "reverse_steps", "reverse steps taken", "x").axes) == 2


def test_images_are_shown_unaltered_in_reading_order():
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 1, 2, 2) * 20
    ax = render.plot_samples({"samples": images}, columns=2).axes[0]
    shown = ax.images[0].get_array()
    assert shown.shape == (5, 5, 3)
    for k, (row, column) in enumerate([(0, 0), (0, 3), (3, 0)]):
        np.testing.assert_array_equal(
            shown[row : row + 2, column : column + 2], np.repeat(images[k, 0, :, :, None], 3, 2)
        )
    assert (shown[2] == 255).all() and (shown[3:, 3:] == 255).all()
    assert ax.images[0].get_interpolation() == "nearest"


def test_colour_images_keep_their_channels():
    image = np.zeros((1, 3, 1, 1), dtype=np.uint8)
    image[0, :, 0, 0] = 10, 20, 30
    shown = render.plot_samples({"a": image}, columns=1).axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown, [[[10, 20, 30]]])


def test_progressive_has_a_row_per_sample_and_a_column_per_step():
    x = np.zeros((3, 2, 1, 1, 1), dtype=np.uint8)
    x[:, :, 0, 0, 0] = [[1, 2], [3, 4], [5, 6]]
    ax = render.plot_columns(x, [str(step) for step in [10, 20, 30]], "reverse steps taken").axes[0]
    np.testing.assert_array_equal(ax.images[0].get_array()[::2, ::2, 0], [[1, 3, 5], [2, 4, 6]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["10", "20", "30"]


def figures(curve, ablation):
    t = np.arange(1, 6)
    terms = pd.DataFrame(
        {"t": t, "bits_per_dim": 1.0 / t, "low": 0.9 / t, "high": 1.1 / t, "floor_bits_per_dim": 0.01 / t}
    )
    yield render.plot_rate_distortion(curve, published.table_4())
    yield render.plot_ablation(ablation)
    yield render.plot_terms(terms)
    yield render.plot_samples(
        {"samples": np.zeros((64, 1, 8, 8), np.uint8), "real": np.zeros((64, 1, 8, 8), np.uint8)}
    )
    yield render.plot_columns(
        np.zeros((5, 2, 1, 8, 8), np.uint8), ["100", "200", "300", "400", "500"], "reverse steps taken"
    )


def test_no_text_is_clipped_and_no_labels_overlap(curve, ablation):
    for figure in figures(curve, ablation):
        figure.draw_without_rendering()
        width, height = figure.canvas.get_width_height()
        labels = [
            text
            for ax in figure.axes
            for text in (ax.xaxis.label, ax.yaxis.label, ax.title)
            if text.get_text()
        ]
        boxes = [text.get_window_extent() for text in labels]
        for box in boxes:
            assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_figure_is_three_files_and_equal_results_give_equal_bytes(curve, tmp_path):
    for name in ("a", "b"):
        found = render.write_figure(
            render.plot_rate_distortion(curve), curve, tmp_path / name / "fig5", "A caption."
        )
        assert found == render.Illustration(tmp_path / name / "fig5", "A caption.")
    for suffix in (".png", ".pdf", ".csv"):
        first, second = ((tmp_path / name / f"fig5{suffix}").read_bytes() for name in ("a", "b"))
        assert first == second
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["fig5.csv", "fig5.pdf", "fig5.png"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a" / "fig5.csv"), curve)
    image = np.asarray(Image.open(io.BytesIO((tmp_path / "a" / "fig5.png").read_bytes())).convert("RGB"))
    assert image.shape[1] > 1000
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    assert (tmp_path / "a" / "fig5.pdf").read_bytes().startswith(b"%PDF")


def test_nothing_global_is_left_behind(curve, ablation, tmp_path):
    from matplotlib import pyplot

    before = dict(mpl.rcParams)
    for i, figure in enumerate(figures(curve, ablation)):
        render.write_figure(figure, curve, tmp_path / str(i), "c")
    assert dict(mpl.rcParams) == before
    assert pyplot.get_fignums() == []


def test_line_colours_differ_for_the_colour_blind():
    """Luminance separates the first two colours as well as hue does, so that they differ in print, too."""
    luminance = [np.dot(to_rgb(colour), [0.2126, 0.7152, 0.0722]) for colour in render.COLOURS[:2]]
    assert abs(luminance[0] - luminance[1]) > 0.15
