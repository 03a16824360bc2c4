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
from experiments.left_out import left_out
from experiments.study import Study, StudyRun

TITLE = "Bits/dim against the number of steps"
OPTIMAL = "optimal"
FEWER = (
    "each chain is a model of its own, and one of fewer steps leaves more to the decoder, whose open outer "
    "bins code black and white pixels cheaply, and less to Gaussian steps whose variance fits them worse."
)
NOT_LOWEST = (
    "it is fitted to training images, and for Gaussian steps without the decoder, so that it is optimal for "
    "neither the test images nor the last term."
)
DRAWN = "The table's totals with their 95% intervals, against the steps of the chain."


def section(study: Study) -> Section:
    """Render bits/dim against the number of steps."""
    results = _bounds(study.bound_run)
    if len(results) <= len(CHAIN_PROTOCOLS):
        return left_out(TITLE, study.bound_run, "bound-test-chains")
    frame = _columns(protocol_table(results))
    caption = (
        "The bound of chains of fewer, evenly spaced steps: each is a bound of its own. "
        f"{study.bound_run.spec.data.name} test set, x_0 clipped, tanh decoder, 95% intervals over images. "
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
    drawn = write_figure(figure, frame, study.figures / "chains", DRAWN)
    lines = lines_of(frame, "steps", "total_bits_per_dim", "variance")
    curve = Curve("chains", "chains", "steps of the chain", "bits/dim (test)", lines, "xy")
    return Section(TITLE, _found(frame), [table], [drawn], [curve])


def _found(frame: pd.DataFrame) -> str:
    """Say which chain has the lowest bound, and why if it is not a whole one of the optimal variance."""
    total = "total_bits_per_dim"
    lowest = frame.loc[frame[total].idxmin()]
    text = (
        f"The lowest bound is {lowest[total]:.3g} bits/dim, of {lowest['steps']} steps, {lowest['variance']}."
    )
    whole = frame[frame["steps"] == frame["steps"].max()].set_index("variance")[total]
    least = frame.groupby("variance", sort=False)[total].min()
    shorter = [str(name) for name in whole.index if least[name] < whole[name]]
    if shorter:
        text += (
            f" Under {' and '.join(shorter)} a shorter chain has a lower bound than the whole one: {FEWER}"
        )
    best = frame.loc[frame.groupby("steps")[total].idxmin()]
    others = sorted(best.loc[best["variance"] != OPTIMAL, "steps"])
    if others and OPTIMAL in set(frame["variance"]):
        steps = ", ".join(map(str, others))
        text += f" At {steps} steps another variance than the optimal one is lower: {NOT_LOWEST}"
    return text


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
