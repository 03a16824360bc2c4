"""A stay on a lent machine: its time, its history, and that whatever ends it, the next one continues."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import bound_history  # noqa: E402
import carry  # noqa: E402
import gpu_run  # noqa: E402
import kept_state  # noqa: E402
import lent_machine  # noqa: E402
import lent_stay  # noqa: E402
import parts  # noqa: E402

from ddpm_eval.training import checkpoint  # noqa: E402

TINY = {
    "network.base_channels": "8",
    "train.batch_size": "8",
    "diffusion.timesteps": "10",
    "evaluation.n_samples": "300",
    "evaluation.n_train_images": "8",
    "evaluation.n_test_images": "24",
    "evaluation.evaluations_per_image": "4",
}


def stay(folder, monkeypatch, *words):
    """Make a stay with the tiny digits that measures as little as there is."""
    settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    places = [
        folder / "out",
        "--runs",
        folder / "runs",
        "--data-root",
        folder,
        "--part-mb",
        "0.2",
        "--preset",
        "digits",
    ]
    monkeypatch.setattr(sys, "argv", ["gpu_run.py", *map(str, places), *settings, *words])
    monkeypatch.setattr(lent_stay, "evaluation", lambda here: [lent_stay.stratified(here, "train", "fp32")])
    here = lent_stay.spend(lent_stay.Stay(gpu_run.parse()))
    assert here.failed == here.unfinished == []
    return here


@pytest.mark.slow
def test_a_stay_trains_measures_and_the_next_continues_from_its_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = ("--minutes", "10", "--train-share", "0.001", "--slices", "2")
    first = stay(tmp_path, monkeypatch, *few)
    rows = bound_history.history(tmp_path / "out" / "bits_per_dim.csv")
    totals = [(int(row["updates"]), row["split"]) for row in rows if row["quantity"] == "total"]
    assert [split for _, split in totals] == ["test", "train"] and totals[0][0] < totals[1][
        0
    ] == first.updates
    assert all(int(row["images"]) == 8 * int(row["updates"]) for row in rows)
    assert list((tmp_path / "out" / "reports").rglob("report.md"))
    before = first.updates
    shutil.rmtree(tmp_path / "runs")  # another machine, to which only OUT was carried
    second = stay(tmp_path, monkeypatch, "--minutes", "10", "--train-share", "0.0005", "--slices", "1")
    assert second.updates > before
    said = f"continuing from results and state of {tmp_path / 'out'}: {before} updates"
    assert said in capsys.readouterr().out
    state = tmp_path / "out" / "state"
    assert parts.checked(state, parts.read_sums(state))
    assert kept_state.kept_updates(state, second.name) == second.updates


def carried(out, home):
    """Bring all that a stay has kept home; return the call in which each set was complete."""
    limits = carry.Limits(files=4, file_bytes=2**18, total_bytes=2**19)
    complete = {}
    for number in range(50):
        target = home.parent / f"call-{number}"
        _, left = carry.collect(out, target, limits)
        for name, missing in carry.bring(target, home).items():
            if not missing:
                complete.setdefault(name, number)
        if not left:
            return complete
    raise AssertionError("it does not end")


@pytest.mark.slow
def test_averaged_weights_come_home_first_and_are_measured_but_not_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = stay(tmp_path, monkeypatch, "--minutes", "10", "--train-share", "0.0005", "--slices", "1")
    home = tmp_path / "home"
    arrived = carried(tmp_path / "out", home)
    assert arrived["weights"] <= arrived["results"] <= arrived["state"]
    trained = checkpoint.load(first.run)
    shutil.rmtree(home / "state")  # no time for it
    shutil.rmtree(tmp_path / "runs")
    assert kept_state.unpack(home, tmp_path / "runs") == ["notes", "weights", "results"]
    alone = checkpoint.load(first.run)
    assert alone.metadata["status"] == "averaged" and alone.step == trained.step
    assert checkpoint.weights_digest(first.run) == checkpoint.weights_digest(trained.tensors)
    (tmp_path / "out").rename(tmp_path / "left-there")
    home.rename(tmp_path / "out")
    second = stay(tmp_path, monkeypatch, "--minutes", "10", "--train-share", "0")
    assert second.updates == trained.step
    assert not (tmp_path / "out" / "state").exists()
    with pytest.raises(ValueError, match="its training cannot go on here"):
        stay(tmp_path, monkeypatch, "--minutes", "10", "--train-share", "0.0005", "--slices", "1")


def test_of_weights_and_state_the_newer_is_restored(tmp_path):
    found = {}
    for weights, state in [(10, 10), (20, 10), (10, 20)]:
        home = tmp_path / f"{weights}-{state}"
        for name, updates in {"weights": weights, "state": state}.items():
            source = tmp_path / "checkpoint"
            source.write_text(f"{name} {updates}")
            parts.pack([source], tmp_path, home / name, f"digits-eps-{updates:08d}.tar", 10_000)
        kept_state.unpack(home, tmp_path / "runs")
        found[weights, state] = (tmp_path / "runs" / "checkpoint").read_text()
    assert found == {(10, 10): "state 10", (20, 10): "weights 20", (10, 20): "state 20"}


@pytest.mark.slow
def test_a_stay_in_the_background_outlives_the_call_and_can_be_waited_for(tmp_path):
    settings = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    places = ["--runs", tmp_path / "runs", "--data-root", tmp_path, "--preset", "digits"]
    share = ["--minutes", "0.5", "--train-share", "0.02", "--slices", "1"]
    words = [tmp_path / "out", "--background", *places, *share, *settings]
    command = [sys.executable, ROOT / "benchmarks" / "gpu_run.py", *words]
    call = [*map(str, command)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "The stay has begun" in done.stdout
    assert carry.is_busy(tmp_path / "out")
    second = subprocess.run(call, capture_output=True, text=True, timeout=100)
    assert second.returncode == 2 and "is in use by another process" in second.stderr
    assert carry.wait(tmp_path / "out", 120)
    assert "train 1 of 1" in (tmp_path / "out" / "log.txt").read_text()
    taken, _ = carry.collect(tmp_path / "out", tmp_path / "call")
    assert taken > 0


def test_the_time_is_divided_and_some_is_kept():
    budget = lent_stay.Budget(total=1800, train_share=0.6, slices=3)
    assert budget.slice_minutes == pytest.approx(6) and budget.reserve == 120
    assert lent_stay.Budget(total=60, train_share=0.5, slices=1).reserve == 6


def test_the_history_keeps_one_row_of_each_kind(tmp_path):
    path = tmp_path / "history.csv"
    facts = {
        "images": 80,
        "train_seconds": 1.0,
        "split": "test",
        "estimator": "full",
        "low": 1.0,
        "high": 3.0,
        "n_images": 5,
    }
    for updates, precision, value in [
        (10, "fp32", 4.0),
        (10, "bf16", 4.1),
        (20, "fp32", 3.0),
        (10, "fp32", 4.2),
    ]:
        row = {
            **facts,
            "updates": updates,
            "precision": precision,
            "quantity": "total",
            "bits_per_dim": value,
        }
        bound_history.record(path, [row])
    found = {(row["updates"], row["precision"]): row["bits_per_dim"] for row in bound_history.history(path)}
    assert found == {("10", "bf16"): "4.1", ("20", "fp32"): "3.0", ("10", "fp32"): "4.2"}
    assert bound_history.remembered(path, 10, bound_history.Bound("test", "full", "bf16"))
    assert not bound_history.remembered(path, 20, bound_history.Bound("test", "full", "bf16"))


def test_a_command_that_takes_too_long_is_stopped(tmp_path):
    patient = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('cleanly', flush=True)"
    with (tmp_path / "log").open("w") as log:
        assert lent_machine.run_within(1, [sys.executable, "-c", patient], log) == lent_machine.LATE
        assert lent_machine.run_within(60, [sys.executable, "-c", "raise SystemExit(3)"], log) == 3
    assert (tmp_path / "log").read_text() == "cleanly\n"


def test_the_last_error_of_a_log_is_found(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text(
        "Error: the first\n## next\n  bar\nError: device 'tpu' is unknown\n[  0.1 min] train: FAILED\n"
    )
    assert lent_machine.last_error(log) == "device 'tpu' is unknown"
    log.write_text("Killed")
    assert lent_machine.last_error(log) == f"see {log}"


def test_what_is_kept_of_another_run_is_refused(tmp_path):
    assert kept_state.kept_updates(tmp_path, "cifar10-eps") is None
    (tmp_path / parts.SUMS).write_text(f"{'0' * 64}  cifar10-eps-00012000.tar.000-00000000\n")
    assert kept_state.kept_updates(tmp_path, "cifar10-eps") == 12000
    with pytest.raises(ValueError, match="holds the run cifar10-eps, not cifar10-mu"):
        kept_state.kept_updates(tmp_path, "cifar10-mu")


def test_a_run_without_results_has_no_log_and_has_not_diverged(tmp_path):
    assert bound_history.logged_updates(tmp_path) == 0 and not bound_history.diverged(tmp_path)


def test_missing_packages_and_wheels_are_named(monkeypatch, tmp_path):
    lent_machine.check_packages()
    monkeypatch.setattr(lent_machine, "has_package", lambda name: name not in ("pydantic", "torch-fidelity"))
    with pytest.raises(ValueError, match=r"packages are missing: torch-fidelity, pydantic \(.*--wheels\)"):
        lent_machine.check_packages()
    with pytest.raises(ValueError, match="holds no wheels"):
        lent_machine.install(tmp_path, str(tmp_path / "site"))
