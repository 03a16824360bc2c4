"""How commands declare their parameters, and what they make of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click
import pytest
from click.testing import CliRunner

from experiments.commands.options import (
    ExperimentParameters,
    Settings,
    command_with,
    declared,
    figure_stem,
    refuse_beside_run,
    settings_option,
)


@dataclass(frozen=True)
class Base:
    """The parameters of a command."""

    name: Annotated[str, click.Argument(["name"])]


@dataclass(frozen=True)
class Parameters(Base):
    """More parameters."""

    count: Annotated[int | None, click.Option(["--count"], type=int)]
    settings: Annotated[Settings, settings_option("Any field.")]


def test_a_command_receives_its_parameters_as_one_object():
    received = []

    @command_with(Parameters)
    def command(parameters):
        """Say what the command does."""
        received.append(parameters)

    runner = CliRunner()
    arguments = ["x", "--count", "3", "--set", "a.b=c=d", "--set", "e=[1, 2]"]
    assert runner.invoke(command, arguments).exit_code == 0
    assert runner.invoke(command, ["y"]).exit_code == 0
    first = Parameters("x", 3, {"a.b": "c=d", "e": "[1, 2]"})
    assert received == [first, Parameters("y", None, {})]
    assert "Say what the command does." in runner.invoke(command, ["--help"]).output


def test_a_setting_without_a_value_is_refused():
    command = command_with(Parameters)(lambda parameters: None)
    failure = CliRunner().invoke(command, ["x", "--set", "train.steps"]).exception
    assert isinstance(failure, ValueError)
    assert str(failure) == "--set takes KEY=VALUE, not 'train.steps' (Any field.)"


def test_parameters_of_a_base_come_first():
    names = [parameter.name for parameter in declared(ExperimentParameters)]
    assert names[:2] == ["run", "preset"] and names[-2:] == ["as_json", "dry_run"]


def test_a_field_must_have_the_name_of_its_parameter():
    @dataclass(frozen=True)
    class Wrong:
        steps: Annotated[int, click.Option(["--count"])]

    with pytest.raises(AssertionError, match="the field steps is filled by count"):
        declared(Wrong)


def test_every_option_beside_a_run_is_named():
    with pytest.raises(ValueError, match="name a RUN or --preset --seed, not both: runs/a says what it is"):
        refuse_beside_run(Path("runs/a"), {"preset": "digits", "runs": None, "seed": 0})
    refuse_beside_run(Path("runs/a"), {"preset": None})


@pytest.mark.parametrize(("path", "stem"), [("a.png", "a"), ("a.pdf", "a"), ("a.b", "a.b"), ("a", "a")])
def test_figures_are_named_without_their_files_suffix(path, stem):
    assert figure_stem(Path(path)) == Path(stem)
