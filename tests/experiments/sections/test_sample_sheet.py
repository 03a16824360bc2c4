"""The grid of samples: the first ones, beside real images where these are stored."""

from dataclasses import replace

import pandas as pd
from stored_results import main_results, make_samples, store_results

from experiments.sections.sample_sheet import SHOWN, section


def test_the_first_samples_are_shown_beside_real_images(measured):
    figure, _ = section(measured).figures
    panels = pd.read_csv(figure.stem.with_suffix(".csv"))["panel"].value_counts().to_dict()
    assert panels == {"samples of eps, MSE, fixed variance": SHOWN, "digits, train images": 3}
    assert figure.stem == measured.figures / "samples"
    assert figure.caption == (
        "The first 64 samples (not selected) of eps, MSE, fixed variance on digits, ancestral sampling, 20 "
        "steps, beside real images."
    )


def test_samples_are_shown_without_real_images(empty):
    results = main_results()
    store_results(empty.main, {name: results[name] for name in ("training", "samples")})
    (figure,) = section(empty).figures
    assert pd.read_csv(figure.stem.with_suffix(".csv"))["panel"].nunique() == 1


def test_the_samples_of_all_runs_from_the_same_noise_stand_in_rows(measured):
    _, figure = section(measured).figures
    panels = pd.read_csv(figure.stem.with_suffix(".csv"))["panel"].value_counts(sort=False).to_dict()
    assert panels == {run.words: 12 for run in measured.runs}
    assert "the same noise through the whole reverse process" in figure.caption


def test_samples_from_other_noise_are_not_beside_each_other(empty):
    results = main_results()
    store_results(empty.main, results)
    other = {"training": results["training"], "samples": replace(make_samples(), seed=1)}
    store_results(empty.runs[0], other)
    found = section(empty)
    assert [figure.stem.name for figure in found.figures] == ["samples"]
    (choice,) = found.interactive
    assert [option.label for option in choice.options] == [empty.main.words, empty.runs[0].words]


def test_the_run_whose_samples_are_shown_can_be_chosen_with_its_numbers(measured):
    (choice,) = section(measured).interactive
    assert choice.options[0].label == "eps, MSE, fixed variance"
    assert {option.label for option in choice.options} == {run.words for run in measured.runs}
    first, second = choice.options[:2]
    assert (len(first.images), len(second.images)) == (70, 20)
    assert first.numbers["Frechet distance (digits classifier)"] == "3.0 [2.0, 4.0]"
    assert list(first.numbers)[-1] == "bits/dim (test)"


def test_shown_samples_that_are_not_finite_are_counted(empty):
    log = main_results()["training"]
    store_results(empty.main, {"training": log, "samples": make_samples(broken=[0, 40, 65])})
    store_results(empty.runs[0], {"training": log, "samples": make_samples(broken=[1, 2])})
    found = section(empty)
    alone, rows = [figure.caption for figure in found.figures]
    end = " samples that are shown are not finite, and grey stands for them."
    assert alone.endswith(f"beside real images. 2{end}")
    assert rows.endswith(f"by the models alone. 3{end}")
    (choice,) = found.interactive
    assert [option.numbers["not finite (grey)"] for option in choice.options] == ["3 of 70", "2 of 70"]
