"""Tables of compared runs against what was measured of each, and the page that is made from it."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from described_columns import assert_described
from quality_examples import make_quality
from simulated_bounds import NATS, realistic
from stored_results import images, make_log
from tiny import TINY, tiny

from ddpm_eval.reporting.bound_comparisons import paired_table
from ddpm_eval.reporting.bound_tables import bound_estimates
from experiments.comparison import (
    Comparison,
    Measured,
    checkpoint_curve,
    leaderboard,
    rate_distortion_curves,
)
from experiments.comparison_report import (
    differences_section,
    headline,
    quality_section,
    write_comparison,
)
from experiments.csv_columns import COMPARISON


def make_run(folder, label, terms, *, spec=TINY, distance=3.0, steps=30, **log):
    """Return a run of which everything was measured."""
    return Measured(
        label=label,
        folder=folder / label,
        spec=spec,
        log=make_log(steps=steps, **log),
        weights=f"weights of {label}",
        terms=terms,
        alpha_bar=np.linspace(0.99, 0.01, 20),
        entries=(),
        quality=make_quality(caption="70 samples", frechet_distance=(distance, distance - 1, distance + 1)),
        samples=images(8),
    )


def shifted(terms, bits):
    """Return terms with so many bits/dim more at t = 1, but for a tenth that differs between images."""
    more = bits * np.linspace(0.9, 1.1, len(terms.terms)) * NATS
    values = terms.terms.copy()
    values[:, 0] += more
    return replace(terms, terms=values)


@pytest.fixture
def comparison(tmp_path):
    """A first run, a later checkpoint of it that is better, and another model that is worse."""
    first = realistic(50, np.random.default_rng(41), steps=20)
    runs = [
        make_run(tmp_path, "early", first, steps=10, distance=9.0),
        make_run(tmp_path, "late", shifted(first, -0.5), distance=3.0),
        make_run(tmp_path, "other", shifted(first, 0.25), spec=tiny(seed=4), distance=4.0),
    ]
    return Comparison(runs, "d" * 12, 7, "fp32", tmp_path / "report")


def test_the_leaderboard_has_a_row_for_each_run_the_lowest_bound_first(comparison):
    frame = leaderboard(comparison).set_index("run")
    assert list(frame.index) == ["late", "early", "other"]
    for run in comparison.runs:
        row = frame.loc[run.label]
        estimates = bound_estimates(run.terms)
        for column, quantity in {"bits_per_dim": "total", "rate_bits_per_dim": "rate"}.items():
            ends = [row[f"{column}{end}"] for end in ("", "_low", "_high")]
            assert ends == list(estimates[quantity][:3])
        distance = [row[f"frechet_distance{end}"] for end in ("", "_low", "_high")]
        assert distance == list(run.quality.frechet_distance[:3])
        assert row["weights"] == f"weights of {run.label}" and row["folder"] == str(run.folder)
    paired = paired_table(comparison.runs[1].terms, comparison.runs[0].terms, ("a", "b")).iloc[-1]
    late = [frame.loc["late", f"difference_bits_per_dim{end}"] for end in ("", "_low", "_high")]
    assert late == [paired[f"difference{end}"] for end in ("", "_low", "_high")]
    assert math.isnan(frame.loc["early", "difference_bits_per_dim"])
    assert list(frame["updates"]) == [30, 10, 30] and set(frame["n_samples"]) == {512}
    same = frame[["n_images", "data", "split", "data_digest", "timesteps", "protocol", "noise_seed"]]
    assert same.drop_duplicates().values.tolist() == [[50, "digits", "test", "d" * 12, 20, "exact", 7]]


def test_what_is_not_known_of_a_run_is_left_empty(comparison):
    bare = replace(comparison.runs[2], quality=None, samples=None, log=make_log(status="imported"))
    frame = leaderboard(replace(comparison, runs=[*comparison.runs[:2], bare])).set_index("run")
    row = frame.loc["other"]
    assert row["updates"] is pd.NA and row["n_samples"] is pd.NA
    assert math.isnan(row["frechet_distance"]) and row["features"] == ""
    assert frame.loc["late", "n_samples"] == 512


def test_the_checkpoints_of_one_training_are_a_curve_over_updates(comparison):
    frame = checkpoint_curve(comparison)
    assert frame["updates"].tolist() == [10, 30]
    assert set(frame["run"]) == {f"eps-mse-fixed-large {TINY.training_digest()}"}
    board = leaderboard(comparison).set_index("run").loc[["early", "late"]]
    np.testing.assert_array_equal(frame["bits_per_dim"], board["bits_per_dim"])
    np.testing.assert_array_equal(frame["frechet_distance"], [9.0, 3.0])
    assert frame["difference_bits_per_dim"].tolist() == [0, board.loc["late", "difference_bits_per_dim"]]
    others = replace(comparison, runs=[comparison.runs[0], comparison.runs[2]])
    assert checkpoint_curve(others).empty


def test_the_curves_of_all_runs_lie_over_each_other(comparison):
    frame = rate_distortion_curves(comparison)
    assert frame.groupby("run", sort=False).size().to_dict() == {"early": 20, "late": 20, "other": 20}


def sections(page):
    """Return the text of each section of a report by its title."""
    parts = page.with_name("report.md").read_text().split("\n## ")
    return {part.partition("\n")[0]: part for part in parts[1:]}


def test_the_page_says_who_needs_fewest_bits_and_where(comparison):
    page = write_comparison(comparison)
    assert page == comparison.report_folder / "index.html"
    text = page.with_name("report.md").read_text()
    assert text.startswith("# 3 models of digits, compared\n")
    paired = paired_table(comparison.runs[0].terms, comparison.runs[1].terms, ("a", "b")).iloc[-1]
    assert f"late has the lowest bound; early comes next and needs {paired['difference']:.4f}" in text
    assert "do not tell which" not in text
    assert "of 512 samples of late; other follows with 4.0 [3.0, 5.0], and their intervals overlap" in text
    assert list(sections(page)) == [
        "Leaderboard",
        "Differences, paired by image",
        "Where the difference arises",
        "Rate and distortion",
        "Checkpoints of one training",
        "Sample quality",
    ]
    assert "Not measured" not in text
    below = {path.relative_to(page.parent).as_posix() for path in page.parent.rglob("*.csv")}
    assert below == {
        "leaderboard.csv",
        *("tables/differences.csv", "tables/quality.csv"),
        *("figures/step_differences.csv", "figures/rate_distortion.csv", "figures/samples.csv"),
        *(f"figures/checkpoints_{name}.csv" for name in ("bits_per_dim", "difference_bits_per_dim")),
        "figures/checkpoints_frechet_distance.csv",
    }
    assert_described(page.parent, COMPARISON)
    steps = pd.read_csv(page.parent / "figures" / "step_differences.csv")
    late = steps[steps["run"] == "late"].set_index("t")["difference_bits_per_dim"]
    assert late[1] == pytest.approx(-0.5) and late[2:].abs().max() < 1e-12


def test_what_the_interval_does_not_decide_is_not_decided(comparison):
    noise = np.random.default_rng(42).normal(0, NATS, (50, 20)) / 20
    first = comparison.runs[0]
    alike = replace(comparison.runs[2], terms=replace(first.terms, terms=first.terms.terms + noise))
    best, gain, distance = headline(replace(comparison, runs=[first, alike]))
    assert "these images do not tell which of the two is lower" in best.sentence
    assert "their intervals do not overlap" in distance.sentence  # 9 and 4, both plus or minus 1
    assert 5 < float(gain.value) < 50
    same = replace(comparison.runs[2], terms=first.terms, quality=None)
    best, gain = headline(replace(comparison, runs=[first, same]))
    assert "needs 0 bits/dim more" in best.sentence and gain.value == ""


def test_the_sections_say_where_noise_schedules_and_measurements_differ(comparison):
    faster = np.linspace(0.99, 0.01, 20) ** 2
    other = replace(comparison.runs[2], alpha_bar=faster, quality=None, samples=None)
    assert (
        "different noise schedules"
        in differences_section(replace(comparison, runs=[comparison.runs[0], other])).text
    )
    assert differences_section(comparison).text == ""
    assert (
        quality_section(replace(comparison, runs=[comparison.runs[0], other])).text
        == "Not measured of other."
    )
    nothing = replace(comparison, runs=[replace(run, quality=None) for run in comparison.runs])
    assert quality_section(nothing).text.startswith("Not measured: it needs labels or --inception-weights")
