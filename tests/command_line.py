"""The command line called in this process, and the smallest settings that give every command work."""

import pytest
from click.testing import CliRunner

import cli
from experiments.paper.presets import preset, run_name

TINY = {
    "network.base_channels": "8",
    "train.steps": "12",
    "train.checkpoint_steps": "4",
    "train.batch_size": "16",
    "diffusion.timesteps": "20",
    "evaluation.n_samples": "80",
    "evaluation.n_train_images": "8",
    "evaluation.n_test_images": "24",
    "evaluation.evaluations_per_image": "4",
}


def set_options(settings):
    """Return settings as words of a command line."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


SETTINGS = set_options(TINY)


def call(*arguments, code=0):
    """Call a command and return what it prints; fail unless it ends with ``code``."""
    result = CliRunner().invoke(cli.main, [str(a) for a in arguments])
    if result.exit_code != code:
        pytest.fail(f"exit code {result.exit_code}, not {code}: {result.output} {result.exception!r}")
    return result.output


def refuse(*arguments):
    """Return the one sentence with which a call is refused."""
    output = call(*arguments, code=2)
    assert "Traceback" not in output
    return output


def runs_option(folder):
    """Return the option that puts runs below a folder."""
    return ["--runs", folder / "runs"]


def folders(folder):
    """Return the options that put runs and reports below a folder."""
    return [*runs_option(folder), "--reports", folder / "reports"]


def main_run(folder):
    """Return the folder of the paper's model among the smallest runs."""
    spec = preset("digits", settings=TINY)
    return folder / "runs" / "digits" / run_name(spec)
