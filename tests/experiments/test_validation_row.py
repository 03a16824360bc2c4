"""When a row passes, and what its standard error is."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm_eval.model.gaussian import Gaussian
from experiments.validation_row import (
    Row,
    law_rows,
    paired_row,
    quantity_rows,
    rooted_row,
    rounding_row,
    with_stated_value,
    worst_row,
)


def test_rows_pass_by_their_tolerance_and_never_with_nan():
    row = Row("a", "1", measured=1.0, exact=1.2, standard_error=0.1, tolerance=0.45)
    assert row.passed and row.difference_in_standard_errors == pytest.approx(-2)
    assert not replace(row, measured=1.7).passed
    assert not replace(row, measured=math.nan).passed
    sharp = replace(row, standard_error=0.0, tolerance=1e-9)
    assert not sharp.passed and math.isnan(sharp.difference_in_standard_errors)


def test_a_rounding_row_has_no_standard_error():
    row = rounding_row("a", "1", -2.0 + 1e-10, -2.0, 1e-9)
    assert row.passed and row.standard_error == 0
    assert not rounding_row("a", "1", -2.0 + 1e-8, -2.0, 1e-9).passed


def test_a_paired_row_takes_the_error_of_the_differences():
    exact = np.array([10.0, 20.0, 30.0, 40.0])
    row = paired_row("a", "1", exact + np.array([1, -1, 1, -1]), exact)
    assert (row.measured, row.exact) == (25.0, 25.0)
    assert row.standard_error == pytest.approx(math.sqrt(4 / 3) / 2)  # four differences of +-1
    assert row.tolerance == pytest.approx(4.5 * row.standard_error)


def test_a_row_for_each_quantity():
    exact = {name: np.zeros(3) for name in ("rate", "distortion", "prior", "total")}
    measured = {name: np.arange(3.0) + i for i, name in enumerate(exact)}
    rows = quantity_rows("here", measured, exact)
    assert [row.quantity for row in rows] == ["here: rate", "here: distortion", "here: total"]
    assert [row.measured for row in rows] == [1.0, 2.0, 4.0]
    assert [row.quantity for row in quantity_rows("here", measured, exact, ["total"])] == ["here: total"]


def test_the_worst_time_is_the_one_with_the_most_standard_errors():
    rng = np.random.default_rng(0)
    exact = np.zeros((50, 20))
    measured = rng.standard_normal((50, 20))
    measured[:, 6] = measured[:, 6] * 0.01 + 0.05  # small in itself, large for its spread
    row = worst_row("q", "1", measured, exact)
    assert row.quantity == "q, t = 7" and not row.passed
    assert row.tolerance == pytest.approx(6 * row.standard_error)


def test_the_error_of_a_root_is_that_of_the_square_times_the_derivative():
    square = Row("a", "mean square", measured=4.1, exact=4.0, standard_error=1e-3, tolerance=4.5e-3)
    row = rooted_row(square, "levels", 127.5)
    assert (row.exact, row.unit) == (255.0, "levels")
    assert row.measured == pytest.approx(127.5 * math.sqrt(4.1))
    moved = rooted_row(replace(square, exact=4.0 + 1e-3), "levels", 127.5).exact - row.exact
    assert row.standard_error == pytest.approx(moved, rel=1e-3)  # the root's curvature is 1e-4 of it


def test_a_stated_value_keeps_the_tolerance():
    row = Row("a", "1", measured=1.0, exact=1.2, standard_error=0.1, tolerance=0.45)
    assert with_stated_value(row, 1.25) == replace(row, measured=1.25)


@pytest.fixture
def law():
    """A correlated Gaussian over 1x2x2 images, and 4000 samples of it."""
    generator = torch.Generator().manual_seed(1)
    basis, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    gaussian = Gaussian(torch.full((1, 2, 2), 0.1, dtype=torch.float64), torch.arange(1.0, 5).double(), basis)
    return gaussian, gaussian.draw(0, torch.arange(4000))


def test_samples_of_the_law_pass(law):
    gaussian, x = law
    rows = law_rows("x", x, gaussian)
    assert all(row.passed for row in rows)
    assert [row.exact for row in rows] == [4, 1, 4, 6]


def test_each_departure_from_the_law_is_found_by_its_row(law):
    gaussian, x = law
    white = (x - gaussian.mean).flatten(1) @ gaussian.basis / gaussian.eigenvalues.sqrt()

    def failed(coordinates):
        flat = gaussian.mean.flatten() + coordinates * gaussian.eigenvalues.sqrt() @ gaussian.basis.T
        return {row.quantity for row in law_rows("x", flat.reshape(x.shape), gaussian) if not row.passed}

    assert failed(white) == set()
    assert "x: chi2 of the means" in failed(white + 0.1)
    assert "x: mean variance ratio" in failed(1.1 * white)
    stretched = white * torch.tensor([1.1, 1 / 1.1, 1.1, 1 / 1.1]).double()
    assert "x: chi2 of the variances" in failed(stretched)
    mixed = torch.cat([white[:, :1], (white[:, 1:2] + 0.2 * white[:, :1]) / math.sqrt(1.04), white[:, 2:]], 1)
    assert failed(mixed) == {"x: chi2 of the correlations"}
