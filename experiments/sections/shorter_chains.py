"""The bound of the main run's chain on fewer, evenly spaced steps, under each variance."""

import pandas as pd

from ddpm_eval.protocol import CHAIN_PROTOCOLS, CHAINS, PROTOCOLS
from ddpm_eval.reporting.bound_comparisons import protocol_table
from ddpm_eval.reporting.curves import lines_of
from ddpm_eval.reporting.figure_files import write_figure
from ddpm_eval.reporting.plots import plot_against
from ddpm_eval.reporting.report_parts import Curve, Section
from ddpm_eval.reporting.tables import write_table
from ddpm_eval.results.bound_terms import BoundTerms, StratifiedBoundTerms, bound_name
from experiments.study import Study, StudyRun

TITLE = "Bits/dim against the number of steps"


def section(study: Study) -> Section:
    """Render bits/dim against the number of steps."""
    results = _bounds(study.bound_run)
    if len(results) <= len(CHAIN_PROTOCOLS):
        return Section(TITLE)
    frame = _columns(protocol_table(results))
    caption = (
        "The bound of chains of fewer, evenly spaced steps: each is a bound of its own. "
        f"{study.bound_run.spec.data.name} test set, x_0 clipped, tanh decoder, 95% intervals over images. "
        "A chain of few steps can have a lower bound than a longer one whose variance fits it worse. "
        "Optimal: the isotropic variance that fits the errors measured on training images (Bao et al. 2022)."
    )
    figure = plot_against(
        frame,
        "steps",
        "total_bits_per_dim",
        xlabel="steps of the chain",
        ylabel="bits/dim (test)",
        log=True,
        by="variance",
    )
    table = write_table(frame, study.tables / "chains", caption)
    drawn = write_figure(figure, frame, study.figures / "chains", caption)
    lines = lines_of(frame, "steps", "total_bits_per_dim", "variance")
    curve = Curve("chains", "chains", "steps of the chain", "bits/dim (test)", lines, "xy")
    return Section(TITLE, "", [table], [drawn], [curve])


def _bounds(run: StudyRun) -> list[BoundTerms]:
    """Collect the bounds under each variance: the full chain's, then those of the shorter chains."""
    found: list[BoundTerms | None] = []
    for protocol in CHAIN_PROTOCOLS:
        trained = protocol.variance == run.spec.diffusion.variance
        shorter = [bound_name("test", protocol, "stratified", length) for length in CHAINS]
        found.append(run.bound("test", PROTOCOLS["paper"] if trained else protocol))
        found.extend(run.result(name, StratifiedBoundTerms) for name in shorter)
    return [terms for terms in found if terms is not None]


def _columns(frame: pd.DataFrame) -> pd.DataFrame:
    total = [column for column in frame if column.startswith("total")]
    return frame[["variance", "steps", *total, "estimator", "network_evaluations", "n_images"]]
