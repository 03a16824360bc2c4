"""What a report shows first: what was found, each number with the yardstick that says what it is worth."""

from ddpm_eval.reporting.bound_comparisons import baseline_table
from ddpm_eval.reporting.bound_tables import bound_estimates, distortion_share
from ddpm_eval.reporting.rate_distortion_tables import rate_distortion_curve
from ddpm_eval.reporting.report_parts import Finding, Picture
from ddpm_eval.reporting.tables import format_estimate
from ddpm_eval.reporting.training_caveats import training_caveat
from ddpm_eval.results.bound_terms import BoundTerms
from ddpm_eval.results.fields import Estimate
from ddpm_eval.results.records import Baseline, Quality, Samples, TrainingLog
from experiments.paper import published
from experiments.study import Study, StudyRun

SHOWN = 24
COLUMNS = 12


def headline(study: Study) -> list[Finding]:
    """Return what was found of the runs that the study is about, as far as it is measured."""
    main, of_bound = study.main, study.bound_run
    found = [_samples(main), _distance(main), _bits_per_dim(of_bound), _imperceptible(of_bound)]
    return [finding for finding in found if finding is not None]


def _samples(run: StudyRun) -> Finding | None:
    samples = run.result("samples", Samples)
    if samples is None:
        return None
    shown = samples.images[:SHOWN]
    data = run.spec.data.name
    sentence = (
        f"The first {len(shown)} of {len(samples.images)} images drawn from the model of {data} "
        f"({run.words}), not selected{_caveat(run)}{_not_finite(samples)}."
    )
    picture = Picture(shown, COLUMNS, f"A grid of {len(shown)} samples of the model of {data}.")
    return Finding("Samples", "", sentence, picture)


def _caveat(run: StudyRun) -> str:
    """Say what makes the samples noise, if anything does."""
    log = run.result("training", TrainingLog)
    caveat = "" if log is None else training_caveat(run.spec.train, log)
    return f"; {caveat}" if caveat else ""


def _not_finite(samples: Samples) -> str:
    """Say how many of the shown samples have no image, if any."""
    broken = len(samples.not_finite(SHOWN))
    return f"; {broken} of those shown are not finite, and grey stands for them" if broken else ""


def _distance(run: StudyRun) -> Finding | None:
    quality = run.result("quality", Quality)
    if quality is None:
        return None
    yardstick = quality.reference_distance
    known = (
        f"real test images have {_text(yardstick)} (n = {quality.n_test}), "
        "which is as near as samples can be expected to be"
        if yardstick.known
        else "the distance of real test images, which would say how near is near, was not measured"
    )
    sentence = f"Distance of {quality.n_samples} samples to the training images; {known}."
    return Finding(quality.distance_name, _text(quality.frechet_distance), sentence)


def _bits_per_dim(run: StudyRun) -> Finding | None:
    terms = run.bound()
    if terms is None:
        return None
    sentence = (
        f"What the model's bound needs to store {len(terms.image_id)} test images of "
        f"{run.spec.data.name} without loss"
        f"{_beside(run, terms)}."
    )
    return Finding("Bits/dim", _text(bound_estimates(terms)["total"]), sentence)


def _beside(run: StudyRun, terms: BoundTerms) -> str:
    """Return the yardstick of bits/dim: a Gaussian that was fitted to the training images."""
    baseline = run.result("baseline", Baseline)
    if baseline is None:
        return "; 8 bits/dim is no compression"
    value = baseline_table(terms, baseline).set_index("model")["bits_per_dim"]["Gaussian, likelihood"]
    return f"; a Gaussian fitted to the training images needs {value:.3g}, and 8 is no compression"


def _imperceptible(run: StudyRun) -> Finding | None:
    terms = run.bound()
    if terms is None:
        return None
    share = distortion_share(terms)
    error = rate_distortion_curve(terms)["rmse_255"].iloc[-1]
    of_paper = published.SPLIT_BITS_PER_DIM["distortion"] / published.SPLIT_BITS_PER_DIM["total"]
    paper = f"the paper has {100 * of_paper:.0f} % on CIFAR-10, at {published.RMSE_255}"
    value = f"{format_estimate(*(100 * part for part in share[:3]))} %"
    sentence = (
        "Share of the bits that describe what the last step leaves open, differences of "
        f"{error:.2g} of 255 levels (RMSE); {paper}."
    )
    return Finding("Imperceptible share", value, sentence)


def _text(estimate: Estimate) -> str:
    return format_estimate(*estimate[:3])
