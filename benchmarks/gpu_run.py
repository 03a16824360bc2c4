"""One stay on a machine that is lent by the minute: train, measure, and leave everything in parts to be
carried home.

    python benchmarks/gpu_run.py OUT --preset cifar10-small --minutes 30 [--data-parts DIR] [--wheels DIR]
    [--set KEY=VALUE ...]

Trains for a share of the minutes in a few slices, measures the bound after each (`OUT/bits_per_dim.csv`),
then measures the last averaged weights in the order of importance until the time is over, each step by a
command of cli.py. OUT holds at any moment the last complete state: `OUT/state` (checkpoint, results and work
in progress, in parts with their SHA-256), the history, the report and the log. The next call continues: from
the runs on this machine, or, where there are none, from OUT/state. It trains on; with ``--train-share 0`` it
finishes the measurements of the weights that are there. See docs/scaling.md.
"""

import argparse
import contextlib
import csv
import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import parts

ROOT = Path(__file__).resolve().parents[1]
STOPPED, LATE, USER_ERROR = 130, 124, 2
GRACE_SECONDS = 20
"""What a command gets to stop cleanly."""
RESERVE_SHARE, RESERVE_SECONDS = 0.1, 120
"""Of the time, kept for the report and for packing: this share, at most so long."""
SLICE_LIMIT = 0.9
"""Of the time left, at most this share is given to a slice of training, which also takes time to start and to
save.
"""
REPORT_SHARE = 0.8
"""Of what is kept, for the report; the rest is for the parts."""
FIRST_SAMPLES = 256
HISTORY = ("updates", "images", "train_seconds", "split", "estimator", "precision", "quantity")
KEY = ("updates", "split", "estimator", "precision", "quantity")
MEASURED = ("bits_per_dim", "low", "high", "n_images")


@dataclass(frozen=True)
class Step:
    """A command of cli.py, and which bound it measures, if it does: split, estimator and precision, kept as
    history.
    """

    name: str
    words: tuple[str, ...]
    bound: tuple[str, str, str] | None = None


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
    """The folders, the clock and the log of one call."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, options.out
        self.budget = Budget(60 * options.minutes, options.train_share, options.slices)
        self.began = time.monotonic()
        self.unfinished: list[str] = []
        self.failed: list[str] = []
        self.out.mkdir(parents=True, exist_ok=True)

    @property
    def seconds_left(self) -> float:
        """Until the reserve begins."""
        return self.budget.total - self.budget.reserve - (time.monotonic() - self.began)

    @property
    def run(self) -> Path:
        """The folder of the preset's main run, with the user's settings."""
        from experiments.study import resolve_preset

        options = self.options
        settings = dict(pair.split("=", 1) for pair in options.settings)
        return resolve_preset(options.preset, settings, options.seed, runs=options.runs).main.folder

    @property
    def name(self) -> str:
        """The run's name among all presets'."""
        return f"{self.options.preset}-{self.run.name}"

    @property
    def updates(self) -> int:
        """Parameter updates of the checkpoint, 0 where there is none."""
        from ddpm_eval.training import checkpoint

        return (
            checkpoint.load(self.run, prefixes=()).step if (self.run / checkpoint.FILE_NAME).exists() else 0
        )

    def say(self, text: str) -> None:
        """Print a line with the minutes gone, and put it into the log."""
        line = f"[{(time.monotonic() - self.began) / 60:5.1f} min] {text}"
        print(line, flush=True)
        with (self.out / "log.txt").open("a") as log:
            log.write(f"{line}\n")

    def perform(self, step: Step, seconds: float | None = None) -> bool:
        """Run a command within the time that is left; return whether it came to its end."""
        seconds = self.seconds_left if seconds is None else seconds
        if seconds <= 0:
            self.unfinished.append(step.name)
            return False
        began = time.monotonic()
        with (self.out / "log.txt").open("a") as log:
            log.write(f"\n## {step.name}: cli.py {' '.join(step.words)}\n")
            log.flush()
            code = run_within(seconds, [sys.executable, str(ROOT / "cli.py"), *step.words], log)
        outcome = {0: "done", LATE: "out of time, to be continued"}.get(
            code, f"FAILED: {last_error(self.out / 'log.txt')}"
        )
        self.say(f"{step.name}: {outcome} ({time.monotonic() - began:.0f} s)")
        if code == LATE:
            self.unfinished.append(step.name)
        elif code != 0:
            self.failed.append(step.name)
        return code == 0

    # State

    def restore(self) -> None:
        """Bring the run back from the parts, unless this machine holds it, at least as far trained."""
        kept = kept_updates(self.out / "state", self.name)
        if self.updates:
            if kept is not None and kept > self.updates:
                raise ValueError(
                    f"{self.run} has {self.updates} updates, but {self.out / 'state'} has {kept}: delete one of them"
                )
        elif kept is not None:
            parts.unpack(self.out / "state", self.options.runs)
            self.say(f"continuing from {self.out / 'state'}: {self.updates} updates")

    def keep(self) -> None:
        """Write the state in parts."""
        if not self.updates:
            return
        runs, run = self.options.runs, self.run
        found = [
            path
            for folder in (run, runs / "classifiers")
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        found = [path for path in found if not path.name.startswith(".") and path.suffix != ".tmp"]
        found.sort(key=lambda path: path.name != "checkpoint.safetensors")  # it changes least
        name, limit = f"{self.name}-{self.updates:08d}.tar", int(self.options.part_mb * 1e6)
        before = list(parts.read_sums(self.out / "state"))
        written = parts.pack(found, runs, self.out / "state", name, limit)
        if written != before:
            self.say(
                f"{self.updates} updates kept in {len(written)} parts, {len({*written} - {*before})} of them new"
            )

    def remember(self, bound: tuple[str, str, str]) -> None:
        """Append a bound to the history."""
        split, estimator, precision = bound
        values = read_bound(self.run, split, estimator, precision)
        log = training_log(self.run)
        facts = (log.steps, log.images, round(log.seconds, 1), split, estimator, precision)
        rows = [dict(zip((*HISTORY, *MEASURED), (*facts, *row), strict=True)) for row in values]
        record(self.out / "bits_per_dim.csv", rows)
        total = next(row for row in rows if row["quantity"] == "total")
        self.say(
            f"{split} {total['bits_per_dim']:.4f} [{total['low']:.4f}, {total['high']:.4f}] bits/dim after {log.steps} updates "
            f"({estimator} estimator, n = {total['n_images']}, {precision})"
        )


def main() -> None:
    """Stay; exit 0 if every step that had its time came to its end, 1 if one failed, 2 if the user must
    change something.
    """
    options = parse()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        with packages(options.wheels):
            stay = Stay(options)
            spend(stay)
    except KeyboardInterrupt:
        print("Stopped. What was finished is kept: the same command continues.", file=sys.stderr)
        raise SystemExit(STOPPED) from None
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from None
    raise SystemExit(1 if stay.failed else 0)


def interrupt(*_: object) -> None:
    """Stop as Ctrl-C does, also where a shell or a scheduler ends this process."""
    raise KeyboardInterrupt


def spend(stay: Stay) -> None:
    """Train, measure, report; whatever happens, the state is kept."""
    options = stay.options
    options.runs.mkdir(parents=True, exist_ok=True)
    if options.data_parts is not None:
        stay.say(f"data: {', '.join(map(str, parts.join_data(options.data_parts, options.data_root)))}")
    stay.restore()
    try:
        train(stay)
        if stay.updates:
            measure(stay)
    finally:
        stay.keep()
    if stay.unfinished:
        stay.say(
            f"not finished: {', '.join(stay.unfinished)} (again with --train-share 0 continues these measurements)"
        )


def train(stay: Stay) -> None:
    """Train in slices; after each keep the state and measure the bound of the test images."""
    budget = stay.budget
    for number in range(1, budget.slices + 1) if budget.train_share else ():
        before = stay.updates
        minutes = min(budget.slice_minutes, SLICE_LIMIT * stay.seconds_left / 60)
        if minutes <= 0:
            return
        words = ["train", *workspace_words(stay), "--max-minutes", f"{minutes:.3f}"]
        step = Step(f"train {number} of {budget.slices}", tuple(words))
        done = stay.perform(step)
        if step.name in stay.failed:
            raise ValueError(f"the training ended early: {last_error(stay.out / 'log.txt')}")
        if stay.updates == before:
            return
        stay.keep()
        if not done or diverged(stay.run):
            return
        if number < budget.slices:
            bound(stay, stratified(stay, "test", "fp32"))


def measure(stay: Stay) -> None:
    """Measure the averaged weights in the order of importance, then render the report."""
    if logged_updates(stay.run) != stay.updates:  # the training was killed after a checkpoint
        stay.perform(Step("training's log", ("train", *workspace_words(stay), *trained(stay))))
    for step in [] if diverged(stay.run) else evaluation(stay):
        if step.bound is None:
            stay.perform(step)
        else:
            bound(stay, step)
        if stay.seconds_left > 0:
            stay.keep()
    last = stay.seconds_left + REPORT_SHARE * stay.budget.reserve
    stay.perform(Step("report", ("report", *trained_words(stay))), seconds=last)


def bound(stay: Stay, step: Step) -> None:
    """Measure a bound and keep it in the history."""
    if stay.perform(step) and step.bound is not None:
        stay.remember(step.bound)


def evaluation(stay: Stay) -> list[Step]:
    """List what is measured of the last weights, the most important first."""
    options, on_run = stay.options, run_words(stay)
    fast = (
        [] if options.precision == "fp32" else [stratified(stay, "test", options.precision)]
    )  # what the precision changes
    fast = [step for step in fast if not remembered(stay.out / "bits_per_dim.csv", stay.updates, step.bound)]
    at_speed = (*on_run, "--precision", options.precision)
    full = [full_bound(stay, split, options.precision) for split in ("test", "train")]
    steps = [
        *fast,
        stratified(stay, "test", "fp32"),
        stratified(stay, "train", "fp32"),
        Step(f"{FIRST_SAMPLES} samples", ("sample", *at_speed, "--n-samples", str(FIRST_SAMPLES))),
        Step("progressive generation", ("progressive", *trained_words(stay))),
        full[0],
        Step("all samples", ("sample", *at_speed)),
        Step("quality", ("quality", *at_speed)),
        full[1],
    ]
    if options.precision == "fp32":  # it measures in no other
        steps.append(Step("rest of rate-distortion", ("rate-distortion", *trained_words(stay))))
    return steps


def stratified(stay: Stay, split: str, precision: str) -> Step:
    """Return the step that estimates the bound of a split with a few steps per image."""
    words = (
        "likelihood",
        *run_words(stay),
        "--split",
        split,
        "--estimator",
        "stratified",
        "--precision",
        precision,
    )
    return Step(f"stratified bound ({split}, {precision})", words, (split, "stratified", precision))


def full_bound(stay: Stay, split: str, precision: str) -> Step:
    """Return the step that measures all T terms of a split."""
    words = ("likelihood", *run_words(stay), "--split", split, "--precision", precision)
    return Step(f"full bound ({split}, {precision})", words, (split, "full", precision))


def workspace_words(stay: Stay) -> list[str]:
    """Return the options of a command on a preset."""
    options = stay.options
    words = ["--preset", options.preset, "--seed", str(options.seed)]
    return [*words, "--runs", str(options.runs), *place_words(options), *set_words(options.settings)]


def trained(stay: Stay) -> list[str]:
    """Return the setting with which a preset is not trained any further."""
    return ["--set", f"train.steps={stay.updates}"]


def trained_words(stay: Stay) -> list[str]:
    """Return the options of a command that reports on a preset and is not to train it any further."""
    return [*workspace_words(stay), *trained(stay), "--reports", str(stay.out / "reports")]


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


# Processes


def run_within(seconds: float, command: Sequence[str], log: Any) -> int:
    """Run a command, stopped cleanly after ``seconds``; return its exit code, LATE if it was stopped."""
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=die_with_parent)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        stop(process)
        return LATE
    except KeyboardInterrupt:
        stop(process)
        raise


def stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process as Ctrl-C does; kill it if it does not end."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def die_with_parent() -> None:
    """Let the kernel end this process with its parent, so that a killed stay leaves nothing behind that holds
    the run.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def packages(wheels: Path | None) -> Iterator[None]:
    """Make this repository and a folder of wheels importable, here and in the commands; nothing is
    downloaded.
    """
    with tempfile.TemporaryDirectory(prefix="wheels-") as site:
        if wheels is not None:
            install(wheels, site)
        sys.path[:0] = [str(ROOT), site]
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT), site, os.environ.get("PYTHONPATH", "")]
        ).rstrip(os.pathsep)
        check_packages()
        yield


def install(wheels: Path, site: str) -> None:
    """Install all wheels of a folder into ``site``."""
    files = sorted(str(path) for path in wheels.glob("*.whl"))
    if not files:
        raise ValueError(f"{wheels} holds no wheels (*.whl)")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--target",
        site,
        *files,
    ]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(
            f"the wheels in {wheels} cannot be installed: {done.stderr.strip().splitlines()[-1]}"
        )


def check_packages() -> None:
    """Raise ValueError, naming them, if packages are missing that the project needs."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    missing = [
        name
        for name in (re.split(r"[<>=!~ ;\[]", line, maxsplit=1)[0] for line in wanted)
        if not has_package(name)
    ]
    if missing:
        raise ValueError(
            f"packages are missing: {', '.join(missing)} (pip install -c constraints.txt -e ., or carry their wheels and those "
            "of what they need, and name the folder with --wheels)"
        )


def has_package(name: str) -> bool:
    """Tell whether a package is installed."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


# What is stored


def kept_updates(state: Path, name: str) -> int | None:
    """Return the updates of the state that is kept in parts, None if there is none.

    Raises:
        ValueError: if it is another run's.
    """
    for part in parts.read_sums(state):
        run, _, updates = part.partition(".tar.")[0].rpartition("-")
        if run != name:
            raise ValueError(
                f"{state} holds the run {run}, not {name}: name another folder than {state.parent}"
            )
        return int(updates)
    return None


def training_log(run: Path) -> Any:
    """Return the stored log of a run's training, None if there is none yet."""
    from ddpm_eval.results.records import TrainingLog
    from ddpm_eval.results.store import Store

    store = Store(run / "results.h5")
    return (
        store.get("training", TrainingLog)
        if any(entry.name == "training" for entry in store.entries())
        else None
    )


def logged_updates(run: Path) -> int:
    """Return the updates that the stored log knows of."""
    log = training_log(run)
    return 0 if log is None else log.steps


def diverged(run: Path) -> bool:
    """Tell whether the training is known to have diverged."""
    log = training_log(run)
    return log is not None and log.diverged


def read_bound(run: Path, split: str, estimator: str, precision: str) -> list[tuple[Any, ...]]:
    """Return quantity, bits/dim, interval and n of a stored bound under protocol paper, row by row.

    Raises:
        ValueError: if it is not of the run's present weights.
    """
    from ddpm_eval.protocol import PROTOCOLS
    from ddpm_eval.reporting.bound_tables import split_table
    from ddpm_eval.results.bound_terms import FullBoundTerms, StratifiedBoundTerms, bound_name
    from ddpm_eval.results.store import Store

    store = Store(run / "results.h5")
    name = bound_name(split, PROTOCOLS["paper"], estimator)
    name = name if precision == "fp32" else f"{precision}/{name}"
    newest = {entry.name: entry for entry in store.entries()}
    if name in newest and newest[name].provenance["weights"] != newest["training"].key:
        raise ValueError(f"{store.path}: {name} is not of the run's present weights")
    terms = store.get(name, StratifiedBoundTerms if estimator == "stratified" else FullBoundTerms)
    table = split_table(terms)
    return list(table[["quantity", *MEASURED]].itertuples(index=False, name=None))


def record(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Put rows into the history, in place of any of the same weights and kind."""
    written = [{key: str(value) for key, value in row.items()} for row in rows]
    replaced = {tuple(row[key] for key in KEY) for row in written}
    kept = [row for row in history(path) if tuple(row[key] for key in KEY) not in replaced]
    temporary = path.with_name(f".{path.name}.writing")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, (*HISTORY, *MEASURED))
        writer.writeheader()
        writer.writerows([*kept, *written])
    temporary.replace(path)


def history(path: Path) -> list[dict[str, str]]:
    """Read the history; empty where there is none."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def remembered(path: Path, updates: int, bound: tuple[str, str, str] | None) -> bool:
    """Tell whether the history has a bound of these weights."""
    return any(
        (row["updates"], row["split"], row["estimator"], row["precision"]) == (str(updates), *(bound or ()))
        for row in history(path)
    )


def last_error(path: Path) -> str:
    """Return the last error that a command wrote into the log."""
    return next(reversed(re.findall(r"^\S*Error: (.+)$", path.read_text(), re.MULTILINE)), f"see {path}")


# Options


def parse() -> argparse.Namespace:
    """Read the options."""
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("out", type=Path, help="folder to carry home and back")
    add("--preset", default="cifar10-small")
    add("--minutes", type=positive, default=30.0, help="of the whole stay (default 30)")
    add("--train-share", type=share, default=0.6, help="of the minutes; 0 measures only (default 0.6)")
    add(
        "--slices",
        type=int,
        default=3,
        choices=range(1, 101),
        metavar="N",
        help="of training, each measured (default 3)",
    )
    add(
        "--precision",
        default="fp32",
        choices=("fp32", "tf32", "bf16"),
        help="of the full bound and of samples (default fp32)",
    )
    add(
        "--data-parts",
        type=Path,
        help="folder of the data set's file, whole or in parts, to be joined into --data-root",
    )
    add("--data-root", type=Path, default=Path(".data"), help="where data sets lie (default .data)")
    add("--wheels", type=Path, help="folder of wheels to install for this stay, without a network")
    add("--runs", type=Path, default=Path("runs"), help="where this machine keeps runs (default runs)")
    add("--part-mb", type=positive, default=60.0, help="size of the parts in OUT/state (default 60)")
    add("--device", default="auto")
    add("--seed", type=int, default=0)
    add(
        "--set",
        dest="settings",
        action="append",
        default=[],
        type=setting,
        metavar="KEY=VALUE",
        help="as in cli.py; repeatable",
    )
    return parser.parse_args()


def positive(text: str) -> float:
    """Read a positive number."""
    if not float(text) > 0:
        raise ValueError(text)
    return float(text)


def share(text: str) -> float:
    """Read a share of 0 to 1."""
    if not 0 <= float(text) <= 1:
        raise ValueError(text)
    return float(text)


def setting(text: str) -> str:
    """Read KEY=VALUE."""
    if "=" not in text:
        raise ValueError(text)
    return text


if __name__ == "__main__":
    main()
