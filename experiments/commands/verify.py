"""The command ``verify``."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import click

from ddpm_eval.files import locked_folder
from ddpm_eval.stages.run_files import Finding, inspect, repair
from experiments.commands.options import PATH, AsJson, command_with
from experiments.json_document import as_text

DAMAGE_FOUND = 1
"""The exit code where something is damaged."""


@dataclass(frozen=True)
class VerifyParameters:
    """Which run to check, and whether to set aside what is damaged."""

    run: Annotated[Path, click.Argument(["run"], type=PATH)]
    repair: Annotated[
        bool,
        click.Option(
            ["--repair"], is_flag=True, help="Drop what is damaged; the file is kept as NAME.damaged."
        ),
    ]
    as_json: AsJson


@command_with(VerifyParameters)
def command(parameters: VerifyParameters) -> None:
    r"""Check that every file of a RUN is what was written; exit 1 if one is damaged.

    Checked are the checkpoint, each stored result, the work in progress, and the classifiers and statistics
    that the run shares with others. What --repair drops, reproduce measures again.

    \b
    Examples:
        python cli.py verify runs/digits/eps-mse-fixed-large --repair
        python cli.py verify runs/digits/eps-mse-fixed-large --json
    """
    run = parameters.run
    found = inspect(run)
    damaged = [each for each in found if not each.intact]
    repaired: list[str] = []
    if parameters.repair and damaged:
        with locked_folder(run):
            repaired = list(repair(found))
        damaged = [each for each in damaged if not each.can_be_made]
    said = [*map(line, found), *repaired, conclusion(run, damaged)]
    document = {
        "command": "verify",
        "run": {"folder": run},
        "findings": [asdict(each) for each in found],
        "repaired": repaired,
        "intact": not damaged,
    }
    click.echo(as_text(document) if parameters.as_json else "\n".join(said))
    if damaged:
        raise SystemExit(DAMAGE_FOUND)


def line(finding: Finding) -> str:
    """Return a finding on one line."""
    state = "intact" if finding.intact else "DAMAGED"
    where = f"{finding.path}: {finding.result}" if finding.result else str(finding.path)
    said = finding.text.removeprefix(f"{finding.path} ")
    return f"{state:<8} {where}: {said}"


def conclusion(run: Path, damaged: Sequence[Finding]) -> str:
    """Return what was found in all, and what to do."""
    if not damaged:
        return "Everything is as it was written."
    if all(each.can_be_made for each in damaged):
        return f"To drop what is damaged: python cli.py verify {run} --repair; reproduce then makes it again."
    return "Put the files of each run back into its own folder."
