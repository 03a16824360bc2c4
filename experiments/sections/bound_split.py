"""Section 4.3: the split into rate and distortion, Table 4, Fig. 5, and every term of the bound."""

import pandas as pd

from ddpm_eval.reporting.bound_comparisons import baseline_table, simple_codes_table
from ddpm_eval.reporting.bound_tables import bound_estimates, split_table, terms_table
from ddpm_eval.reporting.curves import lines_of, papers_marks, zoom_into_the_end
from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.latex import LatexLayout
from ddpm_eval.reporting.plots import plot_ranges, plot_rate_distortion, plot_terms
from ddpm_eval.reporting.rate_distortion_tables import rate_distortion_curve, table4
from ddpm_eval.reporting.report_parts import Curve, Illustration, Section, Table
from ddpm_eval.reporting.tables import write_table
from ddpm_eval.reporting.term_ranges import range_table
from ddpm_eval.results.bound_terms import BoundTerms
from ddpm_eval.results.records import Baseline, SimpleCodes
from experiments.describe import paper_columns
from experiments.left_out import left_out
from experiments.paper import published
from experiments.study import Study, StudyRun
from experiments.variance_floors import variance_floors

FEW_LEVELS = 64
RATE = "rate (bits/dim)"
DISTORTION = "distortion (RMSE on 0-255)"
TITLE = "Rate and distortion (Table 4, Fig. 5)"
OF_FEWER = (
    " (which needs every term and is therefore of fewer images than the split; their rates differ by chance)"
)


def section(study: Study) -> Section:
    """Render the split, Table 4, Fig. 5 and the bound's terms."""
    terms = study.bound_run.bound()
    if terms is None:
        return left_out(TITLE, study.bound_run, "bound-test-protocols")
    every_term = study.bound_run.full_bound() or terms
    tables = _tables(study, terms, every_term)
    figures = _figures(study, every_term)
    return Section(TITLE, _not_beaten(study), tables, figures, _curves(study, every_term))


def _how(study: Study, terms: BoundTerms) -> str:
    """Say what was measured, and by which estimator if it is not of all T terms."""
    estimator = "all terms" if terms.estimator == "full" else "the stratified estimator"
    return (
        f"{study.bound_run.spec.data.name} test set, n = {len(terms.image_id)} images, "
        f"{terms.protocol.caption()}, {estimator}, 95% intervals over images"
    )


def _tables(study: Study, terms: BoundTerms, every_term: BoundTerms) -> list[Table]:
    split = write_table(
        split_table(terms, published.SPLIT_BITS_PER_DIM),
        study.tables / "split",
        "The bound split into rate L_1 + ... + L_(T-1), distortion L_0 and prior L_T; "
        f"{_how(study, terms)}. {paper_columns(study)}",
    )
    fewer = len(every_term.image_id) < len(terms.image_id)
    steps = table4(every_term, published.table_4())
    compression = write_table(
        steps,
        study.tables / "table4",
        "Progressive lossy compression: rate received before each estimate of x_0, and its error; "
        f"{_how(study, every_term)}{OF_FEWER if fewer else ''}. {paper_columns(study)}",
        layout=_table4_layout(steps),
    )
    return [split, compression, *(table for run in study.subjects for table in _baselines(study, run))]


def _table4_layout(steps: pd.DataFrame) -> LatexLayout:
    """Return the layout of the paper's Table 4, with the paper's values behind the measured ones."""
    return LatexLayout(
        label="Reverse process time ($T - t + 1$)",
        rows=[str(step) for step in steps["reverse_steps"]],
        columns={
            **{"rate_bits_per_dim": "Rate (bits/dim)", "rmse_255": "Distortion (RMSE, 0--255)"},
            **{"paper_rate_bits_per_dim": "Rate", "paper_rmse_255": "Distortion"},
        },
        spans=(("measured", 2), ("paper (CIFAR-10)", 2)),
    )


def _baselines(study: Study, run: StudyRun) -> list[Table]:
    """Return the table of what a run's model should beat, if it is measured."""
    terms = run.bound()
    baseline = run.result("baseline", Baseline)
    codes = run.result("simple-codes", SimpleCodes)
    if terms is None or baseline is None:
        return []
    caption = (
        f"The model's bound beside a Gaussian fitted to the {baseline.n_train} training images: its exact "
        "negative log likelihood (images spread over their 8-bit bins), and the exact bound of its exact "
        f"denoiser (unclipped, exact decoder, {baseline.variance}, no noise drawn); "
        f"{run.spec.data.name} test set, 95% intervals over images. "
        "The bound may be below the likelihood: the decoder's outer bins are open (docs/protocol.md)."
    )
    frame = baseline_table(terms, baseline)
    if codes is not None:
        frame = pd.concat([frame, simple_codes_table(codes)], ignore_index=True)
        caption += f" {_without_network(codes)}"
    name = "baseline" if run is study.bound_run else f"baseline_{run.spec.preset}"
    return [write_table(frame, study.tables / name, caption)]


def _without_network(codes: SimpleCodes) -> str:
    notes = f" ({codes.coder_notes})" if codes.coder_notes else ""
    return (
        f"Histograms are of the {codes.n_train} training images; coders without loss take all "
        f"{codes.n_coded} test images as one sheet{notes}."
    )


def _not_beaten(study: Study) -> str:
    """Say of each subject which baselines its model does not beat, and why where images have few levels."""
    return "\n\n".join(filter(None, map(_not_beaten_by, study.subjects)))


def _not_beaten_by(run: StudyRun) -> str:
    terms = run.bound()
    codes = run.result("simple-codes", SimpleCodes)
    if terms is None or codes is None:
        return ""
    ours = bound_estimates(terms)["total"]
    table = simple_codes_table(codes)
    better = table[table["bits_per_dim"] <= ours.high]
    if not len(better):
        return ""
    names = ", ".join(f"{row.model} ({row.bits_per_dim:.3g})" for row in better.itertuples())
    text = f"On {run.spec.data.name} the model's bound ({ours.value:.3g} bits/dim) does not beat: {names}."
    if codes.n_coded != len(terms.image_id):
        text += (
            f" The coders take all {codes.n_coded} test images, the model's bound is of "
            f"{len(terms.image_id)} of them, so these numbers are not of the same pixels."
        )
    if codes.levels < FEW_LEVELS:
        text += (
            f" Its images have {codes.levels} of 256 levels only, which a histogram knows, whereas "
            "the model's decoder spreads over the levels between; bits/dim there mean little."
        )
    return text


def _curves(study: Study, terms: BoundTerms) -> list[Curve]:
    """Return the same curves and terms, to be read off."""
    curve = rate_distortion_curve(terms)
    every_term = terms_table(terms, variance_floors(study.bound_run, terms.variance))
    every_term["reverse_steps"] = terms.num_steps - every_term["t"] + 1
    paper = published.table_4()
    end = zoom_into_the_end(terms.num_steps)
    quantities = (("rate_bits_per_dim", RATE), ("rmse_255", DISTORTION))
    over_steps = [
        Curve(
            f"{column.partition('_')[0]}-over-steps",
            "rate_distortion",
            "reverse steps taken",
            label,
            [
                *lines_of(curve, "reverse_steps", column),
                *([papers_marks(paper, "reverse_steps", column)] if len(curve) == len(paper) * 100 else []),
            ],
            zooms=end,
        )
        for column, label in quantities
    ]
    lines = [
        *lines_of(curve, "rate_bits_per_dim", "rmse_255"),
        papers_marks(paper, "rate_bits_per_dim", "rmse_255"),
    ]
    return [
        *over_steps,
        Curve("distortion-over-rate", "rate_distortion", RATE, DISTORTION, lines),
        Curve(
            "every-term",
            "terms",
            "reverse steps taken",
            "term of the bound (bits/dim)",
            lines_of(every_term, "reverse_steps", "bits_per_dim"),
            "y",
            end,
        ),
    ]


def _figures(study: Study, terms: BoundTerms) -> list[Illustration]:
    how = _how(study, terms)
    curve = rate_distortion_curve(terms)
    every_term = terms_table(terms, variance_floors(study.bound_run, terms.variance))
    ranges = range_table(terms)
    codes = study.bound_run.result("simple-codes", SimpleCodes)
    constant = None if codes is None else codes.mean_image_rmse
    line = "" if constant is None else f" Dotted: the mean training image as the estimate ({constant:.3g})."
    return [
        write_figure(
            plot_rate_distortion(curve, published.table_4(), constant),
            curve,
            study.figures / "rate_distortion",
            f"Rate and distortion over the reverse process (Fig. 5); {how}. "
            f"Crosses: the paper's Table 4, CIFAR-10.{line}",
        ),
        write_figure(
            plot_ranges(ranges),
            ranges,
            study.figures / "bits",
            f"Where the bits go: the terms of the bound by ranges of t, with their shares; {how}.",
        ),
        write_figure(
            plot_terms(every_term), every_term, study.figures / "terms", f"Every term of the bound; {how}."
        ),
    ]
