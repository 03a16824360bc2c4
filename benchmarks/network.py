"""Speed of our update and sampling step against diffusers' with a network of the same configuration.

    python benchmarks/network.py [--network digits|cifar10] [--device cpu|cuda] [--threads N] [--rounds N]

Each side runs in a process of its own, with the settings its users get, and the two take turns (ours, theirs, ours, ...), so
that a busy machine slows both. Reported are medians, the median of the ratios of neighbouring turns, and the same ratio in
processor seconds, which other programs disturb less. The share of the peak is the arithmetic of the network's layers per
second in our fastest turn, over the most that one large 3x3 convolution (on a GPU a bf16 matrix product) reaches before or
after. On a busy machine it means little; it may exceed what the layers could reach, because our upsampling needs less
arithmetic.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from ddpm_eval.data import ImageSet
from ddpm_eval.interchange import network_config, scheduler_config
from ddpm_eval.runtime import Runtime, start
from ddpm_eval.sample import Chain
from ddpm_eval.spec import RunSpec
from ddpm_eval.train import Batches, Trainer, trained_process
from experiments.presets import preset

CPU_BATCH = {"digits": 128, "cifar10": 8}
GPU_BATCH = 128
ROUNDS = {"digits": 40, "cifar10": 7}
WARM_UP = 3
PASSES = {"training": 3, "sampling": 1}  # forward; backward costs twice that
Turn = Callable[[], None]


def main() -> None:
    """Print one line per comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=sorted(CPU_BATCH), default="digits")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=None)
    arguments = parser.parse_args()
    here = start(arguments.device, arguments.threads)
    batch = CPU_BATCH[arguments.network] if here.device.type == "cpu" else GPU_BATCH
    spec = preset(arguments.network, settings={"train.batch_size": str(batch), "train.steps": "10000"})
    gflop, peak = gigaflop_per_image(spec), measured_peak(here)
    print(f"{arguments.network} network, batches of {batch}, {here.describe()}, torch {torch.__version__}")
    for stage in ("training", "sampling"):
        rounds = arguments.rounds or ROUNDS[arguments.network]
        ours, theirs = compare(stage, spec, arguments, rounds)
        ratio = statistics.median(b / a for a, b in zip(ours[0], theirs[0], strict=True))
        processor_ratio = statistics.median(b / a for a, b in zip(ours[1], theirs[1], strict=True))
        a, b = (batch / statistics.median(side[0]) for side in (ours, theirs))
        peak = max(peak, measured_peak(here))
        share = PASSES[stage] * gflop * batch / min(ours[0]) / peak
        print(
            f"{stage}: ours {a:.1f}, diffusers {b:.1f} images/s, ratio {ratio:.2f} ({processor_ratio:.2f} in processor "
            f"seconds); our fastest turn at {share:.0%} of the peak of {peak:.0f} GFLOP/s"
        )


Times = tuple[list[float], list[float]]


def compare(stage: str, spec: RunSpec, arguments: argparse.Namespace, rounds: int) -> tuple[Times, Times]:
    """Let two processes take turns; return for ours and theirs the wall and the processor seconds of each turn."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Any] = []
    times: tuple[Times, Times] = (([], []), ([], []))
    for side in ("ours", "theirs"):
        pipe, end = context.Pipe()
        context.Process(target=work, args=(side, stage, spec, arguments.device, arguments.threads, end), daemon=True).start()
        pipes.append(pipe)
    for turn in range(WARM_UP + rounds):
        for pipe, (wall, processor) in zip(pipes, times, strict=True):
            pipe.send(True)
            seconds = pipe.recv()
            if turn >= WARM_UP:
                wall.append(seconds[0])
                processor.append(seconds[1])
    for pipe in pipes:
        pipe.send(False)
    return times


def work(side: str, stage: str, spec: RunSpec, device: str, threads: int | None, pipe: Connection) -> None:
    """Take a turn whenever the pipe says so and answer with its seconds."""
    if side == "ours":
        runtime = start(device, threads)
        turn, chosen = {"training": our_update, "sampling": our_step}[stage](spec, runtime), runtime.device
    else:
        if threads is not None:
            torch.set_num_threads(threads)
        chosen = torch.device("cuda" if torch.cuda.is_available() and device != "cpu" else "cpu")
        turn = {"training": their_update, "sampling": their_step}[stage](spec, chosen)
    while pipe.recv():
        began = time.perf_counter(), time.process_time()
        turn()
        if chosen.type == "cuda":
            torch.cuda.synchronize()
        pipe.send((time.perf_counter() - began[0], time.process_time() - began[1]))


def random_pixels(spec: RunSpec) -> np.ndarray:
    """Return images whose content does not matter."""
    shape = (2048, spec.data.channels, spec.data.side, spec.data.side)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def our_update(spec: RunSpec, runtime: Runtime) -> Turn:
    """One update of our trainer, batch and logging included."""
    pixels, data = random_pixels(spec), spec.data
    ids = np.arange(len(pixels))
    images = ImageSet("random", "train", ids, None, ids[:0], "0" * 12, data.channels, data.side, pixels)
    trainer, batches = Trainer(spec, runtime), Batches(spec, images, runtime).stream(0, spec.train.steps)
    return lambda: trainer.seeded_update(next(batches))


def their_update(spec: RunSpec, device: torch.device) -> Turn:
    """One update as in diffusers' examples: AdamW, warm-up, clipping, EMAModel."""
    diffusers, training_utils = import_diffusers()
    train, count = spec.train, len(random_pixels(spec))
    model = diffusers.UNet2DModel.from_config(network_config(spec)).to(device).train()
    assert sum(p.numel() for p in model.parameters()) == our_parameters(spec)
    scheduler = diffusers.DDPMScheduler.from_config(scheduler_config(spec.diffusion))
    optimizer = torch.optim.AdamW(model.parameters(), lr=train.learning_rate)
    warmup = diffusers.optimization.get_constant_schedule_with_warmup(optimizer, train.warmup_steps)
    average = training_utils.EMAModel(model.parameters(), decay=train.ema_decay)
    pixels = torch.from_numpy(random_pixels(spec)).to(device)

    def turn() -> None:
        x_0 = pixels[torch.randint(0, count, (train.batch_size,), device=device)] / 127.5 - 1
        noise = torch.randn_like(x_0)
        t = torch.randint(0, spec.diffusion.timesteps, (train.batch_size,), device=device)
        loss = F.mse_loss(model(scheduler.add_noise(x_0, noise, t), t).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm)
        optimizer.step()
        warmup.step()
        optimizer.zero_grad()
        average.step(model.parameters())

    return turn


def our_step(spec: RunSpec, runtime: Runtime) -> Turn:
    """One ancestral step of ours: network, mean, noise."""
    network = Trainer(spec, runtime).network.eval()
    process = trained_process(spec, runtime.compile(network), clip=True)
    chain, ids = Chain(process, seed=0), torch.arange(spec.train.batch_size, device=runtime.device)
    x, t = chain.start(ids, (spec.data.channels, spec.data.side, spec.data.side)), torch.tensor([500], device=runtime.device)

    @torch.inference_mode()
    def turn() -> None:
        with runtime.evaluation_precision():
            chain.step(process(x, t), x, t, ids)

    return turn


def their_step(spec: RunSpec, device: torch.device) -> Turn:
    """One ancestral step of diffusers' pipeline."""
    diffusers, _ = import_diffusers()
    model = diffusers.UNet2DModel.from_config(network_config(spec)).to(device).eval()
    scheduler = diffusers.DDPMScheduler.from_config(scheduler_config(spec.diffusion))
    x = torch.randn(spec.train.batch_size, spec.data.channels, spec.data.side, spec.data.side, device=device)

    @torch.inference_mode()
    def turn() -> None:
        scheduler.step(model(x, 499).sample, 499, x)

    return turn


def import_diffusers() -> tuple[Any, Any]:
    """Import diffusers, for which torchvision must load beside a CPU-only torch."""
    import ddpm_eval.features  # noqa: F401, I001
    import diffusers
    import diffusers.training_utils

    return diffusers, diffusers.training_utils


def our_parameters(spec: RunSpec) -> int:
    """Count the parameters of our network of this configuration."""
    from ddpm_eval.unet import parameter_count

    return parameter_count(spec.network, spec.data.channels, spec.data.side, spec.out_channels)


def gigaflop_per_image(spec: RunSpec) -> float:
    """Arithmetic of one network evaluation, in convolutions and products of the layers as the paper defines them."""
    diffusers, _ = import_diffusers()
    model = diffusers.UNet2DModel.from_config(network_config(spec))
    x = torch.zeros(1, spec.data.channels, spec.data.side, spec.data.side)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(x, 0)
    return counter.get_total_flops() / 1e9


def measured_peak(runtime: Runtime) -> float:
    """Return GFLOP/s of a 3x3 convolution of 256 channels (CPU, float32) or an 8192 matrix product (GPU, bfloat16)."""
    if runtime.device.type == "cuda":
        a = torch.randn(8192, 8192, device=runtime.device, dtype=torch.bfloat16)
        return 2 * 8192**3 / 1e9 / best_seconds(lambda: a @ a, torch.cuda.synchronize)
    x = torch.randn(8, 256, 32, 32).to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        seconds = best_seconds(lambda: F.conv2d(x, weight, padding=1), lambda: None)
    return 2 * x.numel() * 256 * 9 / 1e9 / seconds


def best_seconds(call: Callable[[], object], wait: Callable[[], None], repeats: int = 20) -> float:
    """Time a call several times and return the least."""
    times = []
    for _ in range(repeats):
        wait()
        began = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    main()
