"""Table 1: the models that the paper lists, measured here, above the literature's."""

import pandas as pd
from quality_examples import make_quality
from stored_results import cell_results, main_results, make_log, store_results
from tiny import TINY, tiny

from ddpm_eval.spec import NamedNetwork
from experiments.sections.table1 import section
from experiments.study import StudyOptions, resolve_run


def measured_rows(study):
    table = pd.read_csv(study.tables / "table1.csv")
    return table[table["model"].str.startswith("this run")]


def test_the_papers_models_stand_above_the_literature(measured):
    section(measured)
    rows = measured_rows(measured)
    assert rows["model"].tolist() == [
        "this run: eps, L, fixed variance",
        "this run: eps, MSE, fixed variance",
    ]
    assert rows.index.tolist() == [0, 1]
    assert rows["train_bits_per_dim"].notna().tolist() == [False, True]
    assert rows["test_bits_per_dim"].notna().all()
    assert set(rows["features"]) == {"digits-classifier"}
    distance = rows[["frechet_distance", "frechet_distance_low", "frechet_distance_high"]]
    assert distance.iloc[1].tolist() == [3.0, 2.0, 4.0]


def test_features_of_inception_are_named_as_in_the_literature(empty):
    quality = make_quality(features="inception-v3-compat")
    store_results(empty.main, {"training": make_log(), "quality": quality})
    section(empty)
    assert measured_rows(empty)["features"].tolist() == ["Inception"]


def test_a_model_without_quality_is_left_out(empty):
    results = main_results()
    results.pop("quality")
    store_results(empty.main, results)
    assert list(section(empty).tables) == []


def test_a_single_run_is_shown_whatever_it_predicts(tmp_path):
    spec = tiny(diffusion__prediction="mu")
    study = resolve_run(tmp_path / "model", spec, options=StudyOptions(tmp_path / "reports"))
    store_results(study.main, cell_results())
    section(study)
    assert measured_rows(study)["model"].tolist() == ["this run: model"]


def test_a_class_conditional_network_is_called_one(tmp_path):
    study = resolve_run(tmp_path / "model", class_conditional(), options=StudyOptions(tmp_path / "reports"))
    store_results(study.main, cell_results())
    section(study)
    assert measured_rows(study)["conditional"].tolist() == [True]
    lines = (study.tables / "table1.tex").read_text().splitlines()
    titles = [line.split(r"\textbf{")[1].rstrip(r"\ }") for line in lines if r"\textbf" in line]
    assert titles == ["Measured", "Conditional", "Unconditional"]
    (place,) = [position for position, line in enumerate(lines) if "{Conditional}" in line]
    assert lines[place + 1].startswith(r"\quad EBM (conditional)")


def class_conditional():
    """Return the specification of a network that takes classes and was named by --network."""
    network = NamedNetwork(
        reference="package.module:network",
        arguments=(),
        weights="0123456789ab",
        parameters=3,
        conditional=True,
        clip_samples=True,
    )
    return TINY.model_copy(update={"network": network})


def test_latex_has_the_groups_of_the_paper_below_what_was_measured(measured):
    section(measured)
    lines = (measured.tables / "table1.tex").read_text().splitlines()
    titles = [line for line in lines if r"\textbf" in line]
    assert [title.split(r"\textbf{")[1] for title in titles] == [
        r"Measured}} \\",
        r"Conditional}} \\",
        r"Unconditional}} \\",
    ]
    assert lines[lines.index(titles[1]) + 1] == r"\quad EBM (conditional) & 8.30 & 37.9 & -- & -- \\"
    assert lines[lines.index(titles[2]) + 1] == (
        r"\quad Diffusion (original) & -- & -- & $\leq$ 5.40 & -- \\"
    )
    ours = r"\quad DDPM (L\_simple) & 9.46 $\pm$ 0.11 & 3.17 & $\leq$ 3.75 & $\leq$ 3.72 \\"
    assert lines.count(ours) == 1


def test_the_literature_is_shown_as_it_was_published(measured):
    (table,) = section(measured).tables
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    ours = rows["DDPM (L_simple)"]
    assert (ours["score"], ours["Frechet distance"]) == ("9.46 ± 0.11", "3.17")
    assert (ours["test (bits/dim)"], ours["train (bits/dim)"]) == ("≤ 3.75", "≤ 3.72")
    assert rows["Gated PixelCNN"]["test (bits/dim)"] == "3.03"
    assert rows["EBM"]["test (bits/dim)"] == "--"
