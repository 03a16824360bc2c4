"""The command line: its list of commands, and one sentence with exit code 2 for every user error."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import call, folders, refuse, runs_option

import cli

ROOT = Path(__file__).resolve().parents[1]
COMMANDS_FOLDER = ROOT / "experiments" / "commands"


def test_the_help_lists_every_command_and_loads_none():
    code = "import sys, cli\ntry:\n    cli.main(['--help'])\nfinally:\n    print(sorted(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    words = done.stdout.split()
    assert all(name in words for name in cli.COMMANDS)
    assert "'experiments.commands" not in done.stdout and "'numpy'" not in done.stdout
    assert len((ROOT / "cli.py").read_text().splitlines()) <= 80


def test_every_file_of_a_command_is_listed():
    files = {
        path.stem.replace("_", "-")
        for path in COMMANDS_FOLDER.glob("*.py")
        if "\ndef command(" in path.read_text()
    }
    assert files == set(cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name):
    output = call(name, "--help")
    command = cli.main.get_command(click.Context(cli.main), name)
    assert f"{name} [OPTIONS]" in output and inspect.cleandoc(command.help).split()[0] in output
    assert re.search(rf"\n +(Example: )?python cli\.py {name}\b", output)  # on a line of its own


def test_the_help_of_train_says_which_preset_is_meant():
    assert "command presets.  [default: (digits)]" in call("train", "--help")


def test_a_command_that_does_not_exist_is_refused():
    assert "No such command 'trian'" in refuse("trian")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["reproduce", "--preset", "mnits"], "there is no preset 'mnits'"),
        (["reproduce", "--data", "digitz"], "digitz"),
        (["reproduce", "--data", "folder:/no/such/folder"], "/no/such/folder"),
        (
            ["reproduce", "--set", "train.stepz=5"],
            "there is no option 'train.stepz' (did you mean train.steps",
        ),
        (["reproduce", "--set", "train.steps=many"], "train.steps is 'many'"),
        (["reproduce", "--set", "train.steps"], "--set takes KEY=VALUE"),
        (["reproduce", "--set", "train.steps=0"], "train.steps is 0"),
        (["ablation", "--set", "diffusion.prediction=mu"], "contradicts the ablation"),
        (["train", "--set", "diffusion.variance=learned"], "a learned variance needs objective vlb"),
        (["train", "--device", "tpu"], "device 'tpu' is unknown"),
        (["sample", "/no/such/run"], "holds no checkpoint.safetensors"),
        (["sample", "/no/such/run", "--preset", "digits"], "not both"),
        (["show", "/no/such/run"], "there is no checkpoint"),
        (["show", "two\nlines"], r"there is no checkpoint two\nlines"),
        (["rate-distortion", "/no/such/run"], "holds no checkpoint.safetensors (train the run first"),
        (["report", "/no/such/run"], "holds no results to report"),
        (["quality", "--images", "/no/such/images", "--data", "digits"], "/no/such/images"),
        (["quality", "--images", "/no/such/images"], "--images needs --data"),
        (["import-checkpoint", "/no/such/model", "--out", "/tmp/never"], "/no/such/model"),
    ],
)
def test_user_errors_are_one_sentence(arguments, sentence, tmp_path):
    options = {"reproduce": folders, "ablation": folders, "train": runs_option}
    places = options[arguments[0]](tmp_path) if arguments[0] in options else []
    assert sentence in refuse(*arguments, *places)
    assert not list(tmp_path.rglob("*.h5")) and not list(tmp_path.rglob("*.safetensors"))
