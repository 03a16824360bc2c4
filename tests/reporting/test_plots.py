"""What plots show, tested as data: drawn coordinates, labels and texts."""

import numpy as np
import pandas as pd

from ddpm_eval.reporting.plots import (
    plot_against,
    plot_objectives,
    plot_quality,
    plot_ranges,
    plot_rate_distortion,
    plot_step_differences,
    plot_terms,
    plot_training,
)
from experiments.paper import published


def line(ax, label):
    return next(item for item in ax.lines if item.get_label() == label).get_xydata()


def test_rate_distortion_draws_the_three_panels_of_figure_5(curve):
    curve["reverse_steps"] *= 100
    figure = plot_rate_distortion(curve, published.table_4())
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
    counts = [len(ax.lines) for ax in plot_rate_distortion(curve, published.table_4()).axes]
    assert counts == [1, 1, 2]
    longer = curve.assign(reverse_steps=curve["reverse_steps"] * 100)
    counts = [len(ax.lines) for ax in plot_rate_distortion(longer, published.table_4()).axes]
    assert counts == [2, 2, 2]


def test_several_runs_get_a_line_each_and_a_legend(curve):
    both = pd.concat([curve.assign(run="full"), (curve * 1.5).assign(run="stratified")])
    figure = plot_rate_distortion(both)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["full", "stratified"]
    np.testing.assert_array_equal(
        line(figure.axes[0], "stratified"), 1.5 * curve[["reverse_steps", "rmse_255"]]
    )


def test_differences_are_drawn_for_each_term_and_cumulated():
    t = np.arange(1, 5)
    columns = {"difference_bits_per_dim": t / 10, "cumulated_bits_per_dim": np.cumsum(t) / 10}
    frame = pd.DataFrame({"run": "second", "t": t, **columns})
    for name, values in columns.items():
        frame[f"{name}_low"], frame[f"{name}_high"] = values - 0.25, values + 0.25
    zero = frame.assign(run="first", **dict.fromkeys([c for c in frame if "bits" in c], 0.0))
    figure = plot_step_differences(pd.concat([zero, frame]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first", "second"]
    for ax, (name, values) in zip(figure.axes, columns.items(), strict=True):
        np.testing.assert_array_equal(line(ax, "second"), frame[["t", name]])
        np.testing.assert_array_equal(line(ax, "first")[:, 1], np.zeros(4))
        band = ax.collections[1].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == (values.min() - 0.25, values.max() + 0.25)
        assert ax.get_xscale() == "log" and ax.get_yscale() == "linear"


def test_terms_show_the_floor():
    t = np.arange(1, 6)
    frame = pd.DataFrame({"t": t, "bits_per_dim": 1.0 / t, "low": 0.9 / t, "high": 1.1 / t})
    with_floor = plot_terms(frame.assign(floor_bits_per_dim=[0, 0.1, 0.05, 0.01, 0.001]))
    np.testing.assert_array_equal(line(with_floor.axes[0], "variance floor")[:, 0], [2, 3, 4, 5])
    without = plot_terms(frame.assign(floor_bits_per_dim=np.nan))
    assert [item.get_label() for item in without.axes[0].lines] == ["term"]


def test_training_curves_stop_where_the_run_diverged():
    frame = pd.DataFrame(
        {"update": [1, 2, 3], "loss": [1.0, 0.5, np.inf], "gradient_norm": [2.0, 1.0, np.nan]}
    )
    figure = plot_training(frame, "training loss")
    assert [ax.get_yscale() for ax in figure.axes] == ["log", "log"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["training loss", "gradient norm before clipping"]
    figure.draw_without_rendering()
    assert figure.axes[0].get_ylim()[1] < 10


def test_losses_of_different_targets_have_axes_of_their_own_and_clipping_a_line():
    frame = pd.DataFrame({"update": [1, 2], "loss": [1.0, 0.5], "gradient_norm": [2.0, 0.5]})
    both = pd.concat([frame.assign(run="a"), frame.assign(run="b")])
    figure = plot_training(both, "loss", targets={"mu": ["a"], "eps": ["b"]}, clip_norm=1.0)
    assert [ax.get_ylabel() for ax in figure.axes] == [
        "loss\n(mu)",
        "loss\n(eps)",
        "gradient norm before clipping",
    ]
    assert [[item.get_label() for item in ax.lines] for ax in figure.axes] == [
        ["a"],
        ["b"],
        ["a", "b", "clipped above"],
    ]
    assert set(line(figure.axes[2], "clipped above")[:, 1]) == {1.0}
    assert figure.axes[0].lines[0].get_color() == figure.axes[2].lines[0].get_color()


def test_a_target_has_one_colour_and_its_runs_a_style_each():
    frame = pd.DataFrame({"update": [1, 2], "loss": [1.0, 0.5], "gradient_norm": [2.0, 0.5]})
    both = pd.concat([frame.assign(run="a"), frame.assign(run="b")])
    first, second = plot_training(both, "loss", targets={"eps": ["a", "b"]}).axes[0].lines
    assert first.get_color() == second.get_color()
    assert first.get_linestyle() != second.get_linestyle()


def test_quality_has_the_distance_of_the_test_images_as_its_yardstick():
    frame = pd.DataFrame({"reverse_steps": [1, 2]})
    for name in ("frechet_distance", "score"):
        frame = frame.assign(**{name: [1.0, 2.0], f"{name}_low": [0.5, 1.5], f"{name}_high": [1.5, 2.5]})
    distance, score = plot_quality(frame, "reverse_steps", "steps", "x", yardstick=0.7).axes
    assert set(line(distance, "test images")[:, 1]) == {0.7}
    assert len(score.lines) == 1


def test_intervals_of_several_lines_do_not_cover_each_other():
    frame = pd.DataFrame(
        {"run": ["a", "b"], "x": [1, 1], "b": [1.0, 1.0], "b_low": [0.5] * 2, "b_high": [1.5] * 2}
    )
    figure = plot_against(frame, "x", "b", xlabel="x", ylabel="b")
    figure.draw_without_rendering()
    places = [
        bars.get_transform().transform(bars.get_segments()[0])[0, 0] for bars in figure.axes[0].collections
    ]
    assert places[1] - places[0] > 3


def test_plot_against_draws_points_with_intervals():
    frame = pd.DataFrame({"steps": [10, 5], "b": [1.0, 2.0], "b_low": [0.5, 1.5], "b_high": [1.5, 3.0]})
    ax = plot_against(frame, "steps", "b", xlabel="steps", ylabel="bits/dim", log=True).axes[0]
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
    figure = plot_quality(frame, "steps", "sampling steps", "digits-classifier")
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
    assert len(plot_quality(over_time, "reverse_steps", "reverse steps taken", "x").axes) == 2


def test_no_line_is_left_out_however_many_there_are():
    frame = pd.DataFrame({"run": list("abcdefghijkl"), "x": range(12), "y": range(12)})
    ax = plot_against(frame, "x", "y", xlabel="x", ylabel="y").axes[0]
    assert [item.get_label() for item in ax.lines] == list("abcdefghijkl")
    assert len({(item.get_color(), item.get_marker()) for item in ax.lines}) == 12


def test_ranges_are_bars_with_their_share():
    frame = pd.DataFrame(
        {"t": ["1", "2-5"], "bits_per_dim": [2.0, 1.0], "low": [1.5, 0.5], "high": [2.5, 1.5]}
    )
    ax = plot_ranges(frame.assign(share=[2 / 3, 1 / 3])).axes[0]
    assert [bar.get_height() for bar in ax.patches] == [2.0, 1.0]
    assert [text.get_text() for text in ax.texts] == ["67%", "33%"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2-5"]


def test_objectives_are_drawn_by_weight_terms_and_difference():
    frame = pd.DataFrame({"t": ["1", "2"], "weight_l": [np.nan, 3.0], "weight_l_simple": [np.nan, 1.0]})
    for name, value in (("l", 1.0), ("l_simple", 1.5), ("difference", 0.5)):
        column = f"{name}_bits_per_dim"
        frame = frame.assign(**{column: value, f"{column}_low": value - 0.1, f"{column}_high": value + 0.1})
    weights, bits, differences = plot_objectives(frame).axes
    assert [line(weights, name)[1, 1] for name in ("L", "L_simple")] == [3.0, 1.0]
    assert [drawn.get_ydata().tolist() for drawn in bits.lines] == [[1.0, 1.0], [1.5, 1.5]]
    assert differences.collections[0].get_segments()[0][:, 1].tolist() == [0.4, 0.6]
