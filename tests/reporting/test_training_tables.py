"""Curves over a training: no update is lost, and a moment's bound is the bound of its terms."""

import math
from dataclasses import replace

import numpy as np
import pytest
from simulated_bounds import T, make_terms, subsample

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.reporting.bound_tables import split_table
from ddpm_eval.reporting.training_tables import history_table, training_curve
from ddpm_eval.results.bound_terms import BoundHistory
from ddpm_eval.results.records import TrainingLog


def make_log(status="ok", updates=1000):
    return TrainingLog(
        loss=np.ones(updates),
        gradient_norm=np.full(updates, 2.0),
        status=status,
        reason="",
        steps=updates,
        images=updates,
        seconds=1.0,
        parameters=10,
    )


@pytest.mark.parametrize("updates", [1, 299, 300, 301, 1000])
def test_training_curve_keeps_every_update(updates):
    log = replace(make_log(updates=updates), loss=np.arange(updates, dtype=float))
    curve = training_curve(log, points=300)
    assert len(curve) <= 300
    assert curve["updates"].sum() == updates
    assert curve["update"].iloc[-1] == updates
    assert (curve["loss"] * curve["updates"]).sum() == pytest.approx(updates * (updates - 1) / 2)
    assert (curve["gradient_norm"] == 2).all()


def test_training_curve_shows_divergence():
    log = make_log("diverged", 10)
    log.loss[-1] = np.nan
    assert math.isnan(training_curve(log, points=5)["loss"].iloc[-1])
    assert np.isfinite(training_curve(log, points=5)["loss"].iloc[:-1]).all()


def test_an_imported_run_has_an_empty_curve():
    assert len(training_curve(make_log("imported", 0))) == 0


def test_a_history_lists_each_moments_means_as_the_split_of_its_terms_does():
    """The total is rate, distortion and the prior, which is in neither."""
    rng = np.random.default_rng(0)
    full = [make_terms(rng.gamma(2, 1e-3, (60, T)), prior=np.full(60, 0.25)) for _ in range(2)]
    offset = (rng.permutation(60) + rng.random(60)) / 60
    moments = [subsample(terms, 8, rng, offset=offset) for terms in full]
    values = [terms.values() for terms in moments]
    history = BoundHistory(
        update=np.array([10, 20]),
        image_id=np.arange(60),
        offset=offset,
        total=np.stack([value["total"] for value in values]),
        rate=np.stack([value["rate"] for value in values]),
        distortion=np.stack([value["distortion"] for value in values]),
        split="test",
        protocol=PROTOCOLS["exact"],
        evaluations_per_image=8,
        inexact_left_out=0,
    )
    table = history_table(history)
    assert list(table["update"]) == [10, 20] and list(table["n_images"]) == [60, 60]
    for row, terms in zip(table.itertuples(), moments, strict=True):
        split = split_table(terms).set_index("quantity")
        for name, quantity in {"bits_per_dim": "total", "rate": "rate", "distortion": "distortion"}.items():
            found = [getattr(row, f"{name}{end}") for end in ("", "_low", "_high")]
            np.testing.assert_allclose(
                found, split.loc[quantity, ["bits_per_dim", "low", "high"]].to_numpy(float)
            )
