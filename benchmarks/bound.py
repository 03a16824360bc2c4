"""Network evaluations per second of the bound, against the bare forward pass of the same network, in one
process.

    python benchmarks/bound.py [--network cifar10|digits] [--rounds 5]

Both evaluate the same number of images per call with the same threads, in turns; the ratio's median is the
figure to quote. The bound draws the noise, diffuses the images, reads the output under two protocols in
float64 and averages nothing away.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.metrics import bound
from ddpm_eval.model.unet import UNet
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.runtime import start
from experiments.paper.presets import preset


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=["cifar10", "digits"], default="cifar10")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    runtime, spec = start(arguments.device), preset(arguments.network)
    width = spec.network.base_channels
    network = UNet(spec.network, spec.data.channels, spec.data.side, spec.out_channels).eval()
    runtime.place(network, width)
    size = runtime.batch_size(spec.data.side, width)
    shape = (spec.data.channels, spec.data.side, spec.data.side)
    calls = max(1, 4096 // size) if arguments.network == "digits" else 2
    pixels = np.random.default_rng(0).integers(0, 256, (size, *shape), dtype=np.uint8)
    images = to_model_range(torch.from_numpy(pixels).to(runtime.device))
    times = torch.arange(2, 2 + size, device=runtime.device)

    def bare() -> None:
        with torch.inference_mode():
            for _ in range(calls):
                network(images, times - 1)

    from ddpm_eval.model.diffusion import make_schedule

    schedule = make_schedule(spec.diffusion).to(runtime.device)
    model = bound.Model(lambda x, t: network(x.float(), t), schedule, "eps", "fixed-large")
    readings = [model.reading(protocol) for protocol in PROTOCOLS.values()]
    pairs = np.stack(
        [np.arange(size * calls) % size, np.arange(size * calls) % (spec.diffusion.timesteps - 1) + 1], axis=1
    )

    def measured() -> None:
        bound.evaluate_pairs(
            readings,
            lambda positions: images[torch.from_numpy(positions).to(images.device)].double(),
            np.arange(size),
            pairs,
            seed=0,
            draws=1,
            batch_size=size,
            progress=lambda _: None,
        )

    bare(), measured()
    speeds = [
        (_speed(bare, size * calls, runtime), _speed(measured, size * calls, runtime))
        for _ in range(arguments.rounds)
    ]
    ratios = [with_bound / without for without, with_bound in speeds]
    print(
        f"{arguments.network}, {runtime.describe()}, {size} images per call, {arguments.rounds} rounds in turns"
    )
    print(f"bare forward pass: {statistics.median(s[0] for s in speeds):.1f} evaluations/s (median)")
    print(f"bound:             {statistics.median(s[1] for s in speeds):.1f} evaluations/s (median)")
    print(f"ratio: {statistics.median(ratios):.3f} (median; {min(ratios):.3f} to {max(ratios):.3f})")


def _speed(function, images, runtime) -> float:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    if runtime.device.type == "cuda":
        torch.cuda.synchronize()
    return images / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
