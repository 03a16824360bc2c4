"""Which stages each experiment needs of which runs of a study, as jobs for the scheduler.

Stages are named as in `ddpm_eval.stages.registry`. The first job is the most important one.
"""

from dataclasses import replace

from ddpm_eval.results.records import (
    QUALITY_OF_OTHER_VARIANCE,
    QUALITY_OVER_STEPS,
    QUALITY_OVER_TIME,
)
from ddpm_eval.spec_text import override
from ddpm_eval.stages.scheduler import Job
from experiments.study import VARIED, Study, StudyRun

REPRODUCE = (
    "train",
    "reference-images",
    "baseline",
    "simple-codes",
    "bound-train-stratified",
    "bound-train",
    "bound-test-protocols-stratified",
    "bound-test-protocols",
    "progressive",
    "sample",
    "quality",
    "coverage",
    "bound-test-chains",
    QUALITY_OVER_TIME,
    *QUALITY_OVER_STEPS.values(),
    QUALITY_OF_OTHER_VARIANCE,
    "neighbours",
    "shared-latents",
    "interpolate",
    "interpolate-times",
)
"""The stages of the paper's model; what comes after its quality deepens the report."""
QUALITY = tuple(
    "bound-test-stratified" if name == "bound-test-protocols-stratified" else name
    for name in REPRODUCE
    if name not in ("bound-train", "bound-test-protocols", "bound-test-chains")
)
"""The stages of the paper's model where likelihood is measured of another run."""
LIKELIHOOD = (
    "baseline",
    "simple-codes",
    "train",
    "reference-images",
    "bound-train",
    "bound-test-protocols-stratified",
    "bound-test-protocols",
    "progressive",
    "bound-test-chains",
)
"""The stages of that run; the baseline, which needs no training, gives the first numbers."""
ABLATION = ("train", "bound-test-stratified", "bound-train-stratified", "sample", "quality", "coverage")
LIKELIHOOD_REPLICATE = ("train", "bound-test-stratified")
"""The stages of the run of which likelihood is measured, with a further seed."""
RATE_DISTORTION = (
    "train",
    "baseline",
    "simple-codes",
    "bound-train-stratified",
    "bound-train",
    "bound-test-protocols-stratified",
    "bound-test-protocols",
    "bound-test-chains",
)
PROGRESSIVE = ("train", "progressive")


def reproduce_jobs(study: Study) -> list[Job]:
    """Return all jobs of a preset, the paper's model first; of a single run its own.

    Of the default study the first two are those of the photographs and of the digits' main run. What is
    measured with further seeds comes last: Table 2, and the bound of the run that likelihood is reported of.

    Raises:
        ValueError: if the settings fix what the ablation varies.
    """
    if study.preset is None:
        return [_job(study, study.main, REPRODUCE)]
    others = ablation_jobs(study)[1:]
    if study.other_bound_run is None:
        return [_job(study, study.main, REPRODUCE), *others]
    likelihood = _job(study, study.other_bound_run, LIKELIHOOD)
    again = [_job(other, other.bound_run, LIKELIHOOD_REPLICATE) for other in study.replicates]
    return [likelihood, _job(study, study.main, QUALITY), *others, *again]


def ablation_jobs(study: Study) -> list[Job]:
    """Return the jobs of all six cells of Table 2, one seed after the other.

    Of each seed the paper's model comes first, then the others that predict eps.

    Raises:
        ValueError: if the settings fix what the ablation varies, or the study is of a single run.
    """
    if study.preset is None:
        raise ValueError(
            f"the ablation compares six models of a --preset, and {study.main.folder} is one model: "
            "rate-distortion and reproduce measure it"
        )
    for key in VARIED:
        if key in study.settings:
            raise ValueError(
                f"--set {key} contradicts the ablation, which varies it (use train for a single run)"
            )
    return [job for one in study.seeds for job in _ablation_of_one_seed(one)]


def rate_distortion_jobs(study: Study) -> list[Job]:
    """Return the job of the run whose likelihood is reported."""
    return [_job(study, study.bound_run, RATE_DISTORTION)]


def progressive_jobs(study: Study) -> list[Job]:
    """Return the job of that run, with no more samples than Fig. 6 shows."""
    job = _job(study, study.bound_run, PROGRESSIVE)
    return [replace(job, spec=override(job.spec, {"evaluation.n_curve": "0"}))]


def _ablation_of_one_seed(study: Study) -> list[Job]:
    runs = sorted(study.runs, key=lambda run: (run != study.main, run.spec.diffusion.prediction != "eps"))
    return [_job(study, run, ABLATION) for run in runs]


def _job(study: Study, run: StudyRun, stages: tuple[str, ...]) -> Job:
    options = study.options
    return Job(
        folder=run.folder,
        spec=run.spec,
        stages=stages,
        data_root=options.data_root,
        inception_weights=options.inception_weights,
        device=options.device,
        batch_size=options.batch_size,
        label=run.label if run is study.other_bound_run else "",
    )
