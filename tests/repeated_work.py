"""Sampling and measuring again and again, as a program that prints what the process holds.

``python tests/repeated_work.py SECONDS FOLDER [ROUNDS]`` trains a tiny run. Then, for so many seconds but at
least so many rounds, it calls the commands sample, likelihood and quality on a copy of it, in one process.
After each round it counts the process's memory, open files and threads. It prints the medians over the second
and the last third of the rounds as JSON: the first third is left to caches that fill.
"""

import contextlib
import gc
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

from command_line import SETTINGS, main_run, runs_option

import cli
from ddpm_eval.metrics import classifier

CLASSIFIER_STEPS = 20
STATUS = Path("/proc/self/status")


def held():
    """Return what the process holds: MB of memory of its own, open files, threads."""
    gc.collect()
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return {
        "memory_mb": int(lines["RssAnon"].split()[0]) / 1024,
        "open_files": len(os.listdir("/proc/self/fd")) - 1,  # but for the list itself
        "threads": int(lines["Threads"]),
    }


def call(*arguments):
    """Call a command as the program does: click's test runner leaves the streams behind that it makes."""
    cli.main([str(argument) for argument in arguments], standalone_mode=False)


def shorten_classifier():
    """Let the classifier, which each run measures with, be trained for a few updates."""
    recipe = classifier.training_recipe

    def short_recipe(train):
        found = recipe(train)
        return type(found)(**{**vars(found), "steps": CLASSIFIER_STEPS})

    classifier.training_recipe = short_recipe


def work(trained, folder):
    """Sample and measure a copy of a trained run, and delete it."""
    copy = Path(shutil.copytree(trained, folder / "runs" / "digits" / "copy"))
    call("sample", copy)
    call("likelihood", copy, "--estimator", "stratified")
    call("quality", copy)
    shutil.rmtree(copy)


def repeat(seconds, folder, least_rounds):
    """Work for so many seconds, and return what was held after each round."""
    shorten_classifier()
    call("train", *runs_option(folder), *SETTINGS, "--preview-steps", "0")
    began = time.monotonic()
    found = []
    while len(found) < least_rounds or time.monotonic() - began < seconds:
        work(main_run(folder), folder)
        found.append(held())
    return found


def main(seconds, folder, least_rounds=9):
    began = time.monotonic()
    with open(os.devnull, "w") as nowhere:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            found = repeat(seconds, folder, least_rounds)
    third = len(found) // 3
    parts = {"second_third": found[third : 2 * third], "last_third": found[2 * third :]}
    medians = {
        part: {key: statistics.median(each[key] for each in values) for key in values[0]}
        for part, values in parts.items()
    }
    seconds_taken = round(time.monotonic() - began)
    most = {key: max(each[key] for each in found) for key in found[0]}
    print(json.dumps({"rounds": len(found), "seconds": seconds_taken, **medians, "most": most}))


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
