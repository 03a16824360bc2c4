"""``reproduce`` at its smallest: what it prints, the tables and figures, and that it is done once."""

import re
from pathlib import Path

import pandas as pd
import pytest
from command_line import SETTINGS, call, folders

from experiments.paper.presets import TABLE_2
from experiments.paper.published import table_2

pytestmark = pytest.mark.slow


def test_it_prints_the_tables_and_the_reports_path(reproduced):
    folder, output = reproduced
    report = Path(re.search(r"Report: (.*)", output)[1])
    assert report.is_file() and report.parent.parent == folder / "reports"
    assert report.parent.name.startswith("default-")
    assert "rate" in output and "reverse steps" in output and "eps" in output


def test_tables_have_the_columns_that_scripts_rely_on(reproduced):
    folder = next((reproduced[0] / "reports").iterdir()) / "tables"
    expected = {
        "table2": "prediction objective variance status score score_std "
        "frechet_distance frechet_distance_low frechet_distance_high "
        "bits_per_dim bits_per_dim_low bits_per_dim_high n_samples features paper_inception_score paper_fid",
        "split": "quantity bits_per_dim low high n_images split variance paper_bits_per_dim",
        "table4": "reverse_steps t rate_bits_per_dim rmse_255 paper_rate_bits_per_dim paper_rmse_255",
    }
    for name, columns in expected.items():
        found = list(pd.read_csv(folder / f"{name}.csv").columns)
        assert found[: len(columns.split())] == columns.split(), name
        assert (folder / f"{name}.md").exists() and (folder / f"{name}.tex").exists()
    table = pd.read_csv(folder / "table2.csv")
    assert len(table) == len(table_2()) == len(TABLE_2) == 6 and set(table["status"]) <= {"ok", "diverged"}
    split = pd.read_csv(folder / "split.csv").set_index("quantity")["bits_per_dim"]
    assert split[["rate", "distortion", "prior"]].sum() == pytest.approx(split["total"], abs=1e-6)


def test_figures_come_as_png_and_pdf_with_their_numbers(reproduced):
    folder = next((reproduced[0] / "reports").iterdir()) / "figures"
    names = {path.stem for path in folder.glob("*.png")}
    expected = {"samples", "rate_distortion", "progressive", "table2", "terms", "interpolation", "estimators"}
    expected |= {"shared_latents", "interpolation_times"}
    assert expected <= names
    assert names == {path.stem for path in folder.glob("*.pdf")}
    assert names == {path.stem for path in folder.glob("*.csv")}


def test_likelihood_is_of_the_photos_and_the_ablation_of_the_digits(reproduced):
    runs = reproduced[0] / "runs"
    assert len(list((runs / "digits").iterdir())) == len(TABLE_2)
    assert len(list((runs / "photos").iterdir())) == 1
    text = next((reproduced[0] / "reports").iterdir()).joinpath("report.md").read_text()
    assert "photos test set, n = 24 images" in text
    assert "Ablation of prediction, objective and variance on digits" in text


def test_a_second_call_and_report_only_render(reproduced):
    folder, output = reproduced
    stores = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.h5")}
    assert output.endswith(call("reproduce", *folders(folder), *SETTINGS))  # without the lines about each run
    assert "Report:" in call("report", *folders(folder), *SETTINGS)
    assert stores == {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.h5")}
