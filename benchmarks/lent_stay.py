"""A stay on a lent machine: its clock, its steps in the order of importance, and what it keeps."""

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import bound_history
import image_sheets
import kept_state
import parts
from bound_history import Bound
from carry import MIB, SETS
from kept_state import KeptState
from lent_machine import LATE, ROOT, last_error, run_within

from ddpm_eval.files import locked_folder
from ddpm_eval.training import checkpoint
from experiments.plan import REPRODUCE
from experiments.study import resolve_preset

RESERVE_SHARE, RESERVE_SECONDS = 0.1, 120
"""Of the time, kept for the report and for packing: this share, at most so long."""
SLICE_LIMIT = 0.9
"""Of the time left, at most this share goes to a slice of training, which also has to start and to save."""
REPORT_SHARE = 0.8
"""Of what is kept, for the report; the rest is for the parts."""
FIRST_SAMPLES = 256


@dataclass(frozen=True)
class Step:
    """A process of a stay.

    Attributes:
        name: in the log.
        words: the program's file, relative to the repository, and its arguments.
        bound: the bound that it measures, if it does, which becomes a part of the history.
    """

    name: str
    words: tuple[str, ...]
    bound: Bound | None = None


@dataclass(frozen=True)
class Budget:
    """How a stay is divided; everything in seconds."""

    total: float
    train_share: float
    slices: int

    @property
    def reserve(self) -> float:
        """Kept for the report and the parts."""
        return min(RESERVE_SECONDS, RESERVE_SHARE * self.total)

    @property
    def slice_minutes(self) -> float:
        """Of one slice of training, as ``train --max-minutes`` takes it."""
        return self.train_share * self.total / self.slices / 60


class Stay:
    """The folders, the clock and the log of one call.

    Args:
        options: of `gpu_run.parse`.

    Attributes:
        unfinished: names of the steps for which there was not enough time.
        failed: names of the steps that failed.
        is_new: whether the folder holds no log of an earlier stay, unless in its parts.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out: Path = options.out
        self.budget = Budget(60 * options.minutes, options.train_share, options.slices)
        self.began = time.monotonic()
        self.unfinished: list[str] = []
        self.failed: list[str] = []
        self.out.mkdir(parents=True, exist_ok=True)
        self.is_new = not (self.out / "log.txt").exists()

    @property
    def seconds_left(self) -> float:
        """Until the reserve begins."""
        return self.budget.total - self.budget.reserve - (time.monotonic() - self.began)

    @cached_property
    def run(self) -> Path:
        """The folder of the preset's main run, with the user's settings."""
        options = self.options
        settings = dict(pair.split("=", 1) for pair in options.settings)
        return resolve_preset(options.preset, settings, options.seed, runs=options.runs).main.folder

    @property
    def name(self) -> str:
        """The run's name among all presets'."""
        return f"{self.options.preset}-{self.run.name}"

    @property
    def kept(self) -> KeptState:
        """What is kept in parts."""
        part_bytes = int(self.options.part_mb * MIB)
        return KeptState(self.out, self.options.runs, self.run, self.name, part_bytes)

    @property
    def history(self) -> Path:
        """The file of all bounds that were measured."""
        return self.out / "bits_per_dim.csv"

    @property
    def updates(self) -> int:
        """Parameter updates of the checkpoint, 0 where there is none."""
        path = self.run / checkpoint.FILE_NAME
        return checkpoint.load(path, prefixes=()).step if path.exists() else 0

    def say(self, text: str) -> None:
        """Print a line with the minutes gone, and put it into the log."""
        line = f"[{(time.monotonic() - self.began) / 60:5.1f} min] {text}"
        print(line, flush=True)
        with (self.out / "log.txt").open("a") as log:
            log.write(f"{line}\n")

    def perform(self, step: Step, seconds: float | None = None) -> bool:
        """Run a step within the time that is left; return whether it came to its end."""
        seconds = self.seconds_left if seconds is None else seconds
        if seconds <= 0:
            self.unfinished.append(step.name)
            return False
        began = time.monotonic()
        program, *arguments = step.words
        with (self.out / "log.txt").open("a") as log:
            log.write(f"\n## {step.name}: {' '.join(step.words)}\n")
            log.flush()
            code = run_within(seconds, [sys.executable, str(ROOT / program), *arguments], log)
        error = f"FAILED: {last_error(self.out / 'log.txt')}"
        outcome = {0: "done", LATE: "out of time, to be continued"}.get(code, error)
        self.say(f"{step.name}: {outcome} ({time.monotonic() - began:.0f} s)")
        if code == LATE:
            self.unfinished.append(step.name)
        elif code != 0:
            self.failed.append(step.name)
        return code == 0

    def measure(self, step: Step) -> None:
        """Run a step, and put the bound that it measures into the history."""
        if self.perform(step) and step.bound is not None:
            self.remember(step.bound)

    def remember(self, bound: Bound) -> None:
        """Put a stored bound into the history."""
        rows = bound_history.rows_of(self.run, bound)
        bound_history.record(self.history, rows)
        total = next(row for row in rows if row["quantity"] == "total")
        self.say(
            f"{bound.split} {total['bits_per_dim']:.4f} [{total['low']:.4f}, {total['high']:.4f}] bits/dim "
            f"after {total['updates']} updates ({bound.estimator} estimator, n = {total['n_images']}, "
            f"{bound.precision})"
        )

    def restore(self) -> None:
        """Bring the run back from the parts, unless this machine holds it, at least as far trained."""
        kept = self.kept.most_updates()
        if self.updates:
            if kept is not None and kept > self.updates:
                raise ValueError(
                    f"{self.run} has {self.updates} updates, but {self.out} has {kept}: delete one of them"
                )
        elif kept is not None:
            sets = kept_state.unpack(self.out, self.options.runs, SETS if self.is_new else SETS[1:])
            self.say(f"continuing from {' and '.join(sets)} of {self.out}: {self.updates} updates")

    def keep(self) -> None:
        """Write the parts anew."""
        self.kept.keep(self.updates)


def spend(stay: Stay) -> Stay:
    """Train, measure, report; whatever happens, the state is kept."""
    options = stay.options
    options.runs.mkdir(parents=True, exist_ok=True)
    with locked_folder(stay.out):
        stay.restore()
        if options.data_parts is not None:
            joined = image_sheets.unpack_all(parts.join_data(options.data_parts, options.data_root))
            stay.say(f"data: {', '.join(map(str, joined))}")
        try:
            train(stay)
            if stay.updates:
                measure(stay)
        finally:
            stay.keep()
        if stay.unfinished:
            stay.say(
                f"not finished: {', '.join(stay.unfinished)} (again with --train-share 0 continues these "
                "measurements)"
            )
    return stay


def train(stay: Stay) -> None:
    """Train in slices; after each keep the state and measure the bound of the test images."""
    budget = stay.budget
    for number in range(1, budget.slices + 1) if budget.train_share else ():
        before = stay.updates
        minutes = min(budget.slice_minutes, SLICE_LIMIT * stay.seconds_left / 60)
        if minutes <= 0:
            return
        words = ("cli.py", "train", *preset_words(stay), "--max-minutes", f"{minutes:.3f}")
        step = Step(f"train {number} of {budget.slices}", words)
        done = stay.perform(step)
        if step.name in stay.failed:
            raise ValueError(f"the training ended early: {last_error(stay.out / 'log.txt')}")
        if stay.updates == before:
            return
        stay.keep()
        if not done or bound_history.diverged(stay.run):
            return
        if number < budget.slices:
            stay.measure(stratified(stay, "test", "fp32"))


def measure(stay: Stay) -> None:
    """Measure the averaged weights in the order of importance, then render the report."""
    if bound_history.logged_updates(stay.run) != stay.updates:  # training was killed after a checkpoint
        stay.perform(stages(stay, "training's log", ()))
    for step in [] if bound_history.diverged(stay.run) else evaluation(stay):
        stay.measure(step)
        if stay.seconds_left > 0:
            stay.keep()
    last = stay.seconds_left + REPORT_SHARE * stay.budget.reserve
    trained = ("--set", f"train.steps={stay.updates}", "--reports", str(stay.out / "reports"))
    stay.perform(Step("report", ("cli.py", "report", *preset_words(stay), *trained)), seconds=last)


# Steps


def evaluation(stay: Stay) -> list[Step]:
    """List what is measured of the last weights, the most important first."""
    precision = stay.options.precision
    at_speed = (*run_words(stay), "--precision", precision)
    fast = stratified(stay, "test", precision)  # what the precision changes
    assert fast.bound is not None
    known = precision == "fp32" or bound_history.remembered(stay.history, stay.updates, fast.bound)
    few = ("--set", "evaluation.n_curve=0")
    return [
        *([] if known else [fast]),
        stratified(stay, "test", "fp32"),
        stratified(stay, "train", "fp32"),
        Step(f"{FIRST_SAMPLES} samples", ("cli.py", "sample", *at_speed, "--n-samples", str(FIRST_SAMPLES))),
        stages(stay, "progressive generation", ("progressive",), few),
        full_bound(stay, "train", "bound-train"),
        full_bound(stay, "test", "bound-test-protocols"),
        Step("all samples", ("cli.py", "sample", *at_speed)),
        Step("quality", ("cli.py", "quality", *at_speed)),
        stages(stay, "everything else of reproduce", REPRODUCE[1:]),
    ]


def stratified(stay: Stay, split: str, precision: str) -> Step:
    """Return the step that estimates the bound of a split with a few steps per image."""
    options = ("--split", split, "--estimator", "stratified", "--precision", precision)
    words = ("cli.py", "likelihood", *run_words(stay), *options)
    return Step(f"stratified bound ({split}, {precision})", words, Bound(split, "stratified", precision))


def full_bound(stay: Stay, split: str, stage: str) -> Step:
    """Return the step that measures all T terms of a split, under every protocol of a stage."""
    precision = stay.options.precision
    step = stages(stay, f"full bound ({split}, {precision})", (stage,))
    return Step(step.name, step.words, Bound(split, "full", precision))


def stages(stay: Stay, name: str, names: Iterable[str], more: Iterable[str] = ()) -> Step:
    """Return the step that measures stages of the run in the precision of the stay."""
    words = (*run_words(stay), *more, "--precision", stay.options.precision)
    return Step(name, ("benchmarks/measure.py", *words, "--stages", *names))


def preset_words(stay: Stay) -> list[str]:
    """Return the options of a command on a preset."""
    options = stay.options
    words = ["--preset", options.preset, "--seed", str(options.seed)]
    return [*words, "--runs", str(options.runs), *place_words(options), *set_words(options.settings)]


def run_words(stay: Stay) -> list[str]:
    """Return the arguments of a command on the run."""
    settings = [pair for pair in stay.options.settings if pair.startswith("evaluation.")]
    return [str(stay.run), *place_words(stay.options), *set_words(settings)]


def place_words(options: argparse.Namespace) -> list[str]:
    """Return the options that say where data lie and where to compute."""
    return ["--data-root", str(options.data_root), "--device", options.device]


def set_words(settings: Iterable[str]) -> list[str]:
    """Return settings as options."""
    return [word for pair in settings for word in ("--set", pair)]
