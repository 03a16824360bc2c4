"""Progress counts network evaluations: what a stage costs, however its parts report."""

import pytest

from ddpm_eval.runtime import ProgressEvent, silent
from experiments import progress
from experiments.progress import ExperimentBar, StageBars, StageMeter, stage_bars

MISSING = {"main": {"train": 300, "bound": 100, "sample": 50, "quality": 0}, "other": {"train": 300}}


def event(stage, done, total, job="main", stored=False):
    return ProgressEvent(job, stage, done, total, stored)


@pytest.fixture
def bar():
    with ExperimentBar(MISSING, shown=False) as shown:
        yield shown


# A stage


def test_the_parts_of_a_stage_add_up():
    """Two bounds of chains: 40 and 60 evaluations, each reported from 0 on."""
    meter = StageMeter("bound-test-chains", 100)
    counted = []
    for done, total in [(0, 40), (20, 40), (40, 40), (0, 60), (30, 60), (60, 60)]:
        meter.update(event("bound-test-chains", done, total))
        counted.append(meter.evaluations)
    assert counted == [0, 20, 40, 40, 70, 100]


def test_a_part_that_is_as_long_as_the_one_before_is_another_part():
    meter = StageMeter("bound", 80)
    for done in (20, 40, 0, 10):
        meter.update(event("bound", done, 40))
    assert meter.evaluations == 50


def test_a_stage_counts_no_more_than_its_cost():
    """Features are counted in images, which come on top of the samples' evaluations."""
    meter = StageMeter("quality-steps-ddim", 100)
    for done, total in [(100, 100), (400, 400)]:
        meter.update(event("quality-steps-ddim", done, total))
    assert meter.evaluations == 100


def test_training_counts_updates_which_cost_their_share():
    meter = StageMeter("train", 300)
    for done, expected in [(10, 150), (20, 300)]:
        meter.update(event("train", done, 20))
        assert meter.evaluations == expected


# All jobs


def test_the_total_is_what_all_jobs_still_need(bar):
    assert bar.bar.total == 750
    assert bar.evaluations == 0


def test_a_stored_stage_counts_wholly(bar):
    bar.update(event("train", 5, 10))
    assert bar.evaluations == 150
    bar.update(event("train", 1, 1, stored=True))
    assert bar.evaluations == 300


def test_stages_before_the_present_one_are_done(bar):
    """Sampling needs no evaluation of its own where another stage drew the samples."""
    bar.update(event("sample", 10, 50))
    assert bar.evaluations == 300 + 100 + 10


def test_a_job_that_is_done_counts_wholly_even_if_it_ended_early(bar):
    bar.update(event("train", 1, 10))
    bar.finish("main")
    assert bar.evaluations == 450
    bar.finish("other")
    assert bar.evaluations == bar.bar.total


def test_what_was_not_expected_is_not_counted(bar):
    bar.update(event("baseline", 5, 10))
    bar.update(event("bound", 0, 0))
    assert bar.evaluations == 0


def test_what_costs_no_evaluations_is_shown_while_nothing_else_moves(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_refresh_seconds", lambda: 0)
    with ExperimentBar(MISSING, shown=True) as bar:
        for done in (0, 1, 2):
            bar.update(event("training the classifier", done, 4))
        assert bar.evaluations == 0
    shown = capsys.readouterr().err
    assert all(f"main training the classifier {percent}%" in shown for percent in (0, 25, 50))


def test_the_bar_says_what_each_job_does():
    with ExperimentBar(MISSING, shown=True) as bar:
        bar.update(event("train", 3, 10))
        bar.update(event("train", 1, 2, job="other"))
        assert bar.bar.postfix == "main train 30%; other train 50%"
        assert bar.bar.n == bar.evaluations == 240
        bar.finish("main")
        assert bar.bar.postfix == "other train 50%"


# Stages of a single command


@pytest.fixture
def bars(monkeypatch):
    """Return the bars that were shown, as [description, units, total, options, whether it was closed]."""
    shown = []

    class Bar:
        def __init__(self, total, desc, **options):
            self.total = total
            self.n = 0
            self.row = [desc, 0, total, options, False]
            shown.append(self.row)

        def update(self, units):
            self.n += units
            self.row[1] = self.n

        def close(self):
            self.row[4] = True

    monkeypatch.setattr(progress, "tqdm", Bar)
    return shown


def test_each_stage_has_a_bar_that_ends_with_it(bars):
    show = StageBars()
    for stage, done, total in [("sample", 0, 4), ("sample", 2, 4), ("sample", 4, 4), ("features", 1, 2)]:
        show(stage, done, total)
    assert [row[:3] + row[4:] for row in bars] == [["sample", 4, 4, True], ["features", 1, 2, False]]


@pytest.mark.parametrize(("done", "total"), [(1, 8), (0, 4)])
def test_a_stage_that_begins_again_has_a_new_bar(bars, done, total):
    show = StageBars()
    show("bound", 3, 4)
    show("bound", done, total)
    assert [row[1:3] + row[4:] for row in bars] == [[3, 4, True], [done, total, False]]


def test_a_stage_that_is_over_when_it_first_reports_has_no_bar(bars):
    StageBars()("bound", 4, 4)
    assert bars == []


def test_the_bar_of_a_preview_comes_late_and_does_not_stay(bars):
    show = StageBars()
    show("preview: bound test", 0, 4)
    show("train", 0, 4)
    preview, training = (row[3] for row in bars)
    assert (preview["leave"], preview["delay"]) == (False, progress.PREVIEW_DELAY_SECONDS)
    assert (training["leave"], training["delay"]) == (True, 0)


def test_only_the_main_process_shows_bars(monkeypatch):
    assert isinstance(stage_bars(), StageBars)
    monkeypatch.setenv("RANK", "1")
    assert stage_bars() is silent


@pytest.mark.parametrize(("terminal", "seconds"), [(True, 0.2), (False, 15.0)])
def test_a_log_file_is_written_seldom(bars, monkeypatch, terminal, seconds):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    StageBars()("train", 0, 4)
    assert bars[0][3]["mininterval"] == seconds
