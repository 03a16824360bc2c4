"""The caveat of a young moving average: where it is said, where not, and until when."""

from dataclasses import replace

import pytest
from stored_results import make_log

from ddpm_eval.reporting.training_caveats import LARGEST_START, training_caveat, young_average
from ddpm_eval.spec import TrainSpec
from experiments.paper.presets import NAMES, preset


def test_the_sentence_names_the_share_and_the_update():
    """0.9999^500 is 0.951, and 0.9999^n falls below a tenth at n = 23,025."""
    assert young_average(TrainSpec(steps=500), 500) == (
        "after 500 updates 95% of the averaged weights are still those of the random start "
        "(train.ema_decay 0.9999): samples will be noise until about update 23025"
    )


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.995, 0.9999])
def test_the_update_that_is_named_is_the_first_of_which_nothing_is_said(decay):
    train = TrainSpec(steps=1, ema_decay=decay)
    enough = int(young_average(train, 0).rpartition(" ")[2])
    assert young_average(train, enough) == "" != young_average(train, enough - 1)
    assert decay**enough <= LARGEST_START < decay ** (enough - 1)


@pytest.mark.parametrize("name", NAMES)
def test_no_preset_ends_with_a_young_average(name):
    train = preset(name).train
    assert young_average(train, train.steps) == ""


@pytest.mark.parametrize(("status", "said"), [("ok", True), ("stopped", True), ("averaged", True)])
def test_the_start_is_said_of_trainings_that_are_known(status, said):
    train = TrainSpec(steps=500)
    log = replace(make_log(), steps=500)
    assert bool(training_caveat(train, replace(log, status=status))) == said
    for unknown in ("imported", "diverged"):
        assert training_caveat(train, replace(log, status=unknown)) == ""
