"""Every command of README.md is run, at its smallest: here, by another test, or by .ci/run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from command_line import TINY, call, refuse, set_options
from PIL import Image
from tiny import digits

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = r"(?m)^    ((?:pip|python|torchrun) .*?)(?:  +#.*)?$|`((?:python|ddpm-eval)\b[^`]*)`"
IN_CI = ".ci/run"
HERE = "tests/test_readme_commands.py"
OF_COMMANDS = "tests/experiments/commands"
RUN_BY = {
    "pip install -c constraints.txt -e . && python cli.py reproduce": (IN_CI, "cli.py reproduce"),
    "pip install -c constraints.txt -e '.[test]' && pytest -n logical": (IN_CI, "pytest -n logical"),
    "python cli.py reproduce": (IN_CI, "cli.py reproduce"),
    "python cli.py reproduce --seeds 3": (
        f"{OF_COMMANDS}/test_ablation.py",
        "test_each_seed_has_folders_of_its_own",
    ),
    "python cli.py likelihood --network networks:load --network-args path=net.pt --data cifar10": (
        f"{OF_COMMANDS}/test_network.py",
        "test_a_network_is_measured_in_a_folder_like_any_other_run",
    ),
    "python cli.py reproduce --data folder:DIR --set network.base_channels=32": (
        HERE,
        "test_a_plan_of_a_folder_of_images",
    ),
    "python cli.py import-checkpoint google/ddpm-cifar10-32 --out runs/imported/ddpm": (
        f"{OF_COMMANDS}/test_import_checkpoint.py",
        "test_an_imported_run_goes_through_every_command",
    ),
    "python cli.py likelihood runs/imported/ddpm --estimator stratified --target-halfwidth 0.01": (
        f"{OF_COMMANDS}/test_likelihood.py",
        "test_evaluations_are_doubled_until_the_interval_is_narrow_enough",
    ),
    "python cli.py reproduce runs/imported/ddpm --dry-run": (
        f"{OF_COMMANDS}/test_import_checkpoint.py",
        "test_an_imported_run_goes_through_every_command",
    ),
    "python cli.py compare RUN RUN": (
        f"{OF_COMMANDS}/test_compare.py",
        "test_the_leaderboard_names_each_run_its_updates_and_its_weights",
    ),
    "python cli.py quality --images DIR --data cifar10 --inception-weights FILE": (
        HERE,
        "test_quality_of_a_folder_of_images",
    ),
    "python cli.py validate": (HERE, "test_validate"),
    "python cli.py reproduce --preset cifar10": (
        "tests/test_packaging.py",
        "test_an_installed_copy_reproduces_from_an_empty_folder",
    ),
    "torchrun --nproc-per-node=8 cli.py train --preset cifar10 --max-minutes 600": (
        "tests/stages/test_preview.py",
        "test_two_processes_share_a_preview",
    ),
    "python cli.py --help": (HERE, "test_help_of_the_package"),
    "python -m ddpm_eval": (HERE, "test_help_of_the_package"),
    "ddpm-eval": ("tests/test_packaging.py", "test_an_installed_copy_reproduces_from_an_empty_folder"),
}
"""Which file runs a command, and the test or the words in it that do."""


def test_every_command_is_run_somewhere():
    found = {first or second for first, second in re.findall(COMMANDS, (ROOT / "README.md").read_text())}
    assert found == set(RUN_BY)
    for file, name in RUN_BY.values():
        text = (ROOT / file).read_text()
        assert name in text if file == IN_CI else f"def {name}(" in text


def test_a_plan_of_a_folder_of_images(tmp_path):
    data = write_images(tmp_path / "data", 40)
    settings = set_options({**TINY, "network.base_channels": "32", "evaluation.n_test_images": "4"})
    chosen = ["--data", f"folder:{data}", *settings, "--runs", tmp_path / "runs"]
    plan = call("reproduce", *chosen, "--dry-run")
    assert "train" in plan and not (tmp_path / "runs").exists()


def test_quality_of_a_folder_of_images(digits_classifier, inception_weights, tmp_path):
    images = write_images(tmp_path / "images", 80)
    shutil.copytree(digits_classifier.weights_path.parent, tmp_path / "runs" / "classifiers")
    choices = ["quality", "--images", images, "--data", "digits", "--runs", tmp_path / "runs"]
    assert "80 samples against the 1437 images of digits's train split" in call(*choices)
    message = refuse(*choices, "--inception-weights", inception_weights)
    assert "80 images are too few for a Frechet distance of 2048 features" in message


def test_validate():
    assert "all 3 rows passed" in call("validate", "--only", "frech")


def test_help_of_the_package():
    for program in (["cli.py"], ["-m", "ddpm_eval"]):
        command = [sys.executable, *program, "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "The paper's experiments" in done.stdout, done.stderr


def write_images(folder, count):
    """Write the first digits as PNG files, and return their folder."""
    folder.mkdir()
    for index, image in enumerate(digits().array[:count]):
        Image.fromarray(image[0].astype(np.uint8)).save(folder / f"{index}.png")
    return folder
