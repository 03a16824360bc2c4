"""What digests cost: the check of a large results file, and each stage with and without them.

    python benchmarks/integrity.py [--megabytes 50] [--rounds 5] [--updates 100] [--samples 32] [--steps 100]

Times are CPU seconds of this process on one thread, so that other programs on the machine count little. Each
round does every stage twice, with the digests of files, results and tensors and with constants in their
place, in turns; the ratio is of the two in one round. The network is that of the digits.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from ddpm_eval import runtime
from ddpm_eval.files import DIGEST_DIGITS
from ddpm_eval.metrics.quality import feature_statistics
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results import hdf5, result_groups
from ddpm_eval.results.records import ReferenceImages
from ddpm_eval.results.store import Store
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.bound_stage import BoundStage
from ddpm_eval.stages.quality_stages import STATISTICS_FILE, FeatureSource, classifiers_folder
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.sampling_stages import SamplesStage
from ddpm_eval.stages.training_stage import TrainingStage
from ddpm_eval.training import tensor_files
from experiments.paper.presets import preset

Work = Callable[[], object]
FILE_DIGEST = "0" * 64
"""Stands for a SHA-256."""


def main() -> None:
    """Measure, and print the tables."""
    arguments = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for line in file_lines(Path(folder), arguments.megabytes, arguments.rounds):
            print(line)
        for line in stage_lines(Path(folder), arguments):
            print(line, flush=True)


def file_lines(folder: Path, megabytes: float, rounds: int) -> list[str]:
    """Time the checks of a results file of this size: the first one, and those of the unchanged file."""
    store = Store(folder / "results.h5")
    shape = (max(1, round(megabytes * 1e6) // 64), 1, 8, 8)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    store.put("images", ReferenceImages(pixels, "noise", "train"), key="k", provenance={})
    first, again = [], []
    for _ in range(rounds):
        hdf5._checked.clear()
        first.append(cpu_seconds(store.check))
        again.append(cpu_seconds(store.check))
    size = store.path.stat().st_size / 1e6
    return [
        f"results file of {size:.1f} MB, CPU milliseconds, median of {rounds} (largest)",
        f"first check of a process: {milliseconds(first)}",
        f"check of an unchanged file that was checked: {milliseconds(again)}",
    ]


def stage_lines(folder: Path, arguments: argparse.Namespace) -> Iterator[str]:
    """Time every stage with and without digests, and yield what is found."""
    settings = {
        "train.steps": str(arguments.updates),
        "train.checkpoint_steps": str(max(1, arguments.updates // 4)),
        "diffusion.timesteps": str(arguments.steps),
        "diffusion.beta_start": "0.001",
        "diffusion.beta_end": "0.3",
        "evaluation.n_samples": str(arguments.samples),
        "evaluation.n_test_images": str(arguments.samples),
    }
    run = Run(folder / "runs" / "digits" / "run", preset("digits", settings=settings), runtime.start("cpu"))
    ensure(TrainingStage(), run)
    FeatureSource().extractor(run)
    kept = Path(shutil.copytree(run.folder, folder / "kept"))
    yield f"stage: CPU seconds with digests, ratio to without (median of {arguments.rounds}; range)"
    for name, (prepare, work) in works(run, kept).items():
        turn(prepare, work)  # warm
        times = [(turn(prepare, work), without(prepare, work)) for _ in range(arguments.rounds)]
        ratios = [with_digests / bare for with_digests, bare in times]
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        median = statistics.median(time for time, _ in times)
        yield f"{name}: {median:.3f} s, {statistics.median(ratios):.3f} ({spread})"


def works(run: Run, trained: Path) -> dict[str, tuple[Work, Work]]:
    """Return for each stage what to do before, which is not timed, and the stage itself."""

    def nothing() -> None:
        shutil.rmtree(run.folder)
        run.forget_weights()

    def only_trained() -> None:
        nothing()
        shutil.copytree(trained, run.folder)

    def statistics_of_features() -> None:
        store = Store(classifiers_folder(run) / STATISTICS_FILE)
        feature_statistics(run.train_images, FeatureSource().extractor(run), statistics_cache=store)

    def no_statistics() -> None:
        (classifiers_folder(run) / STATISTICS_FILE).unlink(missing_ok=True)

    bound = BoundStage("test", (PROTOCOLS["paper"],))
    return {
        "training": (nothing, lambda: ensure(TrainingStage(), run)),
        "sampling": (only_trained, lambda: ensure(SamplesStage(), run)),
        "bound": (only_trained, lambda: ensure(bound, run)),
        "features": (no_statistics, statistics_of_features),
    }


def turn(prepare: Work, work: Work) -> float:
    """Prepare a stage, do it, and return the CPU seconds that it took."""
    prepare()
    return cpu_seconds(work)


def without(prepare: Work, work: Work) -> float:
    """Do the same with constants in the place of all digests."""
    with no_digests():
        return turn(prepare, work)


@contextmanager
def no_digests() -> Iterator[None]:
    """Take constants for the digests of files, tensors and results."""
    hdf5._checked.clear()
    with (
        mock.patch.object(hdf5, "_digest", lambda *what: FILE_DIGEST),
        mock.patch.object(hdf5, "_check_header", lambda *what: None),
        mock.patch.object(tensor_files, "tensor_digest", lambda tensor: FILE_DIGEST),
        mock.patch.object(tensor_files, "check_digests", lambda *what: None),
        mock.patch.object(result_groups, "_digest", lambda *what: "0" * DIGEST_DIGITS),
        mock.patch.object(result_groups, "_matches", lambda *what: True),
    ):
        yield
    hdf5._checked.clear()


def cpu_seconds(work: Work) -> float:
    """Return the CPU seconds of this process that something takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def milliseconds(seconds: list[float]) -> str:
    """Return the median and the largest of times."""
    return f"{1000 * statistics.median(seconds):.2f} ({1000 * max(seconds):.2f})"


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    return parser.parse_args()


if __name__ == "__main__":
    main()
