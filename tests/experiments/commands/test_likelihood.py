"""``likelihood``: under chosen protocols, by either estimator, to a chosen precision, in two precisions."""

import re

from command_line import call, refuse

from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results.store import Store
from experiments.commands.likelihood import command


def half_width(text):
    """Return half the width of the interval of the total that a table states."""
    low, high = map(float, re.search(r"total +\S+ +(\S+) +(\S+)", text).groups())
    return (high - low) / 2


def test_protocols_named_on_the_command_line_exist():
    names = next(p for p in command.params if p.name == "protocol").type.choices
    assert list(names) == list(PROTOCOLS) == ["paper", "exact"]


def test_choices_that_differ_from_the_protocol_are_named(trained_run):
    text = call("likelihood", trained_run, "--protocol", "exact", "--variance", "fixed-small", "--draws", "2")
    assert "total" in text and "exact+fixed-small+2-draws" in text and "2 draws" in text


def test_the_stratified_estimator_takes_a_number_of_evaluations(trained_run):
    stratified = ["likelihood", trained_run, "--estimator", "stratified"]
    assert "stratified estimator" in call(*stratified, "--evaluations", "400")
    assert "too few" in refuse(*stratified, "--evaluations", "10")
    assert "belong to --estimator stratified" in refuse("likelihood", trained_run, "--evaluations", "400")


def test_evaluations_are_doubled_until_the_interval_is_narrow_enough(trained_run):
    stratified = ["likelihood", trained_run, "--estimator", "stratified"]
    first = half_width(call(*stratified, "--evaluations", "200"))
    all_steps = half_width(call("likelihood", trained_run))
    between = (first + all_steps) / 2
    assert half_width(call(*stratified, "--evaluations", "200", "--target-halfwidth", between)) <= between
    message = refuse(*stratified, "--target-halfwidth", all_steps / 2)
    assert "the images differ (use more images)" in message
    stored = [entry for entry in Store(trained_run / "results.h5").entries() if "stratified" in entry.name]
    assert len(stored) >= 2  # every estimate is kept


def test_a_shorter_chain_is_a_bound_of_its_own(trained_run):
    assert "a chain of 5 of 20 steps" in call("likelihood", trained_run, "--steps", "5")
    assert "a chain of" not in call("likelihood", trained_run, "--steps", "20")
    names = {entry.name for entry in Store(trained_run / "results.h5").entries()}
    assert {"bound/full-5-steps/test/paper", "bound/full/test/paper"} <= names
    assert "21" in refuse("likelihood", trained_run, "--steps", "21")


def test_two_precisions_are_compared_pair_by_pair(trained_run):
    text = call("likelihood", trained_run, "--precision", "bf16", "--against", "fp32")
    assert "difference: bf16 - fp32, paired" in text and ", bf16" in text
    stratified = ["--estimator", "stratified"]
    assert "by the full estimator" in refuse("likelihood", trained_run, "--against", "bf16", *stratified)
    assert "another precision than fp32" in refuse("likelihood", trained_run, "--against", "fp32")
