"""Table 2 as a figure, tested as data: points, intervals, the paper's values and what is said of blanks."""

import numpy as np

from ddpm_eval.reporting.ablation_figure import plot_ablation
from experiments.paper import published


def line(ax, label):
    return next(item for item in ax.lines if item.get_label() == label).get_xydata()


def words(ax):
    return [(text.get_text(), text.get_position()[1]) for text in ax.texts if text.get_style() == "italic"]


def test_ablation_shows_intervals_the_yardstick_and_why_a_cell_is_empty(ablation):
    figure = plot_ablation(ablation)
    measured = figure.axes[:3]
    for ax, (low, value, high) in zip(measured, ((9, 10, 12), (2, 3, 4), (3.5, 3.75, 4.125)), strict=True):
        bars, points = ax.collections
        assert {tuple(path[:, 0]) for path in bars.get_segments() if path.ndim == 2} == {(low, high)}
        np.testing.assert_array_equal(points.get_offsets(), [[value, row] for row in (0, 1, 3, 5)])
        reasons = [text for text in ax.texts if text.get_style() == "italic"]
        assert [(text.get_text(), text.get_position()[1]) for text in reasons] == [
            ("diverged", 2),
            ("missing", 4),
        ]
        numbers = [(text.get_text(), text.xy[1]) for text in ax.texts if text not in reasons]
        assert [row for _, row in numbers] == [0, 1, 3, 5]
        assert {float(number) for number, _ in numbers} == {value}
    assert figure.axes[0].get_xlabel() == "Frechet distance\n(digits-classifier)"
    assert list(figure.axes[0].lines[0].get_xdata()) == [5.0, 5.0]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][2] == "mu, MSE, fixed"


def test_ablation_of_nothing_yet_can_be_drawn(ablation):
    empty = ablation.assign(status="missing", features="")
    empty.iloc[:, 4:14] = np.nan
    assert [text.get_text() for text in plot_ablation(empty).axes[1].texts] == ["missing"] * 6


def test_the_papers_values_are_marked_where_the_features_are_the_papers(ablation):
    figure = plot_ablation(ablation)
    assert [item.get_label() for item in figure.axes[0].lines] == ["test images"]
    inception = ablation.assign(
        features=ablation["features"].replace("digits-classifier", "inception-v3-compat")
    )
    marked = line(plot_ablation(inception).axes[0], "paper (CIFAR-10)")
    np.testing.assert_array_equal(marked[:, 0], published.table_2()["fid"])


def test_the_bound_is_drawn_on_a_logarithmic_axis_where_it_differs_by_much(ablation):
    assert plot_ablation(ablation).axes[2].get_xscale() == "linear"
    ablation.loc[0, ["bits_per_dim", "bits_per_dim_low", "bits_per_dim_high"]] = [200.0, 190.0, 210.0]
    assert plot_ablation(ablation).axes[2].get_xscale() == "log"


def test_the_papers_values_have_panels_of_their_own_beside_other_features(ablation):
    figure = plot_ablation(ablation.assign(paper_inception_score=published.table_2()["inception_score"]))
    distance, score = figure.axes[3:5]
    assert distance.get_xlabel() == "FID of the paper\n(CIFAR-10, Inception)"
    np.testing.assert_array_equal(line(distance, "paper (CIFAR-10)")[:, 0], published.table_2()["fid"])
    np.testing.assert_array_equal(
        line(score, "paper (CIFAR-10)")[:, 0], published.table_2()["inception_score"]
    )
    assert words(distance) == [("blank in the paper", 2), ("blank in the paper", 3)]
    assert not figure.axes[5].axison  # an empty place


def test_the_lowest_bounds_are_told_apart_in_a_panel_of_their_own(ablation):
    ablation.loc[[0, 1, 3], "bits_per_dim"] = [47.0, 4.84, 4.81]
    ablation.loc[5, "bits_per_dim"] = 6.25
    close = plot_ablation(ablation).axes[4]
    assert close.get_xlabel() == "bits/dim, the lowest"
    assert close.get_xlim()[1] < 5.5
    np.testing.assert_array_equal(close.collections[1].get_offsets(), [[4.84, 1], [4.81, 3]])
    said = [text for text, _ in words(close)]
    assert said == ["outside, at 47.00", "diverged", "missing", "outside, at 6.25"]


def test_the_numbers_of_the_outermost_points_lie_within_the_panel(ablation):
    figure = plot_ablation(ablation)
    figure.draw_without_rendering()
    for ax in figure.axes[:4]:
        frame = ax.get_window_extent()
        for text in ax.texts:
            box = text.get_window_extent()
            assert frame.x0 < box.x0 and box.x1 < frame.x1 and box.y1 < frame.y1 + 1
