"""``show``: what a run is, and how each result was made, apart from what it holds."""

import pytest
from command_line import call, refuse

from ddpm_eval.results.fields import Estimate
from ddpm_eval.results.store import Entry
from experiments.commands.show import describe_entry


def block(shown, entry, title):
    """Return what is shown of an entry under a title, by name."""
    lines = iter(shown.splitlines())
    while not next(lines).startswith(f"{entry}  ("):
        pass
    while next(lines) != f"    {title}":
        pass
    found = {}
    for line in lines:
        if not line.startswith("        "):
            break
        name, _, value = line.strip().partition(" ")
        found[name] = value.strip()
    return found


def test_results_are_described(trained_run):
    call("likelihood", trained_run)
    shown = call("show", trained_run)
    assert "bound/full/test/paper" in shown and "nats per image" in shown and "samples" in shown
    assert "Training: preset digits, 12 updates of batch 16 (ok)" in shown
    assert call("show", trained_run / "results.h5") == shown


@pytest.mark.usefixtures("classifier")
def test_a_metric_does_not_hide_how_it_was_made(trained_run):
    """The precision of the arithmetic is fp32, whatever share of the samples is precise."""
    call("quality", trained_run)
    shown = call("show", trained_run)
    assert block(shown, "quality", "made")["precision"] == "fp32"
    assert block(shown, "quality", "made")["choices"].startswith("features: the data set's classifier, ")
    value, low, high = block(shown, "quality", "holds")["precision"].replace("[", "").strip("]").split()
    assert 0 <= float(low.strip(",")) <= float(value) <= float(high) <= 1


def test_estimates_have_their_interval_and_unit():
    scalars = {
        "distance": Estimate(3.75, 3.71, 3.79, "bits/dim"),
        "share": Estimate(0.5, 0.4, 0.6, "1"),
        "nothing": Estimate(float("nan"), float("nan"), float("nan"), "bits/dim"),
    }
    lines = [" ".join(line.split()) for line in describe_entry(Entry("n", "k", "R", {}, {}, [], scalars))]
    assert "distance 3.750 [3.710, 3.790] bits/dim" in lines
    assert "share 0.50 [0.40, 0.60]" in lines and "nothing not measured" in lines


@pytest.mark.parametrize(
    ("file", "command"), [("results.h5", "show"), ("checkpoint.safetensors", "likelihood")]
)
def test_a_damaged_result_or_checkpoint_is_named(trained_run, file, command):
    content = (trained_run / file).read_bytes()
    (trained_run / file).write_bytes(content[: len(content) // 2])
    assert file in refuse(command, trained_run)
