"""Table 2 shows all six cells, says how each was measured, and which diverged."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from described_columns import assert_described
from pdflatex import compile_tables, needs_pdflatex
from quality_examples import make_quality
from stored_results import STEPS, cell_results, make_log, store_results

from ddpm_eval.reporting.ablation_table import TABLE2_COLUMNS
from experiments.csv_columns import REPORT
from experiments.sections import bound_split, table1, table2
from experiments.sections.table2 import section
from experiments.study import StudyOptions, replicated, resolve_preset


def resolve(folder, seed):
    """Return the digits' study of a seed, on a chain of a few steps."""
    settings = {"diffusion.timesteps": str(STEPS)}
    options = StudyOptions(folder / "reports")
    return resolve_preset("digits", settings, seed, runs=folder / "runs", options=options)


def test_all_six_cells_are_shown_with_the_papers_numbers(measured):
    found = section(measured)
    table = pd.read_csv(measured.tables / "table2.csv")
    assert list(table.columns) == list(TABLE2_COLUMNS)
    assert set(table["status"]) == {"ok"}
    assert table["paper_fid"].dropna().tolist() == [23.69, 13.22, 13.51, 3.17]
    column = found.tables[0].header.index("paper (CIFAR-10): IS")
    shown = [row[column] for row in found.tables[0].rows]
    assert shown == ["7.28 ± 0.10", "8.06 ± 0.09", "--", "--", "7.67 ± 0.13", "9.46 ± 0.11"]
    assert found.text == ""
    caption = found.tables[0].caption
    assert caption.startswith(
        "Ablation of prediction, objective and variance on digits; samples against the 1437 train images, "
        "protocol standard, as the table of sample quality says in full. Bits/dim: of test images, 95% "
        "intervals over them (all terms of 1, the stratified estimator of 5). Each cell was trained once"
    )
    assert caption.endswith("another data set, shown for orientation only.")
    assert found.figures[0].caption.startswith("Table 2 as points with 95% intervals, mu orange and eps blue")


def test_what_a_narrow_page_may_hide_comes_last_or_is_said_once(measured):
    (table,) = section(measured).tables
    last = ("std over splits", "n (samples)", "n (images)", "features", "reference distance")
    shown = [name for name in table.header if name in last]
    assert table.header[len(table.header) - len(shown) :] == tuple(shown)
    assert {*shown, *(name for name, _ in table.constants)} >= set(last)


def test_latex_has_the_layout_of_the_paper(measured):
    section(measured)
    lines = (measured.tables / "table2.tex").read_text().splitlines()
    assert lines[lines.index(r"\toprule") + 1 : lines.index(r"\midrule")] == [
        r" & \multicolumn{3}{c}{measured} & \multicolumn{2}{c}{paper (CIFAR-10)} \\",
        r"\cmidrule(lr){2-4} \cmidrule(lr){5-6}",
        r"Objective & score & Frechet distance & bits/dim & IS & FID \\",
    ]
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert [line.split(" & ")[0] for line in body] == [
        r"\multicolumn{6}{l}{\textbf{$\tilde\mu$ prediction (baseline)}} \\",
        r"\quad $L$, learned diagonal $\Sigma$",
        r"\quad $L$, fixed isotropic $\Sigma$",
        r"\quad $\|\tilde\mu - \tilde\mu_\theta\|^2$",
        r"\addlinespace",
        r"\multicolumn{6}{l}{\textbf{$\epsilon$ prediction}} \\",
        r"\quad $L$, learned diagonal $\Sigma$",
        r"\quad $L$, fixed isotropic $\Sigma$",
        r"\quad $\|\tilde\epsilon - \epsilon_\theta\|^2$ ($L_\mathrm{simple}$)",
    ]
    assert body[1].endswith(r" & 7.28 $\pm$ 0.10 & 23.69 \\") and body[3].endswith(r" & -- & -- \\")


@pytest.mark.slow
@needs_pdflatex
def test_pdflatex_sets_the_papers_tables(measured, tmp_path):
    for one in (table1, table2, bound_split):
        one.section(measured)
    names = ["table1", "table2", "table4"]
    for name in names:
        shutil.copy(measured.tables / f"{name}.tex", tmp_path)
    compile_tables(tmp_path, names)


def test_cells_that_diverged_are_results(empty):
    first = empty.runs[0]
    store_results(first, {"training": make_log(status="diverged", reason="loss is nan at update 7")})
    found = section(empty)
    assert found.text == "Cells that diverged are results, as in the paper: mu/vlb: loss is nan at update 7."
    status = pd.read_csv(empty.tables / "table2.csv")["status"].tolist()
    assert status == ["diverged", *["missing"] * 5]
    assert list(found.figures) == []  # nothing was measured
    assert (
        "sample quality not measured (without labels it needs --inception-weights)" in found.tables[0].caption
    )


def test_rows_say_where_gradients_were_clipped(empty):
    norms = np.array([31.0] * 30)
    store_results(empty.runs[0], {**cell_results(), "training": make_log(gradient_norm=norms)})
    store_results(empty.main, cell_results())
    found = section(empty)
    assert found.text == (
        "Gradients were clipped at norm 1 in most updates of mu, L, learned (100%, median norm 31)."
    )
    (table,) = found.tables
    column = table.header.index("share of updates clipped")
    assert [row[column] for row in table.rows] == ["1", "--", "--", "--", "--", "0"]


@pytest.mark.parametrize("left_out", ["quality", "training"])
def test_a_cell_is_missing_until_everything_is_measured(empty, left_out):
    results = cell_results()
    store_results(empty.main, {name: record for name, record in results.items() if name != left_out})
    section(empty)
    if left_out == "training":  # without it the weights of the results are not known
        assert not empty.report_folder.exists()
    else:
        assert pd.read_csv(empty.tables / "table2.csv")["status"].tolist() == ["missing"] * 6


def test_of_one_training_the_caption_says_what_the_intervals_leave_out(measured):
    found = section(measured)
    assert "trained once: the intervals leave out what another seed would change" in found.tables[0].caption
    assert [table.stem.name for table in found.tables] == ["table2"]


def test_of_several_seeds_table_2_has_means_and_the_spread_between_trainings(tmp_path):
    study = replicated(lambda seed: resolve(tmp_path, seed), 0, 3)
    distances = {run.folder: 10.0 for run in study.every_run}
    distances |= {one.main.folder: best for one, best in zip(study.seeds, (3.0, 4.0, 5.0), strict=True)}
    for run in study.every_run:
        low_high = (distances[run.folder] - 1, distances[run.folder] + 1)
        quality = make_quality(frechet_distance=(distances[run.folder], *low_high))
        store_results(run, {**cell_results(), "quality": quality})
    found = section(study)
    assert [table.stem.name for table in found.tables] == ["table2", "table2_seeds", "table2_differences"]
    table = pd.read_csv(study.tables / "table2.csv")
    assert list(table.columns)[: len(TABLE2_COLUMNS)] == list(TABLE2_COLUMNS)
    main = table.iloc[-1]
    half = 4.302653 / np.sqrt(3)  # Student's t with two degrees of freedom
    assert (main["frechet_distance"], main["frechet_distance_std_over_trainings"], main["trainings"]) == (
        4.0,
        1.0,
        3,
    )
    assert main["frechet_distance_high"] == pytest.approx(4.0 * np.exp(half / 4.0))  # of the logarithm
    assert "Means of 3 trainings of each cell, seeds 0 to 2" in found.tables[0].caption
    seeds = pd.read_csv(study.tables / "table2_seeds.csv")
    assert seeds["seed"].tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert seeds["frechet_distance"].iloc[[5, 11, 17]].tolist() == [3.0, 4.0, 5.0]
    assert_described(study.report_folder, REPORT)
    differences = pd.read_csv(study.tables / "table2_differences.csv")
    assert differences["frechet_distance"].tolist() == [6.0] * 5
    assert differences["frechet_distance_low"].tolist() == pytest.approx([6.0 - half] * 5)
    assert differences["bits_per_dim"].tolist() == [0.0] * 5  # all are of the same made-up terms
    for name in ("frechet_distance", "bits_per_dim"):
        assert set(differences[f"{name}_trainings"]) == {3}


@pytest.fixture
def of_three_seeds(tmp_path):
    """A study of three seeds whose first cell diverged with seed 1 and was clipped with seeds 1 and 2."""
    study = replicated(lambda seed: resolve(tmp_path, seed), 0, 3)
    norms = {0: [0.5] * 30, 1: [31.0] * 30, 2: [2.0] * 24 + [0.5] * 6}
    for one in study.seeds:
        for run in one.runs:
            store_results(run, cell_results())
        seed = one.main.spec.seed
        log = make_log(gradient_norm=np.array(norms[seed]))
        if seed == 1:
            log = replace(log, status="diverged", reason="loss is nan at update 7")
        kept = {name: record for name, record in cell_results().items() if seed != 1 or name == "samples"}
        shutil.rmtree(one.runs[0].folder)
        store_results(one.runs[0], {**kept, "training": log})
    return study


def test_of_several_seeds_the_text_names_the_seed(of_three_seeds):
    found = section(of_three_seeds)
    table = pd.read_csv(of_three_seeds.tables / "table2.csv")
    assert table["status"][0] == "diverged in 1 of 3"
    assert found.text == (
        "Cells that diverged are results, as in the paper: mu/vlb, seed 1: loss is nan at update 7.\n\n"
        "Gradients were clipped at norm 1 in most updates of mu, L, learned, seed 1 (100%, median norm 31); "
        "mu, L, learned, seed 2 (80%, median norm 2)."
    )


def test_of_several_seeds_the_share_of_clipped_updates_is_their_mean(of_three_seeds):
    (table, *_) = section(of_three_seeds).tables
    column = table.header.index("share of updates clipped")
    assert [row[column] for row in table.rows] == ["0.6", "0", "0", "0", "0", "0"]


def test_differences_say_how_many_trainings_are_behind_each(of_three_seeds):
    section(of_three_seeds)
    table = pd.read_csv(of_three_seeds.tables / "table2_differences.csv")
    assert table["frechet_distance_trainings"].tolist() == [3] * 5
    assert table["bits_per_dim_trainings"].tolist() == [2] + [3] * 4
    assert_described(of_three_seeds.report_folder, REPORT)
