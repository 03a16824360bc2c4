"""Which runs a study has, where they and the report lie, and which stored results count."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from quality_examples import make_quality
from simulated_bounds import make_terms, realistic, subsample
from stored_results import (
    STEPS,
    bounds,
    cell_results,
    main_results,
    make_history,
    make_log,
    make_samples,
    store_results,
)
from tiny import TINY, tiny

from ddpm_eval.protocol import PROTOCOLS, combine
from ddpm_eval.results.bound_terms import BOUND_HISTORY, BoundHistory, FullBoundTerms, bound_name
from ddpm_eval.results.records import Baseline, Quality, ReferenceImages, Samples
from ddpm_eval.results.store import Entry, Store
from ddpm_eval.spec_text import override
from experiments.paper.presets import TABLE_2
from experiments.study import (
    DEFAULT,
    StudyOptions,
    StudyRun,
    measured_spec,
    replicated,
    resolve_default,
    resolve_preset,
    resolve_run,
    run_folder,
    with_evaluation,
)


def report(folder, reports):
    """Return where the report of one run lies."""
    return resolve_run(folder, TINY, options=StudyOptions(reports=reports)).report_folder


# The runs of a study


def test_the_study_of_a_preset_has_a_run_for_each_cell_in_the_order_of_table_2(tmp_path):
    study = resolve_preset("digits", runs=tmp_path)
    found = [(run.spec.diffusion.prediction, run.spec.diffusion.objective) for run in study.runs]
    assert found == [(cell.prediction, cell.objective) for cell in TABLE_2]
    assert study.has_every_cell
    assert study.main is study.runs[-1]
    assert (study.main.label, study.main.words) == ("eps-mse-fixed-large", "eps, MSE, fixed variance")
    assert study.runs[3].words == "eps, L, learned variance"
    assert study.main.folder == tmp_path / "digits" / "eps-mse-fixed-large"
    assert study.main.folder == run_folder(tmp_path, study.main.spec)


def test_the_only_run_of_a_given_run_is_that_run(tmp_path):
    spec = tiny(diffusion__prediction="mu", seed=5)
    study = resolve_run(tmp_path / "any", spec)
    assert study.runs == (study.main,)
    assert not study.has_every_cell
    assert study.preset is None
    assert (study.main.spec, study.main.folder, study.main.label) == (spec, tmp_path / "any", "any")


def test_settings_and_seed_make_other_runs_and_another_report(tmp_path):
    options = StudyOptions(reports=tmp_path)
    plain = resolve_preset("digits", options=options)
    assert plain.report_folder == tmp_path / "digits"
    assert plain.tables == tmp_path / "digits" / "tables"
    assert plain.figures == tmp_path / "digits" / "figures"
    other = resolve_preset("digits", {"train.batch_size": "16"}, options=options)
    assert other.report_folder.name == f"digits-{other.main.spec.training_digest()}"
    seeded = resolve_preset("digits", seed=4, options=options)
    assert {run.spec.seed for run in seeded.runs} == {4}
    assert len({study.report_folder for study in (plain, other, seeded)}) == 3
    assert len({study.main.folder for study in (plain, other, seeded)}) == 3
    longer = resolve_preset("digits", {"train.steps": "2000"}, options=options)  # the same run, further on
    assert longer.report_folder == plain.report_folder


def test_the_default_study_joins_the_digits_and_a_model_of_the_photos(tmp_path):
    options = StudyOptions(reports=tmp_path / "reports", device="cpu")
    study = resolve_default(runs=tmp_path, options=options)
    digits = resolve_preset("digits", runs=tmp_path, options=options)
    photos = resolve_preset("photos", runs=tmp_path, options=options).main
    assert (study.runs, study.main, study.options) == (digits.runs, digits.main, options)
    assert (study.bound_run.folder, study.bound_run.spec) == (photos.folder, photos.spec)
    assert study.bound_run.label == "photos eps-mse-fixed-large"
    assert study.subjects == (study.main, study.bound_run)
    assert study.every_run == (*study.runs, study.bound_run)
    assert study.has_every_cell
    assert study.preset == DEFAULT
    assert study.report_folder == tmp_path / "reports" / "default"


def test_settings_and_seed_apply_to_both_parts_of_the_default_study():
    settings = {"train.steps": "9", "evaluation.n_samples": "70"}
    study = resolve_default(settings)
    assert {(run.spec.train.steps, run.spec.evaluation.n_samples) for run in study.every_run} == {(9, 70)}
    assert study.settings == settings
    assert study.report_folder.name == "default"  # the same runs, at another moment
    others = [resolve_default({"train.batch_size": "16"}), resolve_default(seed=4)]
    assert {run.spec.seed for run in others[1].every_run} == {4}
    names = [other.report_folder.name for other in others]
    assert all(name.startswith("default-") for name in names)
    assert len(set(names)) == 2


def test_replicates_are_the_same_study_with_the_seeds_that_follow(tmp_path):
    study = replicated(lambda seed: resolve_default(seed=seed, runs=tmp_path), 0, 3)
    assert replace(study, replicates=()) == resolve_default(runs=tmp_path)
    assert [one.main.spec.seed for one in study.seeds] == [0, 1, 2]
    assert study.report_folder.name == "default"
    assert len(study.every_run) == len({run.folder for run in study.every_run}) == 3 * 7
    assert study.runs_of_first_seed == resolve_default(runs=tmp_path).every_run
    second = study.seeds[1]
    assert second.main.folder == tmp_path / "digits" / "eps-mse-fixed-large-seed-1"
    assert second.main.label == "eps-mse-fixed-large, seed 1"
    assert second.bound_run.label == "photos eps-mse-fixed-large, seed 1"
    assert second.bound_run.words == "photos eps, MSE, fixed variance, seed 1"
    assert replicated(lambda seed: resolve_default(seed=seed), 4, 1) == resolve_default(seed=4)


def test_likelihood_is_of_the_main_run_where_there_is_no_other(tmp_path):
    for study in (resolve_preset("digits"), resolve_run(tmp_path, TINY)):
        assert study.bound_run is study.main
        assert study.subjects == (study.main,)
        assert study.every_run == study.runs


def test_a_learned_variance_stays_learned_where_another_is_set():
    study = resolve_preset("digits", {"diffusion.variance": "fixed-small"})
    variances = [run.spec.diffusion.variance for run in study.runs]
    assert variances == ["learned", "fixed-small", "fixed-small", "learned", "fixed-small", "fixed-small"]


@pytest.mark.parametrize(("key", "value"), [("diffusion.prediction", "x0"), ("diffusion.objective", "vlb")])
def test_where_the_settings_fix_what_the_ablation_varies_there_is_one_run(key, value):
    study = resolve_preset("digits", {key: value})
    assert study.runs == (study.main,)
    assert not study.has_every_cell
    assert value in study.main.label


def test_reports_of_given_runs_do_not_collide_with_each_other_or_with_a_presets(tmp_path, monkeypatch):
    folders = [tmp_path / "digits" / "eps", tmp_path / "mnist" / "eps", tmp_path / "digits"]
    reports = [report(folder, tmp_path) for folder in folders]
    reports.append(resolve_preset("digits", options=StudyOptions(reports=tmp_path)).report_folder)
    assert reports[0] == tmp_path / "digits-eps"
    assert len(set(reports)) == len(reports)
    folders[0].mkdir(parents=True)
    monkeypatch.chdir(folders[0])
    assert report(Path("."), tmp_path) == reports[0]  # the same run, however it is named


def test_of_a_given_run_only_the_evaluation_can_be_set(tmp_path):
    assert with_evaluation(tmp_path, TINY, {"evaluation.n_samples": "7"}).evaluation.n_samples == 7
    assert resolve_run(tmp_path, TINY, {"evaluation.n_samples": "7"}).main.spec.evaluation.n_samples == 7
    for key, value in [("train.steps", "9"), ("diffusion.timesteps", "9"), ("seed", "1")]:
        with pytest.raises(ValueError, match=f"--set {key} would make another run"):
            resolve_run(tmp_path, TINY, {key: value})
    with pytest.raises(
        ValueError, match=r"there is no option 'evaluation\.n_sample' \(did you mean evaluation\.n_samples"
    ):
        resolve_run(tmp_path, TINY, {"evaluation.n_sample": "9"})


def test_what_a_run_is_comes_from_its_newest_training(tmp_path):
    run = StudyRun(tmp_path, TINY, "tiny")
    with pytest.raises(ValueError, match="holds no results to report"):
        measured_spec(tmp_path)
    store_results(run, {"training": make_log()}, "a", created="2026-01-01T00:00:00")
    longer = override(TINY, {"train.steps": "9"}).model_dump(mode="json")
    store_results(run, {"training": make_log()}, "b", created="2026-01-02T00:00:00", spec=longer)
    assert measured_spec(tmp_path) == tiny(train__steps=9)


# Stored results


@pytest.fixture
def run(tmp_path):
    return StudyRun(tmp_path, TINY, "tiny")


def test_nothing_is_stored_of_a_run_that_does_not_exist(run):
    assert list(run.entries()) == []
    assert run.weights is None
    assert run.entry("quality") is None
    assert run.result("quality", Quality) is None
    assert run.latest("quality", Quality) is None
    assert run.bound() is None
    assert run.full_bound() is None
    assert run.bounds("test") == []


def test_results_of_other_weights_do_not_count(run):
    store_results(run, {"training": make_log(), "quality": make_quality(n_samples=5)}, "old")
    assert run.result("quality", Quality).n_samples == 5
    store_results(run, {"training": make_log()}, "new")
    assert run.weights == "new"
    assert run.result("quality", Quality) is None
    assert run.latest("quality", Quality).n_samples == 5
    store_results(run, {"quality": make_quality(n_samples=6)}, "new")
    assert run.result("quality", Quality).n_samples == 6


def test_without_a_recorded_training_no_result_is_of_the_present_weights(run):
    store_results(run, {"quality": make_quality()})
    assert run.result("quality", Quality) is None


def test_what_depends_on_the_data_alone_stays_valid_when_training_goes_on(run):
    found = main_results()
    store_results(run, {name: found[name] for name in ("training", "reference-images", "baseline")}, "old")
    store_results(run, {"training": make_log()}, "new")
    assert run.result("reference-images", ReferenceImages) is not None
    assert run.result("baseline", Baseline) is not None


def put_quality(run, key, number, created, **evaluation):
    """Store a quality that was measured with another evaluation."""
    settings = {f"evaluation.{name}": str(value) for name, value in evaluation.items()}
    spec = override(run.spec, settings).model_dump(mode="json")
    provenance = {"weights": "w", "spec": spec, "created": created}
    run.results.put("quality", make_quality(n_samples=number), key=key, provenance=provenance)


def test_of_several_results_that_of_the_same_evaluation_counts_else_the_newest(run):
    store_results(run, {"training": make_log()}, "w")
    put_quality(run, "a", 7, "2026-01-01T00:00:00", n_samples=7)
    put_quality(run, "b", 9, "2026-01-02T00:00:00", n_samples=9)
    assert [entry.key for entry in run.entries() if entry.name == "quality"] == ["a", "b"]
    assert run.result("quality", Quality).n_samples == 9
    put_quality(run, "c", 10, "2026-01-01T12:00:00")  # with this study's evaluation, though not the newest
    assert run.result("quality", Quality).n_samples == 10
    assert run.entry("quality").key == "c"
    assert isinstance(run.entry("quality"), Entry)


def test_the_bound_of_the_most_images_counts_and_of_equally_many_the_full_one(run):
    paper = PROTOCOLS["paper"]
    store_results(run, cell_results())  # the stratified bound of twelve images
    assert run.bound().estimator == "stratified"
    assert run.bound("train") is None and run.full_bound() is None
    for n, expected in [(3, "stratified"), (12, "full")]:
        store_results(run, {bound_name("test", paper): make_terms([[1.0] * STEPS] * n, protocol=paper)})
        assert (run.bound().estimator, len(run.bound().image_id)) == (expected, 12)
        assert len(run.full_bound().image_id) == n
    assert run.bound("test", PROTOCOLS["exact"]) is None


def test_the_bounds_under_all_protocols_are_of_the_same_images_and_steps(run):
    everything = bounds()
    shorter = combine(PROTOCOLS["paper"], draws=2)
    everything[bound_name("test", shorter, "full", 10)] = make_terms([[1.0] * 10] * 3, protocol=shorter)
    store_results(run, {"training": make_log(), **everything})
    names = [terms.protocol.name for terms in run.bounds("test")]
    assert names == [
        *("exact", "exact+fixed-small", "exact+optimal", "paper", "paper+fixed-small", "paper+optimal")
    ]
    assert [terms.split for terms in run.bounds("train")] == ["train", "train"]
    assert all(isinstance(terms, FullBoundTerms) for terms in run.bounds("test"))
    more = subsample(realistic(13, np.random.default_rng(0), steps=STEPS), 5, np.random.default_rng(1))
    store_results(run, {bound_name("test", PROTOCOLS["paper"], "stratified"): more})
    assert [(terms.estimator, len(terms.image_id)) for terms in run.bounds("test")] == [("stratified", 13)]


def test_entries_are_read_again_when_the_file_changes(run):
    store_results(run, {"training": make_log()})
    assert len(run.entries()) == 1
    store_results(run, {BOUND_HISTORY: make_history()}, "earlier")
    assert len(run.entries()) == 2
    assert run.latest(BOUND_HISTORY, BoundHistory).update.tolist() == [10, 20, 30]


def test_a_small_result_is_read_once_until_the_file_changes_and_a_large_one_every_time(run, monkeypatch):
    read = []
    get = Store.get
    monkeypatch.setattr(Store, "get", lambda store, *what: read.append(what[0]) or get(store, *what))
    store_results(run, {"training": make_log(), "samples": make_samples(3)})
    for _ in range(3):
        assert run.result("samples", Samples) is run.result("samples", Samples)
    assert read == ["samples"]
    store_results(run, {"samples": make_samples(4)})
    assert len(run.result("samples", Samples).images) == 4
    monkeypatch.setattr("experiments.study.MOST_KEPT_ELEMENTS", 4 * 64)  # the times and shares make it larger
    assert run.result("samples", Samples) is not run.result("samples", Samples)


def test_results_of_another_run_are_refused(tmp_path):
    """The files of two runs exchanged: no number of the one may stand under the name of the other."""
    own, other = tiny(), tiny(seed=4)
    run = StudyRun(tmp_path, own, "own")
    images = ReferenceImages(np.zeros((2, 1, 8, 8), np.uint8), name="digits", split="train")
    run.results.put("reference-images", images, key="k", provenance={"run": own.training_digest()})
    assert [entry.name for entry in run.entries()] == ["reference-images"]
    exchanged = replace(run, spec=other)
    for use in (exchanged.entries, lambda: exchanged.result("reference-images", ReferenceImages)):
        with pytest.raises(ValueError, match=r"results\.h5 holds results of another run than tiny eps-mse-"):
            use()
