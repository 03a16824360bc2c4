"""The command line: the contract's commands on a tiny run, and one sentence with exit code 2 for every user
error.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import cli
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.training import memory
from experiments.paper.presets import DEVIATIONS, NAMES, TABLE_2, preset, run_name
from experiments.paper.published import table_2

ROOT = Path(__file__).resolve().parent.parent
TINY = {
    "network.base_channels": "8",
    "train.steps": "12",
    "train.checkpoint_steps": "4",
    "train.batch_size": "16",
    "diffusion.timesteps": "20",
    "evaluation.n_samples": "80",
    "evaluation.n_train_images": "8",
    "evaluation.n_test_images": "24",
    "evaluation.evaluations_per_image": "4",
}
SETTINGS = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]


def call(*arguments, code=0):
    result = CliRunner().invoke(cli.main, [str(a) for a in arguments])
    if result.exit_code != code:
        pytest.fail(f"exit code {result.exit_code}, not {code}: {result.output} {result.exception!r}")
    return result.output


def refuse(*arguments):
    """Return the one sentence with which a call is refused."""
    output = call(*arguments, code=2)
    assert "Traceback" not in output
    return output


def folders(folder):
    return ["--runs", folder / "runs", "--reports", folder / "reports"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder in which ``reproduce`` has run at its smallest, and what it printed."""
    folder = tmp_path_factory.mktemp("made")
    run = subprocess.run(
        [sys.executable, "cli.py", "reproduce", *map(str, folders(folder)), *SETTINGS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return folder, run.stdout


def main_run(folder):
    spec = preset("digits", settings=TINY)
    return folder / "runs" / "digits" / run_name(spec)


# The contract


@pytest.mark.slow
def test_reproduce_prints_the_tables_and_the_reports_path(made):
    folder, output = made
    report = Path(re.search(r"Report: (.*)", output)[1])
    assert report.is_file() and report.parent.parent == folder / "reports"
    assert "rate" in output and "reverse steps" in output and "eps" in output


@pytest.mark.slow
def test_tables_have_the_columns_that_scripts_rely_on(made):
    folder = next((made[0] / "reports").iterdir()) / "tables"
    expected = {
        "table2": "prediction objective variance status score score_std frechet_distance frechet_distance_low "
        "frechet_distance_high bits_per_dim bits_per_dim_low bits_per_dim_high n_samples features "
        "paper_inception_score paper_fid",
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


@pytest.mark.slow
def test_figures_come_as_png_and_pdf_with_their_numbers(made):
    folder = next((made[0] / "reports").iterdir()) / "figures"
    names = {path.stem for path in folder.glob("*.png")}
    assert {
        "samples",
        "rate_distortion",
        "progressive",
        "table2",
        "terms",
        "interpolation",
        "estimators",
    } <= names
    assert (
        names == {path.stem for path in folder.glob("*.pdf")} == {path.stem for path in folder.glob("*.csv")}
    )


@pytest.mark.slow
def test_a_second_call_and_report_only_render(made):
    folder, output = made
    stores = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.h5")}
    again = call("reproduce", *folders(folder), *SETTINGS)
    assert (
        again.split("Report:")[0] == output.split("\n\nReport:")[0].split("Report:")[0] or "Report:" in again
    )
    call("report", *folders(folder), *SETTINGS)
    assert stores == {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.h5")}


@pytest.mark.slow
def test_commands_on_one_run(made, tmp_path):
    folder = main_run(made[0])
    shown = call("show", folder)
    assert "bound/test/paper" in shown and "nats per image" in shown and "samples" in shown
    text = call("likelihood", folder, "--protocol", "exact", "--variance", "fixed-small", "--draws", "2")
    assert "total" in text and "exact+fixed-small+2-draws" in text and "2 draws" in text
    text = call("likelihood", folder, "--estimator", "stratified", "--evaluations", "400")
    assert "stratified estimator" in text
    assert "too few" in refuse("likelihood", folder, "--estimator", "stratified", "--evaluations", "10")
    assert "belong to --estimator stratified" in refuse("likelihood", folder, "--evaluations", "400")
    call("sample", folder, "-n", "5", "--png", tmp_path / "png", "--npz", tmp_path / "samples.npz")
    assert len(list((tmp_path / "png").glob("*.png"))) == 5
    assert np.load(tmp_path / "samples.npz")["arr_0"].shape == (5, 8, 8, 1)
    call("sample", folder, "-n", "4", "--steps", "5", "--method", "ddim")
    assert "frechet_distance" in call("quality", folder)
    assert "memorisation" in call("neighbours", folder, "--out", tmp_path / "nearest")
    call("interpolate", folder, "--t", "7", "--pairs", "2", "--out", tmp_path / "between")
    assert (tmp_path / "between.png").exists() and (tmp_path / "nearest.png").exists()
    text = call("likelihood", folder, "--precision", "bf16", "--against", "fp32")
    assert "difference: bf16 - fp32, paired" in text and ", bf16" in text
    assert "by the full estimator" in refuse(
        "likelihood", folder, "--against", "bf16", "--estimator", "stratified"
    )
    assert "another precision than fp32" in refuse("likelihood", folder, "--against", "fp32")


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


@pytest.fixture
def passive(monkeypatch):
    """Let the threads of worker processes sleep while they wait, as `cli.py` does: beside other work they
    crawl.
    """
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")


@pytest.mark.slow
@pytest.mark.usefixtures("passive")
def test_an_imported_run_goes_through_every_command(made, tmp_path):
    """A model that goes out to diffusers and comes back has the original's bound; nothing is claimed of its
    training.
    """
    run, reports = tmp_path / "runs" / "imported" / "model", ["--reports", tmp_path / "reports"]
    settings = [
        word for key, value in TINY.items() if "evaluation" in key for word in ("--set", f"{key}={value}")
    ]
    call("export-checkpoint", main_run(made[0]), "--out", tmp_path / "diffusers")
    call("import-checkpoint", tmp_path / "diffusers", "--out", run, "--data", "digits", *settings)
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
    splits = [
        pd.read_csv(folder / "tables" / "split.csv")
        for folder in (report, next((made[0] / "reports").iterdir()))
    ]
    np.testing.assert_allclose(*(split["bits_per_dim"] for split in splits), rtol=1e-5)
    call("progressive", run, *reports)
    shutil.rmtree(report)
    command = [sys.executable, "-c", REPORT_WITHOUT_TORCH, str(run), *map(str, reports)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and str(report) in done.stdout, done.stderr
    figures = {path.stem for path in (report / "figures").glob("*.png")}
    assert {"samples", "rate_distortion", "progressive", "terms", "interpolation", "chains"} <= figures
    text = (report / "report.md").read_text()
    assert (
        "imported from" in text
        and "Table 2" not in text
        and "Preset" not in text
        and "updates of batch" not in text
    )
    assert text.count("Not measured yet") == 0
    call("sample", run, "-n", "4", "--steps", "5")
    assert "frechet_distance" in call("quality", run) and (tmp_path / "runs" / "classifiers").is_dir()
    call("neighbours", run, "--out", tmp_path / "nearest")
    call("interpolate", run, "--pairs", "2", "--out", tmp_path / "between")
    call("export-checkpoint", run, "--out", tmp_path / "again")
    assert (run / "checkpoint.safetensors").read_bytes() == checkpoint


@pytest.mark.slow
@pytest.mark.usefixtures("passive")
def test_a_run_that_was_stopped_is_measured_as_it_is_and_trained_on_when_asked(tmp_path):
    call("train", *folders(tmp_path)[:2], *SETTINGS, "--max-minutes", "1e-9")
    run = next((tmp_path / "runs" / "digits").iterdir())
    checkpoint = (run / "checkpoint.safetensors").read_bytes()
    output = call("rate-distortion", run, "--reports", tmp_path / "reports")
    report = (tmp_path / "reports" / f"digits-{run.name}" / "report.md").read_text()
    assert "Report:" in output and "preset digits, 4 updates of batch 16" in report
    assert "train.steps: 4, not 1200" in report  # not as published
    assert (run / "checkpoint.safetensors").read_bytes() == checkpoint
    assert "ok after 12 updates" in call("train", run)
    assert "name a RUN or --objective, not both" in refuse("train", run, "--objective", "vlb")
    assert "belongs to another run" in refuse("train", run, "--set", "train.batch_size=8")


@pytest.mark.slow
def test_a_damaged_result_or_checkpoint_is_named(made, tmp_path):
    folder = main_run(made[0])
    for name, arguments in {"results.h5": ["show"], "checkpoint.safetensors": ["likelihood"]}.items():
        copy = tmp_path / name
        copy.mkdir()
        for file in ("results.h5", "checkpoint.safetensors"):
            content = (folder / file).read_bytes()
            (copy / file).write_bytes(content[: len(content) // 2] if file == name else content)
        assert name in refuse(*arguments, copy)


@pytest.mark.slow
def test_a_run_of_another_preset_is_refused(made, tmp_path):
    spec = preset("digits")
    target = tmp_path / "runs" / "digits" / run_name(spec)
    target.mkdir(parents=True)
    for file in ("results.h5", "checkpoint.safetensors"):
        (target / file).write_bytes((main_run(made[0]) / file).read_bytes())
    message = refuse("rate-distortion", *folders(tmp_path))
    assert "belongs to another run" in message and "network.base_channels" in message


def test_presets_lists_every_preset_with_its_parameters():
    output = call("presets")
    assert all(name in output for name in NAMES) and set(DEVIATIONS) == set(NAMES)
    assert "35,746,307" in output and "113,673,219" in output


def test_dry_run_prints_and_makes_nothing(tmp_path):
    output = call("ablation", "--dry-run", *folders(tmp_path), "--set", "train.steps=7")
    assert output.count("to do: train") == len(TABLE_2) and '"steps": 7' in output
    assert not list(tmp_path.iterdir())
    assert '"prediction": "x0"' in call("train", "--dry-run", "--prediction", "x0", *folders(tmp_path)[:2])


# User errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["reproduce", "--preset", "mnits"], "there is no preset 'mnits'"),
        (["reproduce", "--data", "digitz"], "digitz"),
        (["reproduce", "--data", "folder:/no/such/folder"], "/no/such/folder"),
        (
            ["reproduce", "--set", "train.stepz=5"],
            "there is no option 'train.stepz' (did you mean train.steps",
        ),
        (["reproduce", "--set", "train.steps=many"], "train.steps is 'many'"),
        (["reproduce", "--set", "train.steps"], "--set takes KEY=VALUE"),
        (["reproduce", "--set", "train.steps=0"], "train.steps is 0"),
        (["ablation", "--set", "diffusion.prediction=mu"], "contradicts the ablation"),
        (["train", "--set", "diffusion.variance=learned"], "a learned variance needs objective vlb"),
        (["train", "--device", "tpu"], "device 'tpu' is unknown"),
        (["sample", "/no/such/run"], "holds no checkpoint.safetensors"),
        (["sample", "/no/such/run", "--preset", "digits"], "not both"),
        (["show", "/no/such/run"], "there is no checkpoint"),
        (["rate-distortion", "/no/such/run"], "there is no checkpoint"),
        (["report", "/no/such/run"], "holds no results to report"),
        (["quality", "--images", "/no/such/images", "--data", "digits"], "/no/such/images"),
        (["quality", "--images", "/no/such/images"], "--images needs --data"),
        (["import-checkpoint", "/no/such/model", "--out", "/tmp/never"], "/no/such/model"),
    ],
)
def test_user_errors_are_one_sentence(arguments, sentence, tmp_path):
    extra = {
        "reproduce": folders(tmp_path),
        "ablation": folders(tmp_path),
        "train": folders(tmp_path)[:2],
    }.get(arguments[0], [])
    assert sentence in refuse(*arguments, *extra)
    assert not list(tmp_path.rglob("*.h5")) and not list(tmp_path.rglob("*.safetensors"))


def test_a_run_that_does_not_fit_in_memory_is_refused_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda runtime: 120 * 10**6)
    one = [
        "train",
        *folders(tmp_path)[:2],
        *SETTINGS,
        "--set",
        "train.batch_size=4096",
        "--set",
        "train.steps=1",
    ]
    message = refuse(*one)
    assert (
        "training digits with batches of 4096 needs about" in message and "--set train.batch_size=" in message
    )
    assert not list(tmp_path.rglob("*.safetensors"))
    assert "ok after 1 updates" in call(*one, "--ignore-memory")


def test_training_shows_how_it_goes(tmp_path):
    """Event files and previews lie in the run's folder; the report draws the bound over training."""
    call("train", *folders(tmp_path)[:2], *SETTINGS, "--log", "tensorboard", "--preview-steps", "4")
    run = main_run(tmp_path)
    assert [path.name for path in sorted((run / "previews").iterdir())] == [
        f"step-{n:08d}.png" for n in (4, 8, 12)
    ]
    assert list((run / "tensorboard").iterdir())
    call("report", *folders(tmp_path), *SETTINGS)
    curve = pd.read_csv(next((tmp_path / "reports").iterdir()) / "figures" / "training_bound.csv")
    assert curve["update"].tolist() == [4, 8, 12] and (curve["n_images"] == 24).all()
    assert (
        (curve["bits_per_dim_low"] < curve["bits_per_dim"])
        & (curve["bits_per_dim"] < curve["bits_per_dim_high"])
    ).all()
    page = (next((tmp_path / "reports").iterdir()) / "report.md").read_text()
    assert "8 evaluations of each of the same 24 test images" in page


def test_a_missing_tensorboard_is_said_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "pip install 'ddpm_eval[log]'" in refuse(
        "train", *folders(tmp_path)[:2], *SETTINGS, "--log", "tensorboard"
    )
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_gpu_is_said(tmp_path):
    assert "no CUDA device" in refuse("train", "--device", "cuda", *folders(tmp_path)[:2], *SETTINGS)


def test_folders_of_images_that_cannot_be_used(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    arguments = ["train", "--data", f"folder:{images}", *folders(tmp_path)[:2]]
    assert "no images" in refuse(*arguments)
    for i, side in enumerate([8, 8, 12]):
        Image.fromarray(np.full((side, side), 99, np.uint8)).save(images / f"{i}.png")
    assert "2.png" in refuse(*arguments)
    (images / "2.png").write_bytes(b"not an image")
    assert "2.png" in refuse(*arguments)


def test_too_few_samples_are_refused_before_anything_is_trained(tmp_path):
    few = [*SETTINGS, "--set", "evaluation.n_samples=20"]
    assert "20" in refuse("ablation", *folders(tmp_path), *few)
    assert not list(tmp_path.rglob("checkpoint.safetensors"))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    assert str(tmp_path / "runs") in refuse("train", *folders(tmp_path)[:2], *SETTINGS)


# Interruption


@contextmanager
def training(folder):
    """Run a training that would take long, from its first checkpoint on; kill it in the end."""
    long = ["--set", "train.steps=100000"]
    process = subprocess.Popen(
        [sys.executable, "cli.py", "train", *map(str, folders(folder)[:2]), *SETTINGS, *long],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # background jobs of a shell ignore it
    )
    try:
        _wait_for_checkpoint(process, folder)
        yield process
    finally:
        process.kill()
        process.communicate()


def _wait_for_checkpoint(process, folder):
    deadline = time.monotonic() + 120
    while not list((folder / "runs").rglob("checkpoint.safetensors")):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, cli.INTERRUPTED), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_stopped_run_continues(tmp_path, sent, code):
    with training(tmp_path) as process:
        os.kill(process.pid, sent)
        _, error = process.communicate(timeout=60)
        assert process.returncode == code
    if sent == signal.SIGINT:
        assert "the same command continues where it was" in error and "Traceback" not in error
    checkpoint = next((tmp_path / "runs").rglob("checkpoint.safetensors"))
    before = checkpoint.stat().st_mtime_ns
    output = call(
        "train", *folders(tmp_path)[:2], *SETTINGS, "--set", "train.steps=100000", "--max-minutes", "0.02"
    )
    assert "stopped after" in output and checkpoint.stat().st_mtime_ns > before


@pytest.mark.slow
def test_two_commands_on_one_run_do_not_mix(tmp_path):
    with training(tmp_path) as process:
        message = refuse("train", *folders(tmp_path)[:2], *SETTINGS, "--set", "train.steps=100000")
        assert f"in use by another process (pid {process.pid})" in message


def test_protocols_named_on_the_command_line_exist():
    names = next(p for p in cli.likelihood.params if p.name == "protocol").type.choices
    assert list(names) == list(PROTOCOLS)
