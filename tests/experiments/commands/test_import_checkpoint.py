"""A model that goes out to diffusers and comes back goes through every command."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import TINY, call, main_run, refuse, set_options

ROOT = Path(__file__).resolve().parents[3]
REPORT_WITHOUT_TORCH = """
import sys
class NotInstalled:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "torch_fidelity", "safetensors"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())
import cli
cli.main(["report", *sys.argv[1:]], standalone_mode=False)
"""
EVALUATION = set_options({key: value for key, value in TINY.items() if "evaluation" in key})


@pytest.fixture
def imported(reproduced, classifier, tmp_path):
    """Return the folder of the paper's model, exported and imported."""
    run = tmp_path / "runs" / "imported" / "model"
    call("export-checkpoint", main_run(reproduced[0]), "--out", tmp_path / "diffusers")
    call("import-checkpoint", tmp_path / "diffusers", "--out", run, "--data", "digits", *EVALUATION)
    return run


@pytest.mark.slow
@pytest.mark.usefixtures("passive")
def test_an_imported_run_goes_through_every_command(reproduced, imported, tmp_path):
    """It has the original's bound; nothing is claimed of its training."""
    run = imported
    reports = ["--reports", tmp_path / "reports"]
    checkpoint = (run / "checkpoint.safetensors").read_bytes()
    shown = call("show", run)
    assert "imported from" in shown and "eps, variance fixed-large" in shown and f"likelihood {run}" in shown
    assert "holds no results to report" in refuse("report", run, *reports)
    assert "its training cannot go on here" in refuse("train", run)
    assert "six models of a --preset" in refuse("ablation", run)
    for chosen in (["--preset", "digits"], ["--seed", "0"], ["--data", "digits"], ["--runs", tmp_path]):
        assert f"name a RUN or {chosen[0]}, not both" in refuse("rate-distortion", run, *chosen)
    call("likelihood", run, "--set", "evaluation.n_test_images=4")
    call("reproduce", run, *reports)
    assert "to do: nothing" in call("reproduce", run, *reports, "--dry-run")
    output = call("rate-distortion", run, *reports)
    report = Path(re.search(r"Report: (.*)", output)[1]).parent
    assert report == tmp_path / "reports" / "imported-model" and "reverse steps" in output
    copied = shutil.copytree(main_run(reproduced[0]), tmp_path / "runs" / "copied" / "original")
    call("rate-distortion", copied, *reports)
    original = tmp_path / "reports" / "copied-original"
    splits = [pd.read_csv(folder / "tables" / "split.csv") for folder in (report, original)]
    np.testing.assert_allclose(*(split["bits_per_dim"] for split in splits), rtol=1e-5)
    call("progressive", run, *reports)
    shutil.rmtree(report)
    command = [sys.executable, "-c", REPORT_WITHOUT_TORCH, str(run), *map(str, reports)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and str(report) in done.stdout, done.stderr
    figures = {path.stem for path in (report / "figures").glob("*.png")}
    assert {"samples", "rate_distortion", "progressive", "terms", "interpolation", "chains"} <= figures
    text = (report / "report.md").read_text()
    assert "imported from" in text and "Ablation (Table 2)" not in text
    assert "Preset" not in text and "updates of batch" not in text
    assert text.count("Not measured yet") == 0
    call("sample", run, "-n", "4", "--steps", "5")
    assert "frechet_distance" in call("quality", run)
    assert (tmp_path / "runs" / "classifiers" / "statistics.h5").exists()  # those that all runs share
    call("neighbours", run, "--out", tmp_path / "nearest")
    call("interpolate", run, "--pairs", "2", "--out", tmp_path / "between")
    call("export-checkpoint", run, "--out", tmp_path / "again")
    assert (run / "checkpoint.safetensors").read_bytes() == checkpoint
