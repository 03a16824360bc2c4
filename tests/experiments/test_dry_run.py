"""A dry run says what is stored, what is missing, and how long that takes at a rate that is measured."""

import pytest
import torch

from experiments import dry_run
from experiments.dry_run import make_plan
from experiments.plan import ablation_jobs
from experiments.study import resolve_preset

RATE = 100.0
MISSING = {"train": 6000, "sample": 1200, "quality": 0}


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """Let every network evaluate a hundred images in a second; return the runs that were measured."""
    runs = []

    def rate(run):
        runs.append(run.folder.name)
        return RATE

    monkeypatch.setattr(dry_run, "evaluations_per_second", rate)
    return runs


@pytest.fixture
def jobs(tmp_path):
    return ablation_jobs(resolve_preset("digits", runs=tmp_path / "runs"))[:3]


def plan(jobs, *missing, workers=2):
    return make_plan(jobs, {job.name: each for job, each in zip(jobs, missing, strict=True)}, workers)


def test_the_total_is_that_of_the_last_worker(jobs):
    found = plan(jobs, MISSING, MISSING, {"sample": 1200})
    # two runs of 72 s side by side, then one of 12 s beside an idle worker
    assert [each.seconds for each in found.jobs] == [72.0, 72.0, 12.0]
    assert found.seconds == 84.0
    assert found.text.startswith("To do: 7 of 18 stages of 3 runs, about 1 min 24 s, 2 runs side by side\n\n")
    alone = plan(jobs, MISSING, MISSING, {"sample": 1200}, workers=1)
    assert alone.seconds == 156.0
    assert alone.text.startswith("To do: 7 of 18 stages of 3 runs, about 2 min 36 s\n\n")


def test_a_row_for_each_stage_then_a_line_for_each_run(jobs):
    lines = plan(jobs, MISSING, MISSING, {}).text.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:9]}
    assert rows["stage"] == ["stored", "missing", "evaluations", "time"]
    assert rows["train"] == ["1", "2", "12,000", "2", "min", "0", "s"]
    assert rows["sample"] == ["1", "2", "2,400", "24.0", "s"]
    assert rows["quality"] == ["1", "2", "0", "not", "estimated"]
    assert rows["coverage"] == ["3", "0"]
    assert lines[10] == f"{jobs[0].folder}: to do: train, sample, quality (about 1 min 12 s)"
    assert lines[12] == f"{jobs[2].folder}: to do: nothing"
    assert "measured just now, 100 per second on CPU, " in lines[14]
    assert lines[-1] == "The full specifications: --dry-run --json"


def test_nothing_is_measured_where_nothing_is_to_be_evaluated(jobs, measured):
    found = plan(jobs, {}, {}, {})
    assert found.text.startswith("Nothing to do: all 18 stages of 3 runs are stored.\n\n")
    assert "measured just now" not in found.text
    assert plan(jobs, {"quality": 0}, {}, {}).seconds == 0.0
    assert measured == []


def test_networks_of_one_size_are_measured_once(jobs, measured):
    threads = torch.get_num_threads()
    plan(jobs, MISSING, MISSING, MISSING)
    assert measured == [jobs[0].folder.name]
    assert torch.get_num_threads() == threads


def test_a_program_gets_every_number_and_the_full_specification(jobs):
    document = plan(jobs, MISSING, {}, {}).document
    assert (document["seconds"], document["side_by_side"]) == (72.0, 2)
    first, second, _ = document["runs"]
    assert first["missing"] == {
        "train": {"network_evaluations": 6000, "seconds": 60.0},
        "sample": {"network_evaluations": 1200, "seconds": 12.0},
        "quality": {"network_evaluations": 0, "seconds": None},
    }
    assert first["stored"] == ["bound-test-stratified", "bound-train-stratified", "coverage"]
    assert (first["evaluations_per_second"], second["evaluations_per_second"]) == (RATE, None)
    assert first["specification"] == jobs[0].spec.model_dump(mode="json")
