"""The bound's network evaluations per second beside those of the network's bare forward pass.

    python benchmarks/bound.py [--network cifar10|digits] [--rounds 5] [--device auto]

Both evaluate the same number of images per call with the same threads, in turns of one process; the median of
the ratios is the figure to quote. The bound draws the noise, diffuses the images and evaluates the terms of
every protocol in float64.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.metrics.bound import evaluate_pairs
from ddpm_eval.metrics.measured_model import Model
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.runtime import Runtime, start
from ddpm_eval.spec import RunSpec
from ddpm_eval.training.build import build_network
from experiments.paper.presets import preset

DIGITS_EVALUATIONS = 4096
"""Network evaluations of one turn with the digits' network; with the large one a turn is two calls."""
Turn = Callable[[], object]


def main() -> None:
    """Measure both in turns, and print speeds and ratio."""
    arguments = parse()
    runtime = start(arguments.device)
    spec = preset(arguments.network)
    size = runtime.batch_size(spec.data.side, spec.network.base_channels)
    calls = max(1, DIGITS_EVALUATIONS // size) if arguments.network == "digits" else 2
    bare, measured = turns(spec, runtime, size, calls)
    bare()
    measured()
    speeds = [
        (speed(bare, size * calls, runtime.device), speed(measured, size * calls, runtime.device))
        for _ in range(arguments.rounds)
    ]
    ratios = [bound / forward for forward, bound in speeds]
    per_call = f"{size} images per call, {arguments.rounds} rounds in turns"
    print(f"{arguments.network}, {runtime.describe()}, {per_call}")
    print(f"bare forward pass: {statistics.median(s[0] for s in speeds):.1f} evaluations/s (median)")
    print(f"bound:             {statistics.median(s[1] for s in speeds):.1f} evaluations/s (median)")
    print(f"ratio: {statistics.median(ratios):.3f} (median; {min(ratios):.3f} to {max(ratios):.3f})")


def turns(spec: RunSpec, runtime: Runtime, size: int, calls: int) -> tuple[Turn, Turn]:
    """Return a turn of bare forward passes and one of the bound, each of ``calls`` batches of ``size``."""
    network = runtime.place(build_network(spec).eval(), spec.network.base_channels)
    model = Model(network, make_schedule(spec.diffusion).to(runtime.device))
    models = [model.under(protocol) for protocol in PROTOCOLS.values()]
    shape = (size, spec.data.channels, spec.data.side, spec.data.side)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = to_model_range(torch.from_numpy(pixels).to(runtime.device))
    times = torch.arange(1, 1 + size, device=runtime.device)
    number = np.arange(size * calls)
    pairs = np.stack([number % size, number % (spec.diffusion.timesteps - 1) + 1], axis=1)

    @torch.inference_mode()
    def bare() -> None:
        for _ in range(calls):
            network(images, times)

    def measured() -> None:
        evaluate_pairs(
            models,
            lambda positions: images[torch.from_numpy(positions).to(images.device)].double(),
            np.arange(size),
            pairs,
            seed=0,
            draws=1,
            batch_size=size,
            progress=lambda _: None,
        )

    return bare, measured


def speed(turn: Turn, images: int, device: torch.device) -> float:
    """Return the images per second of a turn."""
    wait(device)
    began = time.perf_counter()
    turn()
    wait(device)
    return images / (time.perf_counter() - began)


def wait(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=["cifar10", "digits"], default="cifar10")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
