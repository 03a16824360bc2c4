"""An experiment is planned, run with its results shown as they arrive, and reported."""

import pytest
from stored_results import cell_results, main_results, store_results

from ddpm_eval.files import write_text
from ddpm_eval.runtime import ProgressEvent
from experiments import perform as module
from experiments.perform import perform
from experiments.plan import ablation_jobs, reproduce_jobs
from experiments.study import StudyOptions, resolve_default, resolve_preset


@pytest.fixture
def study(tmp_path):
    return resolve_preset("digits", runs=tmp_path / "runs", options=StudyOptions(tmp_path / "reports"))


@pytest.fixture
def pages(monkeypatch):
    """Return the list of how many runs had results whenever the report was written, of which one table is."""
    written = []

    def write(report):
        written.append(sum(bool(run.entries()) for run in report.study.runs))
        write_text(report.study.tables / "table2.md", "| prediction |")
        return report.study.report_folder / "index.html"

    monkeypatch.setattr(module.Report, "write", write)
    return written


@pytest.fixture
def scheduler(study, monkeypatch):
    """Let jobs be done at once: their results are stored, with events of the first one's stages."""

    def run_all(jobs, missing, workers, on_progress, on_done):
        first = jobs[0].name
        for stage in ("train", "quality", "neighbours"):
            on_progress(ProgressEvent(first, stage, 1, 2))
            if stage == "quality":
                store_results(study.main, cell_results())
            on_progress(ProgressEvent(first, stage, 1, 1, stored=True))
        for job in jobs:
            run = next(run for run in study.runs if run.folder == job.folder)
            if run is not study.main:
                store_results(run, cell_results())
            on_done(job)

    monkeypatch.setattr(module, "run_all", run_all)
    monkeypatch.setattr(module, "pending", lambda job: {"train": 3, "quality": 0, "neighbours": 0})


@pytest.mark.usefixtures("scheduler")
def test_results_are_shown_as_they_arrive(study, pages, capsys):
    said = []
    jobs = ablation_jobs(study)
    page = perform(study, jobs, ["table2", "no-such-table"], said.append)
    # when the first job's quality is known, after each of the six jobs, and in the end
    assert pages == [1, 1, 2, 3, 4, 5, 6, 6]
    assert page == study.report_folder / "index.html"
    *lines, table, last = said
    assert (table, last) == ("| prediction |", f"Report: {page}")
    assert capsys.readouterr().out == ""  # whatever is printed is printed by echo
    assert [line.partition(": ")[0] for line in lines] == [jobs[0].name, *(job.name for job in jobs)]
    assert all(line.endswith(f"({page})") for line in lines)
    assert "bits/dim" in lines[0]


def test_first_results_of_both_subjects_are_shown_at_once(tmp_path, monkeypatch, pages):
    options = StudyOptions(tmp_path / "reports")
    study = resolve_default(runs=tmp_path / "runs", options=options)
    jobs = reproduce_jobs(study)
    photos, digits, other = (job.name for job in jobs[:3])

    def run_all(jobs, missing, workers, on_progress, on_done):
        store_results(study.bound_run, {"baseline": main_results()["baseline"]})
        for name, stage in [(photos, "baseline"), (digits, "quality"), (other, "quality"), (digits, "train")]:
            on_progress(ProgressEvent(name, stage, 1, 1, stored=True))

    monkeypatch.setattr(module, "run_all", run_all)
    monkeypatch.setattr(module, "pending", lambda job: {"baseline": 0, "train": 3, "quality": 0})
    lines = []
    perform(study, jobs, [], lines.append)
    assert lines.pop().startswith("Report: ")
    assert [line.partition(": ")[0] for line in lines] == [photos, digits]
    assert "a Gaussian that was fitted to its images needs" in lines[0]
    assert len(pages) == 3  # and in the end


@pytest.mark.usefixtures("scheduler")
def test_only_the_main_process_reports(study, pages, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    said = []
    assert perform(study, ablation_jobs(study), ["table2"], said.append) is None
    assert (said, pages) == ([], [])
    assert not study.report_folder.exists()


def test_what_is_stored_already_is_only_reported(study, monkeypatch, pages):
    store_results(study.main, cell_results())
    monkeypatch.setattr(module, "pending", lambda job: {})
    monkeypatch.setattr(module, "run_all", lambda *arguments: pytest.fail("nothing was to be run"))
    said = []
    perform(study, ablation_jobs(study), [], said.append)
    assert pages == [1]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("device", "available", "workers"),
    [("cpu", True, 7), ("auto", False, 7), ("auto", True, 1), ("cuda:1", True, 1)],
)
def test_jobs_run_side_by_side_on_cores_but_not_on_a_gpu(
    tmp_path, monkeypatch, pages, device, available, workers
):
    found = []
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(module, "usable_cores", lambda: 7)
    monkeypatch.setattr(module, "pending", lambda job: {"train": 1})
    monkeypatch.setattr(module, "run_all", lambda jobs, missing, workers, *show: found.append(workers))
    options = StudyOptions(tmp_path / "reports", device=device)
    study = resolve_preset("digits", runs=tmp_path / "runs", options=options)
    perform(study, ablation_jobs(study), [], lambda line: None)
    assert found == [workers]
