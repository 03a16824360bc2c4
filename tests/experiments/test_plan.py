"""Which stages each experiment needs of which runs."""

from pathlib import Path

import pytest
from tiny import HERE, TINY

from ddpm_eval.stages.registry import stages
from ddpm_eval.stages.run import Run
from experiments import plan
from experiments.plan import ablation_jobs, progressive_jobs, rate_distortion_jobs, reproduce_jobs
from experiments.study import StudyOptions, replicated, resolve_default, resolve_preset, resolve_run


def test_every_planned_stage_exists(tmp_path):
    known = stages(Run(tmp_path, TINY, HERE))
    every = (plan.REPRODUCE, plan.ABLATION, plan.RATE_DISTORTION, plan.PROGRESSIVE)
    for planned in (*every, plan.QUALITY, plan.LIKELIHOOD):
        assert set(planned) <= set(known)
        assert len(set(planned)) == len(planned)
        assert planned[0] == ("baseline" if planned is plan.LIKELIHOOD else "train")


def test_stages_follow_those_that_they_read():
    for order in (plan.REPRODUCE, plan.QUALITY, plan.LIKELIHOOD):
        for earlier, later in [
            ("bound-train", "bound-test-protocols-stratified"),
            ("bound-train", "bound-test-protocols"),
            ("progressive", "sample"),
            ("sample", "quality"),
            ("quality", "bound-test-chains"),
        ]:
            assert order is not plan.REPRODUCE or {earlier, later} <= set(order)
            assert not {earlier, later} <= set(order) or order.index(earlier) < order.index(later)


def test_the_papers_model_comes_first_then_the_others_that_predict_eps():
    study = resolve_preset("digits")
    jobs = ablation_jobs(study)
    assert [job.name for job in jobs] == [
        *("eps-mse-fixed-large", "eps-vlb-learned", "eps-vlb-fixed-large"),
        *("mu-vlb-learned", "mu-vlb-fixed-large", "mu-mse-fixed-large"),
    ]
    assert {job.stages for job in jobs} == {plan.ABLATION}


def test_reproduce_measures_everything_of_the_papers_model_and_the_ablation_of_the_others():
    study = resolve_preset("digits")
    first, *others = reproduce_jobs(study)
    assert (first.folder, first.spec, first.stages) == (study.main.folder, study.main.spec, plan.REPRODUCE)
    assert others == ablation_jobs(study)[1:]


def test_the_default_study_measures_likelihood_of_the_photos_and_all_else_of_the_digits():
    study = resolve_default()
    likelihood, quality, *others = reproduce_jobs(study)
    assert (likelihood.folder, likelihood.spec) == (study.bound_run.folder, study.bound_run.spec)
    assert (quality.folder, quality.spec) == (study.main.folder, study.main.spec)
    assert others == ablation_jobs(study)[1:]
    full = {"bound-train", "bound-test-protocols", "bound-test-chains"}
    assert {*full, "bound-test-protocols-stratified"} <= set(likelihood.stages)
    assert {"bound-test-stratified", "bound-train-stratified"} <= set(quality.stages)
    assert not full & set(quality.stages)
    assert set(plan.ABLATION) <= set(quality.stages)
    assert set(plan.REPRODUCE) <= {*likelihood.stages, *quality.stages}
    names = [job.name for job in reproduce_jobs(study)]
    assert len(set(names)) == len(names)  # though two folders have one name


def test_of_further_seeds_table_2_and_the_bound_are_measured_last():
    study = replicated(lambda seed: resolve_default(seed=seed), 0, 3)
    jobs = reproduce_jobs(study)
    first = reproduce_jobs(resolve_default())
    assert jobs[: len(first)] == first
    again = jobs[len(first) :]
    assert [job.spec.seed for job in again] == [1] * 6 + [2] * 6 + [1, 2]
    assert {job.stages for job in again[:-2]} == {plan.ABLATION}
    assert {job.stages for job in again[-2:]} == {plan.LIKELIHOOD_REPLICATE}
    assert len({job.name for job in jobs}) == len({job.folder for job in jobs}) == 3 * 7
    assert [job.spec.seed for job in ablation_jobs(study)] == [0] * 6 + [1] * 6 + [2] * 6


def test_rate_and_distortion_are_of_the_run_whose_likelihood_is_reported():
    study = resolve_default()
    for jobs in (rate_distortion_jobs, progressive_jobs):
        assert [job.folder for job in jobs(study)] == [study.bound_run.folder]


def test_of_a_given_run_there_is_one_job(tmp_path):
    study = resolve_run(tmp_path, TINY)
    assert [job.folder for job in reproduce_jobs(study)] == [tmp_path]
    (job,) = rate_distortion_jobs(study)
    assert (job.spec, job.stages) == (TINY, plan.RATE_DISTORTION)


def test_what_contradicts_the_ablation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is one model: rate-distortion and reproduce measure it"):
        ablation_jobs(resolve_run(tmp_path / "any", TINY))
    for key, value in [("diffusion.prediction", "mu"), ("diffusion.objective", "vlb")]:
        study = resolve_preset("digits", {key: value})
        for jobs in (ablation_jobs, reproduce_jobs):
            with pytest.raises(ValueError, match=f"--set {key} contradicts the ablation, which varies it"):
                jobs(study)
        assert len(rate_distortion_jobs(study)) == 1


def test_fig_6_draws_no_more_samples_than_it_shows():
    (job,) = progressive_jobs(resolve_preset("digits"))
    assert job.spec.evaluation.n_curve == 0
    assert job.stages == plan.PROGRESSIVE


def test_the_options_of_a_study_reach_its_jobs():
    options = StudyOptions(data_root=Path("data"), device="cpu", inception_weights=Path("inception.pth"))
    for job in reproduce_jobs(resolve_preset("digits", options=options)):
        assert (job.data_root, job.device, job.inception_weights) == (
            *(Path("data"), "cpu", Path("inception.pth")),
        )
