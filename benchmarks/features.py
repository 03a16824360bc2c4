"""Speed of feature extraction beside that of the network's bare forward pass on the same images.

    python benchmarks/features.py [--images 2000] [--inception-weights FILE] [--device cpu|cuda] [--rounds 5]

Bare means: batches that lie on the device already, features left there. The two are timed in turns of one
process, so that a busy machine slows both; reported are medians and the median of the ratios of neighbouring
turns (at least 0.95 is the aim).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ddpm_eval import runtime
from ddpm_eval.data import datasets
from ddpm_eval.data.image_set import ArrayImages, Images
from ddpm_eval.metrics import features
from ddpm_eval.metrics.classifier import load_or_train_classifier
from ddpm_eval.metrics.inception import load_inception
from ddpm_eval.metrics.quality import collect_features
from ddpm_eval.spec import DataSpec


def main() -> None:
    """Time both and print their ratio."""
    arguments = parse()
    here = runtime.start(arguments.device)
    train, test = (
        datasets.load(DataSpec(name="digits", channels=1, side=8), split) for split in ("train", "test")
    )
    if arguments.inception_weights:
        extractor = load_inception(arguments.inception_weights, runtime=here)
    else:
        with tempfile.TemporaryDirectory() as folder:
            extractor = load_or_train_classifier(train, test, Path(folder), runtime=here)
    images = ArrayImages(train.take(np.arange(arguments.images) % len(train)))
    turns = {
        "bare forward": bare(extractor, images),
        "extraction": lambda: collect_features(images, extractor),
    }
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for turn in turns.values():
        turn()
    for _ in range(arguments.rounds):
        for name, turn in turns.items():
            seconds[name].append(timed(turn, here.device))
    for name, values in seconds.items():
        print(f"{name:13} {arguments.images / statistics.median(values):10.1f} images/s")
    ratio = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
    print(f"extraction runs at {ratio:.3f} of the bare forward speed ({extractor.name}, {here.device})")


def bare(extractor: features.Extractor, images: Images) -> Callable[[], None]:
    """Return a turn that passes prepared batches through the network."""
    size = extractor.batch_size
    index = np.split(np.arange(len(images)), range(size, len(images), size))
    batches = [features.match_channels(torch.from_numpy(images.take(i)), extractor.channels) for i in index]
    batches = [batch.to(extractor.runtime.device) for batch in batches]

    @torch.inference_mode()
    def turn() -> None:
        for batch in batches:
            extractor.module(batch)

    return turn


def timed(turn: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that a turn takes."""
    began = time.perf_counter()
    turn()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--inception-weights", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
