"""Work that is killed at seeded times and started again, as a program that prints what came of it.

``python tests/killed_work.py KILLS FOLDER WORK...`` does each work once undisturbed. Then, until so many
processes were killed, it starts the work in another process, kills that with SIGKILL at a seeded time, does
the work again, and compares all contents with those of the undisturbed work. A process that has ended before
counts as a case, but not as a kill. Every process is forked from one that has imported everything, so that a
kill at any time hits the work itself.
"""

import os
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from records_for_tests import images
from safetensors import safe_open
from tiny import HERE, TINY, digits

from ddpm_eval.metrics import classifier, quality
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results import hdf5
from ddpm_eval.results.result_groups import groups_of
from ddpm_eval.results.store import Result, Store
from ddpm_eval.spec_text import override
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.bound_stage import BoundStage
from ddpm_eval.stages.image_stages import BaselineStage
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.sampling_stages import SamplesStage
from ddpm_eval.stages.training_stage import TrainingStage
from ddpm_eval.training import checkpoint
from experiments.report import write_report
from experiments.study import StudyOptions, measured_spec, resolve_run

SPEC = override(TINY, {"train.steps": "24", "evaluation.n_test_images": "12"})
CLASSIFIER_STEPS = 20
PUTS = 12


def run_in(folder):
    return Run(folder / "runs" / "run", SPEC, HERE)


def nothing(folder):
    pass


def trained(folder):
    ensure(TrainingStage(), run_in(folder))


def measured(folder):
    trained(folder)
    for stage in (SamplesStage(), BaselineStage()):
        ensure(stage, run_in(folder))


def sample(folder):
    ensure(SamplesStage(), run_in(folder))


def bound(folder):
    ensure(BoundStage("test", (PROTOCOLS["paper"],)), run_in(folder))


def features(folder):
    """Train a classifier for a few updates, and keep the statistics of its features."""
    recipe = classifier.training_recipe

    def short_recipe(train):
        found = recipe(train)
        return type(found)(**{**vars(found), "steps": CLASSIFIER_STEPS})

    classifier.training_recipe = short_recipe
    extractor = classifier.load_or_train_classifier(digits(), digits("test"), folder / "classifiers")
    for split in ("train", "test"):
        cache = Store(folder / "classifiers" / "statistics.h5")
        quality.feature_statistics(digits(split), extractor, statistics_cache=cache)


def put(folder):
    """Store many results one after the other, each in a file that has grown."""
    store = Store(folder / "results.h5")
    for number in range(PUTS):
        if not store.has("b", str(number)):
            pair = [Result("a", images(900, number), str(number)), Result("b", images(9), str(number))]
            store.put_all(pair, {"weights": "w"})


def render(folder):
    run = folder / "runs" / "run"
    write_report(resolve_run(run, measured_spec(run), options=StudyOptions(reports=folder / "reports")))


WORKS = {
    "training": (nothing, trained),
    "sampling": (trained, sample),
    "bound": (trained, bound),
    "features": (nothing, features),
    "hdf5": (nothing, put),
    "rendering": (measured, render),
}
"""What must be there before a work, and the work."""


def contents(folder):
    """Return all that lies in a folder, but for locks, times and what is said of the making."""
    return {
        str(path.relative_to(folder)): content_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def content_of(path):
    if path.name == checkpoint.FILE_NAME:
        saved = checkpoint.load(path)
        return (
            saved.step,
            saved.metadata["status"],
            {n: v.numpy().tobytes() for n, v in saved.tensors.items()},
        )
    if path.suffix == ".safetensors":  # the order of the header's fields differs between processes
        with safe_open(path, framework="pt") as file:
            return file.metadata(), {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}
    if path.suffix != ".h5":
        return path.read_bytes()
    with hdf5.reading(path) as file:
        return {group.name: result_of(group) for group in groups_of(file)}


def result_of(group):
    arrays = {name: data[...].tobytes() for name, data in group.items() if "seconds" not in name}
    kept = [name for name in group.attrs if name not in ("provenance", "digest", "seconds")]
    return arrays, {name: str(group.attrs[name]) for name in kept}


def started(work, folder):
    """Start a work in a process of its own, and return the process's id."""
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        folder.mkdir(exist_ok=True)
        os.chdir(folder)  # reports name folders as they were given
        try:
            work(Path())
        except BaseException as error:
            print(f"failed: {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def done(work, folder):
    """Do a work to its end in a process of its own."""
    assert os.waitstatus_to_exitcode(os.waitpid(started(work, folder), 0)[1]) == 0, "the work failed"


def killed_after(seconds, work, folder):
    """Start a work and kill it after a time; tell whether it was still at work."""
    pid = started(work, folder)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def campaign(name, kills, folder):
    """Kill a work so many times and repeat it, and count what came of it."""
    prepare, work = WORKS[name]
    folder.mkdir()
    done(prepare, folder / "before")
    shutil.copytree(folder / "before", folder / "undisturbed")
    began = time.monotonic()
    done(work, folder / "undisturbed")
    duration = time.monotonic() - began
    expected = contents(folder / "undisturbed")
    counts = Counter()
    while counts["killed"] < kills:
        case = counts["cases"]
        counts["cases"] += 1
        seconds = duration * np.random.default_rng([14, case]).random()
        shutil.rmtree(folder / "case", ignore_errors=True)
        shutil.copytree(folder / "before", folder / "case")
        counts["killed"] += killed_after(seconds, work, folder / "case")
        counts["left a temporary file"] += any((folder / "case").rglob("*.tmp"))
        done(work, folder / "case")
        found = contents(folder / "case")
        assert found.keys() == expected.keys(), (case, found.keys() ^ expected.keys())
        different = [path for path in expected if found[path] != expected[path]]
        assert not different, (case, different)
        counts["equal"] += 1
    return counts


if __name__ == "__main__":
    for chosen in sys.argv[3:]:
        counts = campaign(chosen, int(sys.argv[1]), Path(sys.argv[2]) / chosen)
        names = ("cases", "killed", "left a temporary file", "equal")
        print(chosen, ", ".join(f"{name}: {counts[name]}" for name in names), flush=True)
