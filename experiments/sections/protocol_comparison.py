"""The main run's bound under all stored protocols, of test and training images, and by both estimators."""

from collections.abc import Sequence

from ddpm_eval.metrics import timestep_sampling
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.reporting.bound_comparisons import estimator_table, gap_table, protocol_table
from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.plots import plot_against
from ddpm_eval.reporting.report_parts import Illustration, Section, Table
from ddpm_eval.reporting.tables import write_table
from ddpm_eval.results.bound_terms import BoundTerms, FullBoundTerms
from experiments.left_out import left_out
from experiments.paper.evidence import FROM_OTHER_PLACES
from experiments.study import Study
from experiments.variance_floors import floor_sum, variance_floors

TITLE = "One model under every protocol"
EXPLANATION = """
A bits/dim figure means nothing without its protocol. Here one set of network evaluations is read under each:
the reverse variance (optimal: the isotropic one that fits the errors measured on training images), x_0
estimates clipped or not, and the decoder's CDF (exact, or the tanh approximation of the authors' code).
"""
PAPER = PROTOCOLS["paper"]
EVALUATIONS_PER_IMAGE = (3, 5, 10, 20, 50, 100)
"""Sizes of the stratified estimates that the figure of the estimators compares."""


def section(study: Study) -> Section:
    """Render the comparison of protocols, of splits and of estimators."""
    results = sorted(study.bound_run.bounds("test"), key=lambda terms: terms.protocol.name != PAPER.name)
    if not results:
        return left_out(TITLE, study.bound_run, "bound-test-protocols")
    train, test = study.main.bound("train"), study.main.bound("test")
    tables = [_protocols(study, results)]
    if train is not None and test is not None:
        tables.append(_gap(study, train, test))
    full = study.bound_run.full_bound()
    figures = [] if full is None else [_estimators(study, full)]
    return Section(TITLE, EXPLANATION, tables, figures)


def _protocols(study: Study, results: Sequence[BoundTerms]) -> Table:
    floors = [floor_sum(variance_floors(study.bound_run, terms.variance)) for terms in results]
    caption = (
        "The same network and images under different protocols, bits/dim with 95% intervals over images. "
        "The floor is what the variance costs whatever the network does; the difference is paired, from the "
        "first row."
    )
    return write_table(protocol_table(results, floors), study.tables / "protocols", caption)


def _gap(study: Study, train: BoundTerms, test: BoundTerms) -> Table:
    data = study.main.spec.data.name
    caption = (
        f"Training against test images of {data}, protocol paper, n = {len(train.image_id)} and "
        f"{len(test.image_id)}."
    )
    if data in FROM_OTHER_PLACES:
        caption += (
            " Test images are from other places of the photographs, so the gap says little of the model."
        )
    return write_table(gap_table(train, test), study.tables / "gap", caption)


def _estimators(study: Study, full: FullBoundTerms) -> Illustration:
    """Draw the standard error against the network evaluations, from the stored terms."""
    sizes = [size for size in EVALUATIONS_PER_IMAGE if size < full.num_steps]
    stratified = [timestep_sampling.from_full(full, size, study.bound_run.spec.seed) for size in sizes]
    frame = estimator_table([full, *stratified])
    figure = plot_against(
        frame,
        "network_evaluations",
        "standard_error",
        xlabel="network evaluations",
        ylabel="standard error (bits/dim)",
        log=True,
        by="estimator",
    )
    caption = (
        "Standard error of the test bits/dim against network evaluations: all T terms of fewer images, "
        "against a few importance-sampled terms of every image (same network, images and noise; drawn from "
        "the stored terms)."
    )
    return write_figure(figure, frame, study.figures / "estimators", caption)
