"""The command ``compare``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import click

from ddpm_eval import runtime
from ddpm_eval.metrics.bound import EstimatorName
from ddpm_eval.protocol import PROTOCOLS
from experiments.commands.open_run import ComputePrecision
from experiments.commands.options import (
    PATH,
    AsJson,
    BatchSize,
    DataRoot,
    Device,
    InceptionWeights,
    ProtocolName,
    Reports,
    Settings,
    Split,
    bound_limits,
    command_with,
    limit_option,
    settings_option,
    with_limit,
)
from experiments.compare import ComparisonOptions, check_comparable, measure, open_runs
from experiments.comparison import LEADERBOARD, rows_of_tables
from experiments.comparison_report import DIFFERENCES, write_comparison
from experiments.progress import stage_bars


@dataclass(frozen=True)
class CompareParameters:
    """Which runs to compare, and how they are measured."""

    folders: Annotated[
        tuple[Path, ...], click.Argument(["folders"], nargs=-1, metavar="RUN RUN ...", type=PATH)
    ]
    split: Split
    protocol: ProtocolName
    estimator: Annotated[
        EstimatorName,
        click.Option(
            ["--estimator"],
            type=click.Choice(get_args(EstimatorName)),
            default="full",
            show_default=True,
            help="Of all bounds; stratified takes the first run's times in all runs.",
        ),
    ]
    seed: Annotated[
        int | None,
        click.Option(
            ["--seed"],
            type=click.IntRange(0),
            show_default="the first run's",
            help="Of the noise that all bounds share.",
        ),
    ]
    quality: Annotated[
        bool,
        click.Option(
            ["--quality/--no-quality"],
            default=True,
            help="Draw and measure samples, too (default), or compare bounds alone.",
        ),
    ]
    inception_weights: InceptionWeights
    reports: Reports
    limit: Annotated[int | None, limit_option("images of each bound")]
    batch_size: BatchSize
    as_json: AsJson
    data_root: DataRoot
    device: Device
    precision: ComputePrecision
    settings: Annotated[Settings, settings_option("Fields of the evaluation of all runs; repeatable.")]


@command_with(CompareParameters)
def command(parameters: CompareParameters) -> None:
    r"""Compare two RUNs or more with paired intervals: the same images, the same noise.

    Measures what is missing of each, and writes a page and leaderboard.csv. Differences are from the first
    RUN, whose evaluation all get. Copies of a run's folder at different updates are drawn as a curve.

    \b
    Example:
        python cli.py compare runs/digits/eps-mse-fixed-large runs/digits/eps-vlb-fixed-large
    """
    options = ComparisonOptions(
        split=parameters.split,
        protocol=PROTOCOLS[parameters.protocol],
        estimator=parameters.estimator,
        noise_seed=parameters.seed,
        quality=parameters.quality,
        inception_weights=parameters.inception_weights,
        reports=parameters.reports,
    )
    here = runtime.start(parameters.device, precision=parameters.precision)
    runs = open_runs(
        parameters.folders,
        here,
        parameters.data_root,
        with_limit(parameters.settings, parameters.limit, *bound_limits(parameters.split)),
        stage_bars(),
        parameters.batch_size,
    )
    check_comparable(runs, options)
    comparison = measure(runs, options)
    runtime.stop()
    if not here.main:
        return
    page = write_comparison(comparison)
    if parameters.as_json:
        click.echo(json.dumps({"report": str(page), **rows_of_tables(comparison)}, indent=2))
        return
    for table in (page.with_name(LEADERBOARD), page.parent / "tables" / DIFFERENCES):
        click.echo(table.with_suffix(".md").read_text())
    click.echo(f"Report: {page}")
