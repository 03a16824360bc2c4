"""The report of whatever is stored, as it says it and as it is written anew."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from described_columns import assert_described
from quality_examples import make_quality
from stored_results import cell_results, main_results, make_log, store_results, store_study
from tiny import TINY

from ddpm_eval.reporting.report_parts import Section
from experiments import report as module
from experiments.csv_columns import REPORT
from experiments.report import Report, summary, write_report
from experiments.study import StudyOptions, StudyRun, resolve_default, resolve_preset, resolve_run

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_TORCH = """
import sys
class NotInstalled:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "torch_fidelity", "safetensors"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
from pathlib import Path
from experiments.report import write_report
from experiments.study import StudyOptions, measured_spec, resolve_preset, resolve_run
runs, reports = map(Path, sys.argv[1:])
study = resolve_preset("digits", runs=runs, options=StudyOptions(reports))
print(write_report(study))
folder = runs / "imported" / "model"
print(write_report(resolve_run(folder, measured_spec(folder), options=StudyOptions(reports))))
"""


def preset_study(folder, settings=None):
    options = StudyOptions(folder / "reports")
    return resolve_preset("digits", settings, runs=folder / "runs", options=options)


def titles(page):
    lines = page.with_name("report.md").read_text().splitlines()
    return [line.removeprefix("## ") for line in lines if line.startswith("## ")]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A study with results of all runs, and the page of its report."""
    study = preset_study(tmp_path_factory.mktemp("study"))
    store_study(study)
    return study, write_report(study)


def test_every_part_of_the_report_is_there_in_the_papers_order(written):
    _, page = written
    assert titles(page) == [
        "What the paper claims, checked",
        "Samples (Fig. 13)",
        "Ablation (Table 2)",
        "What L and L_simple weight (section 3.4)",
        "Rate and distortion (Table 4, Fig. 5)",
        "One model under every protocol",
        "Bits/dim against the number of steps",
        "Progressive generation (Figs. 6 and 14)",
        "Samples that share a latent (Fig. 7)",
        "Quality over the reverse process (Fig. 10)",
        "Quality against the number of sampling steps",
        "Nearest neighbours of the samples (Fig. 15)",
        "Interpolation (Fig. 8)",
        "Interpolation at several times (Fig. 9)",
        "Sample quality of every run",
        "Sample quality and bits/dim beside the literature (Table 1)",
        "Training",
        "How each number was made",
    ]
    text = page.with_name("report.md").read_text()
    assert "Not measured:" not in text
    assert text.startswith("# Denoising diffusion on digits: sample quality, bound, rate and distortion")


def test_files_have_the_names_that_scripts_rely_on(written):
    study, _ = written
    assert {path.stem for path in study.tables.glob("*.csv")} == {
        *("table2", "split", "table4", "baseline", "protocols", "gap", "chains", "steps"),
        *("memorisation", "quality", "classes", "table1", "training", "claims", "objectives"),
    }
    figures = {path.stem for path in study.figures.glob("*.png")}
    assert figures == {
        *("samples", "table2", "rate_distortion", "terms", "estimators", "chains", "progressive"),
        *("quality_time", "quality_steps", "neighbours", "interpolation", "bits", "objectives", "classes"),
        *("samples_same_noise", "shared_latents", "interpolation_times"),
        *("training_mse", "training_vlb", "training_bound"),
    }
    for ending in ("pdf", "csv"):
        assert {path.stem for path in study.figures.glob(f"*.{ending}")} == figures


def test_every_column_of_every_file_is_in_the_dictionary(written):
    study, _ = written
    assert_described(study.report_folder, REPORT)


def test_every_stored_result_says_how_it_was_made(written):
    study, page = written
    rows = [line for line in page.with_name("report.md").read_text().splitlines() if " | key |" not in line]
    for run in study.runs:
        for entry in run.entries():
            assert sum(line.startswith(f"| {run.folder.name} | {entry.name} |") for line in rows) == 1


def test_the_head_of_a_presets_report_says_what_was_chosen(tmp_path):
    settings = {"train.steps": "30", "evaluation.n_samples": "70"}
    head = write_report(preset_study(tmp_path, settings)).with_name("report.md").read_text()
    assert "- Preset: digits\n- Data: digits, 1 x 8 x 8\n" in head
    assert "- Settings: train.steps=30, evaluation.n_samples=70\n- Seed: 0\n" in head
    assert "network of 0.16M parameters; train.steps: 30, not 1200" in head
    plain = write_report(preset_study(tmp_path)).with_name("report.md").read_text()
    assert "- Settings: the preset's\n" in plain


def test_without_results_every_part_says_why(tmp_path):
    page = write_report(preset_study(tmp_path))
    parts = titles(page)
    assert len(parts) == 17  # there is nothing that was made
    text = page.with_name("report.md").read_text()
    assert len(re.findall(r"Not measured: the run eps.* is not trained yet\.", text)) == len(parts)


def test_a_single_runs_report_has_no_ablation_and_begins_with_the_run(tmp_path):
    folder = tmp_path / "imported" / "model"
    store_results(StudyRun(folder, TINY, "model"), cell_results())
    study = resolve_run(folder, TINY, options=StudyOptions(tmp_path / "reports"))
    page = write_report(study)
    assert page == tmp_path / "reports" / "imported-model" / "index.html"
    text = page.with_name("report.md").read_text()
    assert "Ablation (Table 2)" not in titles(page)
    assert f"- Run: {folder}\n- Data: digits, 1 x 8 x 8\n- Network: 1,234 parameters" in text
    assert "Preset" not in text


def test_the_default_report_takes_likelihood_from_one_run_and_the_rest_from_the_others(tmp_path):
    study = resolve_default(runs=tmp_path / "runs", options=StudyOptions(tmp_path / "reports"))
    store_study(study)
    page = write_report(study)
    assert page.parent == tmp_path / "reports" / "default"
    text = page.with_name("report.md").read_text()
    assert text.startswith("# Denoising diffusion on digits and photos: sample quality, bound")
    assert "- Preset: digits and photos (likelihood is of photos, all else of digits)\n" in text
    assert "- Data: digits, 1 x 8 x 8; photos, 3 x 8 x 8\n" in text
    assert "photos test set, n = 12 images" in text
    assert {path.stem for path in study.tables.glob("baseline*.csv")} == {"baseline", "baseline_digits"}
    assert "Ablation of prediction, objective and variance on digits" in text
    assert "| photos eps-mse-fixed-large | bound/full/test/paper |" in text
    assert "Not measured:" not in text
    assert "photos eps-mse-fixed-large" in (study.tables / "training.csv").read_text()


def test_sections_are_rendered_again_when_the_likelihood_of_the_other_run_changes(tmp_path, monkeypatch):
    rendered = []
    monkeypatch.setattr(module, "OF_THE_MAIN_RUN", [lambda study: rendered.append(study) or _section()])
    study = resolve_default(runs=tmp_path / "runs", options=StudyOptions(tmp_path / "reports"))
    report = Report(study)
    for run, expected in ((study.main, 1), (study.bound_run, 2), (study.runs[0], 2)):
        store_results(run, {"training": make_log()})
        report.write()
        assert len(rendered) == expected


def test_a_preset_of_which_the_settings_fix_the_cell_has_no_ablation(tmp_path):
    page = write_report(preset_study(tmp_path, {"diffusion.prediction": "x0"}))
    assert "Ablation (Table 2)" not in titles(page)


def test_sections_of_the_main_run_are_rendered_again_only_when_its_results_change(tmp_path, monkeypatch):
    rendered = []
    monkeypatch.setattr(module, "OF_THE_MAIN_RUN", [lambda study: rendered.append(study) or _section()])
    study = preset_study(tmp_path)
    report = Report(study)
    for expected in (1, 1):
        report.write()
        assert len(rendered) == expected
    store_results(study.runs[0], cell_results())  # another run
    report.write()
    assert len(rendered) == 1
    store_results(study.main, {"training": make_log()})
    report.write()
    assert len(rendered) == 2


def _section():
    return Section("of the main run")


def test_a_run_in_one_line(tmp_path):
    run = StudyRun(tmp_path, TINY, "tiny")
    assert summary(run) == "trained"
    store_results(run, {"baseline": main_results()["baseline"]})
    assert summary(run) == "a Gaussian that was fitted to its images needs 2.367 [2.320, 2.414] bits/dim"
    store_results(run, main_results())
    total, quality = summary(run).split(" bits/dim, ")
    assert float(total.split()[0]) > 1
    assert quality == "Frechet distance (digits classifier) 3.0 [2.0, 4.0]"
    store_results(
        run, {"quality": make_quality(frechet_distance=(5.0, 4.0, 6.0), features="inception-v3-compat")}
    )
    assert summary(run).endswith("FID 5.0 [4.0, 6.0]")
    store_results(run, {"training": make_log(status="diverged", reason="loss is nan at update 7")})
    assert summary(run) == "diverged, loss is nan at update 7"


@pytest.mark.slow
def test_a_report_needs_no_torch(tmp_path):
    study = preset_study(tmp_path)
    store_results(study.main, main_results())
    store_results(StudyRun(tmp_path / "runs" / "imported" / "model", TINY, "model"), cell_results())
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "runs"), str(tmp_path / "reports")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    pages = [Path(line) for line in done.stdout.splitlines()]
    assert [page.parent.name for page in pages] == ["digits", "imported-model"]
    assert all("bits/dim" in page.read_text() for page in pages)


def test_a_young_average_is_said_in_one_line_and_in_the_head(tmp_path):
    """After 30 updates 0.86 of the averages are those of the start: 0.995^30."""
    study = preset_study(tmp_path)
    store_results(study.main, main_results())
    said = "after 30 updates 86% of the averaged weights are still those of the random start"
    assert f"; {said}" in summary(study.main)
    assert f"- Caution: {study.main.folder.name}: {said}" in (
        write_report(study).with_name("report.md").read_text()
    )
    old = StudyRun(tmp_path / "old", TINY, "old")
    store_results(old, main_results())
    assert "start" not in summary(old)  # 0.9^30 is 0.04
