"""Which stages each experiment needs of which runs of a study, as jobs for the scheduler.

Stages are named as in `ddpm_eval.stages.registry`. The first job is the most important one.
"""

from dataclasses import replace

from ddpm_eval.results.records import QUALITY_OVER_STEPS, QUALITY_OVER_TIME
from ddpm_eval.spec_text import override
from ddpm_eval.stages.scheduler import Job
from experiments.study import VARIED, Study, StudyRun

REPRODUCE = (
    "train",
    "reference-images",
    "baseline",
    "bound-train",
    "bound-test-protocols",
    "progressive",
    "sample",
    "quality",
    "bound-test-chains",
    QUALITY_OVER_TIME,
    *QUALITY_OVER_STEPS.values(),
    "neighbours",
    "interpolate",
)
"""The stages of the paper's model; what comes after its quality deepens the report."""
ABLATION = ("train", "bound-test-stratified", "sample", "quality")
RATE_DISTORTION = ("train", "baseline", "bound-train", "bound-test-protocols", "bound-test-chains")
PROGRESSIVE = ("train", "progressive")


def reproduce_jobs(study: Study) -> list[Job]:
    """Return all jobs of a preset, the paper's model first; of a single run its own.

    Raises:
        ValueError: if the settings fix what the ablation varies.
    """
    main = _job(study, study.main, REPRODUCE)
    return [main] if study.preset is None else [main, *ablation_jobs(study)[1:]]


def ablation_jobs(study: Study) -> list[Job]:
    """Return the jobs of all six cells of Table 2, the paper's model first, then the others that predict eps.

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
    runs = sorted(study.runs, key=lambda run: (run != study.main, run.spec.diffusion.prediction != "eps"))
    return [_job(study, run, ABLATION) for run in runs]


def rate_distortion_jobs(study: Study) -> list[Job]:
    """Return the job of the main run."""
    return [_job(study, study.main, RATE_DISTORTION)]


def progressive_jobs(study: Study) -> list[Job]:
    """Return the job of the main run, with no more samples than Fig. 6 shows."""
    job = _job(study, study.main, PROGRESSIVE)
    return [replace(job, spec=override(job.spec, {"evaluation.n_curve": "0"}))]


def _job(study: Study, run: StudyRun, stages: tuple[str, ...]) -> Job:
    options = study.options
    return Job(run.folder, run.spec, stages, options.data_root, options.inception_weights, options.device)
