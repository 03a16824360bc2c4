"""The page of a comparison: the leaderboard, paired differences, where they arise, curves and samples."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ddpm_eval.reporting import page
from ddpm_eval.reporting.bound_comparisons import step_differences
from ddpm_eval.reporting.curves import lines_of, zoom_into_the_end
from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.image_grids import pixel_table, plot_samples
from ddpm_eval.reporting.plots import plot_against, plot_rate_distortion, plot_step_differences
from ddpm_eval.reporting.provenance_rows import provenance_row
from ddpm_eval.reporting.quality_tables import quality_matrix, quality_table
from ddpm_eval.reporting.report_parts import Curve, Finding, Illustration, Section
from ddpm_eval.reporting.tables import format_estimate, heading, write_table
from experiments.comparison import (
    DIFFERENCE,
    LEADERBOARD,
    Comparison,
    Measured,
    checkpoint_curve,
    leaderboard,
    rate_distortion_curves,
)

HIDDEN = ("folder", "data_digest", "features_digest", "quality_protocol", "parameters")
"""Columns of the leaderboard that are in its CSV alone."""
DIFFERENCES = "differences"


def write_comparison(comparison: Comparison) -> Path:
    """Write the page and the leaderboard of a comparison; return the page's path.

    Raises:
        ValueError: if a file cannot be written.
    """
    names = " and ".join(dict.fromkeys(run.spec.data.name for run in comparison.runs))
    sections = [section(comparison) for section in SECTIONS]
    return page.write_report(
        comparison.report_folder,
        f"{len(comparison.runs)} models of {names}, compared",
        [section for section in sections if section is not None],
        [provenance_row(run.label, entry) for run in comparison.runs for entry in run.entries],
        _head(comparison),
        headline=headline(comparison),
    )


def _head(comparison: Comparison) -> dict[str, str]:
    return {
        "Runs": "; ".join(f"{run.label} ({run.folder})" for run in comparison.runs),
        "Differences": f"from {comparison.first.label}, the run that was named first",
        "Bound": _how(comparison),
    }


def _how(comparison: Comparison) -> str:
    """Say how all bounds were measured."""
    terms = comparison.first.terms
    return (
        f"the same {len(terms.image_id)} {terms.split} images of {comparison.first.spec.data.name} with the "
        f"same noise (seed {comparison.noise_seed}), T = {terms.num_steps}, {terms.protocol.caption()}, "
        f"{terms.estimator} estimator, {comparison.precision}, 95% intervals over images"
    )


def headline(comparison: Comparison) -> list[Finding]:
    """Return what was found, each claim with the interval that it rests on."""
    return [_fewest_bits(comparison), _narrower(comparison), *_nearest(comparison)]


def _fewest_bits(comparison: Comparison) -> Finding:
    """Say which model has the lowest bound, and whether the interval tells it from the next."""
    best, second = leaderboard(comparison).to_dict("records")[:2]
    runs = {run.label: run for run in comparison.runs}
    pair = replace(comparison, runs=[runs[best["run"]], runs[second["run"]]])
    row = pair.differences.set_index("quantity").loc["total"]
    value, low, high = (float(row[f"{DIFFERENCE}{end}"]) for end in ("", "_low", "_high"))
    verdict = "" if low > 0 else ": these images do not tell which of the two is lower"
    sentence = (
        f"{best['run']} has the lowest bound; {second['run']} comes next and needs "
        f"{format_estimate(value, low, high)} bits/dim more, paired by image{verdict}."
    )
    return Finding("Fewest bits/dim", _cell(best, "bits_per_dim"), sentence)


def _narrower(comparison: Comparison) -> Finding:
    """Say what pairing gained."""
    rows = comparison.differences.set_index("quantity").loc[["total"]]
    gains = rows["times_narrower"].dropna()
    ends = (gains.min(), gains.max()) if len(gains) else ()
    value = " to ".join(dict.fromkeys(f"{gain:,.0f}" if gain >= 10 else f"{gain:.1f}" for gain in ends))
    sentence = (
        "How many times narrower the interval of a difference of totals is than if each model had been "
        "measured on other images: all see the same images with the same noise."
    )
    return Finding("Gain of pairing", value, sentence)


def _nearest(comparison: Comparison) -> list[Finding]:
    """Say whose samples are nearest to the training images, and whether intervals tell them apart."""
    frame = leaderboard(comparison)
    if frame["frechet_distance"].notna().sum() < 2:
        return []
    best, second = frame.sort_values("frechet_distance").to_dict("records")[:2]
    apart = best["frechet_distance_high"] < second["frechet_distance_low"]
    verdict = "their intervals do not overlap" if apart else "their intervals overlap"
    sentence = (
        f"Smallest distance to the training images: of {best['n_samples']} samples of {best['run']}; "
        f"{second['run']} follows with {_cell(second, 'frechet_distance')}, and {verdict}."
    )
    name = next(iter(comparison.qualities.values())).distance_name
    return [Finding(name, _cell(best, "frechet_distance"), sentence)]


def _cell(row: dict[str, float], column: str) -> str:
    return format_estimate(row[column], row[f"{column}_low"], row[f"{column}_high"])


def leaderboard_section(comparison: Comparison) -> Section:
    """Render the table of all runs, and its CSV beside the page."""
    frame = leaderboard(comparison)
    caption = (
        f"The runs, the lowest bound first; {_how(comparison)}. The difference is from "
        f"{comparison.first.label}, paired by image. No interval is corrected for their number."
    )
    empty = [column for column in frame if frame[column].isna().all() or (frame[column] == "").all()]
    shown = frame.drop(columns=[column for column in frame if column in HIDDEN or column in empty])
    stem = comparison.report_folder / LEADERBOARD
    return Section("Leaderboard", tables=[write_table(frame, stem, caption, shown=shown)])


def differences_section(comparison: Comparison) -> Section:
    """Render the difference of each quantity, paired and as if unpaired."""
    caption = (
        f"Each quantity and its difference from {comparison.first.label} (run - {comparison.first.label}); "
        f"{_how(comparison)}. Paired: the interval of the images' differences. Unpaired: the interval of the "
        "same difference if the two had been measured on independent images."
    )
    table = write_table(comparison.differences, comparison.report_folder / "tables" / DIFFERENCES, caption)
    return Section("Differences, paired by image", _other_chains(comparison), [table])


def _other_chains(comparison: Comparison) -> str:
    """Say where equal steps are not equal noise levels."""
    if all(np.allclose(run.alpha_bar, comparison.first.alpha_bar) for run in comparison.runs):
        return ""
    return (
        "The runs have different noise schedules: their step t is not the same noise level, so compare their "
        "totals rather than their terms."
    )


def steps_section(comparison: Comparison) -> Section:
    """Draw the difference of each term, and of all terms up to t."""
    frame = step_differences(comparison.bounds)
    name = "step_differences"
    caption = (
        f"Left: the difference of each term from {comparison.first.label}. Right: of all terms up to t "
        "together, which ends at the difference of the totals but for the prior. Bands: paired intervals; "
        f"{_how(comparison)}."
    )
    stem = comparison.report_folder / "figures" / name
    figure = write_figure(plot_step_differences(frame), frame, stem, caption)
    panels = (
        ("term-differences", DIFFERENCE, "difference of the term (bits/dim)"),
        ("cumulated-differences", "cumulated_bits_per_dim", "cumulated up to t (bits/dim)"),
    )
    curves = [
        Curve(key, name, "t", label, lines_of(frame, "t", column), "x") for key, column, label in panels
    ]
    return Section("Where the difference arises", figures=[figure], interactive=curves)


def rate_distortion_section(comparison: Comparison) -> Section:
    """Draw the rate-distortion curves of all runs over each other."""
    frame = rate_distortion_curves(comparison)
    name = "rate_distortion"
    caption = f"Rate and distortion over the reverse process (Fig. 5 of the paper); {_how(comparison)}."
    stem = comparison.report_folder / "figures" / name
    figure = write_figure(plot_rate_distortion(frame), frame, stem, caption)
    steps, rate, error = "reverse_steps", "rate_bits_per_dim", "rmse_255"
    labels = {steps: "reverse steps taken", rate: heading(rate), error: heading(error)}
    panels = (
        ("distortion-over-steps", steps, error),
        ("rate-over-steps", steps, rate),
        ("distortion-over-rate", rate, error),
    )
    end = zoom_into_the_end(comparison.first.terms.num_steps)
    curves = [
        Curve(key, name, labels[x], labels[y], lines_of(frame, x, y), zooms=end if x == steps else {})
        for key, x, y in panels
    ]
    return Section("Rate and distortion", figures=[figure], interactive=curves)


def checkpoints_section(comparison: Comparison) -> Section | None:
    """Follow a training of which there are several checkpoints."""
    frame = checkpoint_curve(comparison)
    if not len(frame):
        return None
    labels = {"bits_per_dim": "bits/dim", DIFFERENCE: "difference (bits/dim)"}
    if frame["frechet_distance"].notna().any():
        features = next(iter(comparison.qualities.values())).features
        labels["frechet_distance"] = heading("frechet_distance", features)
    figures = [_over_updates(comparison, frame, column, label) for column, label in labels.items()]
    curves = [
        Curve(
            f"{figure.stem.name}-over-updates",
            figure.stem.name,
            "updates",
            label,
            lines_of(frame, "updates", column),
        )
        for figure, (column, label) in zip(figures, labels.items(), strict=True)
    ]
    return Section("Checkpoints of one training", figures=figures, interactive=curves)


def _over_updates(comparison: Comparison, frame: pd.DataFrame, column: str, label: str) -> Illustration:
    """Draw a column of the checkpoints' table against updates."""
    captions = {
        "bits_per_dim": f"Bits/dim against the updates of the training; {_how(comparison)}.",
        DIFFERENCE: f"The same as the difference from {comparison.first.label}, with paired intervals.",
        "frechet_distance": "Distance of samples to the training images, 95% intervals.",
    }
    figure = plot_against(frame, "updates", column, xlabel="updates", ylabel=label)
    stem = comparison.report_folder / "figures" / f"checkpoints_{column}"
    return write_figure(figure, frame, stem, captions[column])


def quality_section(comparison: Comparison) -> Section:
    """Render the sample quality of each run, and the first samples side by side."""
    title = "Sample quality"
    results = comparison.qualities
    without = [run.label for run in comparison.runs if run.quality is None]
    if not results:
        return Section(title, "Not measured: it needs labels or --inception-weights, and not --no-quality.")
    first = next(iter(results.values()))
    frame = quality_table(results)
    caption = (
        f"Sample quality; {first.caption}. Distances are not paired: their intervals are each run's own."
    )
    stem = comparison.report_folder / "tables" / "quality"
    table = write_table(frame, stem, caption, shown=quality_matrix(frame))
    notes = dict.fromkeys(quality.caveat for quality in results.values() if quality.caveat)
    missing = [f"Not measured of {', '.join(without)}."] if without else []
    return Section(title, "\n\n".join([*notes, *missing]), [table], [_samples(comparison)])


def _samples(comparison: Comparison) -> Illustration:
    shown: dict[str, Measured] = {run.label: run for run in comparison.runs if run.samples is not None}
    panels = {label: run.samples for label, run in shown.items() if run.samples is not None}
    seeds = {run.spec.seed for run in shown.values()}
    noise = " The same place has the same noise in each." if len(seeds) == 1 else ""
    caption = f"The first samples of each run, not selected, with all steps.{noise}"
    stem = comparison.report_folder / "figures" / "samples"
    return write_figure(plot_samples(panels), pixel_table(panels), stem, caption)


SECTIONS: tuple[Callable[[Comparison], Section | None], ...] = (
    leaderboard_section,
    differences_section,
    steps_section,
    rate_distortion_section,
    checkpoints_section,
    quality_section,
)
