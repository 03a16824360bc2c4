"""Which pixels a grid of images shows, and where."""

import numpy as np

from ddpm_eval.reporting.image_grids import pixel_table, plot_columns, plot_groups, plot_rows, plot_samples


def test_images_are_shown_unaltered_in_reading_order():
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 1, 2, 2) * 20
    ax = plot_samples({"samples": images}, columns=2).axes[0]
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
    shown = plot_samples({"a": image}, columns=1).axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown, [[[10, 20, 30]]])


def test_progressive_has_a_row_per_sample_and_a_column_per_step():
    x = np.zeros((3, 2, 1, 1, 1), dtype=np.uint8)
    x[:, :, 0, 0, 0] = [[1, 2], [3, 4], [5, 6]]
    ax = plot_columns(x, [str(step) for step in [10, 20, 30]], "reverse steps taken").axes[0]
    np.testing.assert_array_equal(ax.images[0].get_array()[::2, ::2, 0], [[1, 3, 5], [2, 4, 6]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["10", "20", "30"]


def test_pixel_table_holds_every_pixel():
    images = np.arange(2 * 1 * 2 * 3, dtype=np.uint8).reshape(2, 1, 2, 3)
    table = pixel_table({"samples": images, "real": images[:1]})
    assert list(table["panel"]) == ["samples", "samples", "real"]
    assert table.loc[1, "0_1_2"] == images[1, 0, 1, 2]


def test_rows_have_a_name_each_and_columns_a_number():
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
    ax = plot_rows({"a": images, "b": images + 10}, "sample").axes[0]
    np.testing.assert_array_equal(ax.images[0].get_array()[::2, ::2, 0], [[0, 1, 2], [10, 11, 12]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "2"]
    ax = plot_rows({"a": images}, "weight", ["source", "0.5", "target"]).axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["source", "0.5", "target"]


def test_groups_leave_space_below_images_only_for_numbers():
    images = np.arange(4, dtype=np.uint8).reshape(2, 2, 1, 1, 1) + np.zeros((1, 1, 1, 4, 4), np.uint8)
    bare = plot_groups({"a": images, "b": images}).axes[1].images[0].get_array()
    np.testing.assert_array_equal(bare[::5, ::5, 0], [[0, 1], [2, 3]])
    assert bare.shape == (9, 9, 3)
    noted = plot_groups({"a": images}, {"a": np.ones((2, 2))}).axes[0].images[0].get_array()
    assert noted.shape == (11, 9, 3)
