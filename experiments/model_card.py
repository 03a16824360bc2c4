"""The card of a published run: what it is, how it was trained, and all that was measured of it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ddpm_eval.reporting.bound_tables import bound_estimates
from ddpm_eval.reporting.tables import format_estimate
from ddpm_eval.results.bound_terms import BoundTerms, FullBoundTerms, StratifiedBoundTerms
from ddpm_eval.results.fields import Estimate
from ddpm_eval.results.records import Quality
from ddpm_eval.results.store import Store
from ddpm_eval.training.checkpoint import averaged, load, weights_digest
from ddpm_eval.training.loop import training_log
from experiments.describe import describe
from experiments.study import RESULTS_FILE

BOUNDS: dict[str, type[BoundTerms]] = {
    "FullBoundTerms": FullBoundTerms,
    "StratifiedBoundTerms": StratifiedBoundTerms,
}
HOUR_SECONDS = 3600


def model_card(run: Path, out: Path) -> str:
    """Return the card of a run's averaged weights in Markdown.

    Args:
        run: the run's folder; what its results file holds of these weights is listed.
        out: the folder in which others will find the weights, for the commands.
    """
    saved = averaged(load(run, prefixes=("ema/", "log/")))
    spec, log = saved.spec, training_log(saved)
    rows = [f"| {label} | {text} |" for label, text in describe(spec, log).items()]
    arithmetic = ", in bf16 autocast" if saved.metadata.get("mixed_precision") else ""
    on = f" on {saved.metadata['device']}{arithmetic}" if "device" in saved.metadata else ""
    rows.append(f"| Trained for | {log.images:,} images in {log.seconds / HOUR_SECONDS:.1f} hours{on} |")
    bounds, qualities = _stored(Store(run / RESULTS_FILE), weights_digest(saved.tensors))
    lines = [
        f"# {spec.preset}: averaged weights\n",
        "\n".join(["| | |", "|---|---|", *rows]) + "\n",
        "## What was measured\n",
        *_measured(bounds, qualities),
        "## How to use it\n",
        "Every command that measures one run takes this folder as a RUN. Its training cannot go on: the",
        "optimiser's state is not part of it.\n",
        f"    python cli.py likelihood {out} --estimator stratified{_how_many(bounds)}",
        f"    python cli.py rate-distortion {out} --dry-run    # what it measures, and how long it takes",
        f"    python cli.py rate-distortion {out}\n",
        "The weights and this card are under the MIT licence of ddpm_eval. They were trained from scratch on",
        f"the training images of {spec.data.name} alone.",
    ]
    return "\n".join(lines) + "\n"


def _stored(store: Store, weights: str) -> tuple[list[BoundTerms], dict[str, Quality]]:
    """Return the newest bounds and qualities of these weights; there may be results of earlier ones."""
    newest = {entry.name: entry for entry in store.entries() if entry.provenance.get("weights") == weights}
    bounds = [
        store.get(entry.name, BOUNDS[entry.record], entry.key)
        for entry in newest.values()
        if entry.record in BOUNDS
    ]
    qualities = {
        entry.name: store.get(entry.name, Quality, entry.key)
        for entry in newest.values()
        if entry.record == "Quality"
    }
    return sorted(bounds, key=lambda terms: -terms.num_steps), qualities


def _measured(bounds: Sequence[BoundTerms], qualities: Mapping[str, Quality]) -> Iterator[str]:
    """Yield the lines of all that was measured."""
    if bounds:
        yield "Bits/dim with 95% intervals over images:\n"
        yield "| bound | images | evaluations of each | total | rate | distortion |"
        yield "|---|---|---|---|---|---|"
        yield from map(_bound_row, bounds)
        yield ""
    for name, quality in qualities.items():
        yield from _quality_rows(name, quality)
    if not bounds and not qualities:
        yield "Nothing has been measured of these weights yet.\n"


def _how_many(bounds: Sequence[BoundTerms]) -> str:
    """Return the option with which the stratified bound of the test images is that of the card."""
    measured = [terms for terms in bounds if (terms.split, terms.estimator) == ("test", "stratified")]
    if not measured:
        return ""
    return f" --limit {len(measured[0].image_id)}"


def _bound_row(terms: BoundTerms) -> str:
    images = len(terms.image_id)
    estimates = bound_estimates(terms)
    values = [_text(estimates[quantity]) for quantity in ("total", "rate", "distortion")]
    name = f"{terms.split}, {terms.estimator}, {terms.num_steps} steps, {terms.protocol.caption()}"
    cells = [name, f"{images:,}", f"{terms.network_evaluations / images:,.0f}", *values]
    return f"| {' | '.join(cells)} |"


def _quality_rows(name: str, quality: Quality) -> Iterator[str]:
    yield f"{name} ({quality.caption}):\n"
    yield f"- {quality.distance_name}: {_text(quality.frechet_distance)} of {quality.n_samples:,} samples"
    if quality.reference_distance.known:
        yield f"- the same of {quality.n_test:,} test images: {_text(quality.reference_distance)}"
    yield ""


def _text(estimate: Estimate) -> str:
    return format_estimate(estimate.value, estimate.low, estimate.high)
