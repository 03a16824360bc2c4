"""Measure stages of a trained run by their names, in any precision; those that are stored are not repeated.

    python benchmarks/measure.py RUN --stages [STAGE ...] [--precision bf16] [--device cuda] [--data-root DIR]
                                 [--set evaluation.KEY=VALUE ...]

The names are those of `ddpm_eval.stages.registry`. Without any, what is known of the training is recorded.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import get_args

from ddpm_eval import runtime
from ddpm_eval.runtime import Precision
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.registry import stages
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.run_folders import open_run
from experiments.commands.open_run import working_on
from experiments.progress import stage_bars
from experiments.study import with_evaluation


def main() -> None:
    """Bring the run through the stages."""
    options = parse()
    here = runtime.start(options.device, precision=options.precision)
    run = open_run(options.run, here, options.data_root, stage_bars())
    settings = dict(pair.split("=", 1) for pair in options.settings)
    measure(replace(run, spec=with_evaluation(options.run, run.spec, settings)), options.stages)


def measure(run: Run, names: list[str]) -> None:
    """Compute and store the results of stages that apply to a run.

    Raises:
        ValueError: if there is no stage of a name.
    """
    known = stages(run)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no stage {unknown[0]!r} (there are {', '.join(known)})")
    with working_on(run):
        for stage in (stage for name in names for stage in known[name]):
            if stage.applies(run):
                ensure(stage, run)


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--stages", nargs="*", default=[])
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
