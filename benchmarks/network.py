"""Speed of our network, update and sampling step against diffusers' of the same configuration, in one process.

    python benchmarks/network.py [--network digits|cifar10] [--device cpu|cuda] [--threads N] [--rounds N]

The two are timed in turns (ours, theirs, ours, theirs, ...), so that a busy machine slows both; reported are medians and
the median of the ratios of neighbouring turns. The share of the peak is arithmetic of convolutions and matrix products per
second, over what one large 3x3 convolution (on a GPU a bf16 matrix product) reaches in the same process.
"""

import argparse
import statistics
import time
from collections.abc import Callable

# isort: off
import ddpm_eval.features  # noqa: F401 - lets torchvision, which diffusers imports, load beside a CPU-only torch
import diffusers

# isort: on
import numpy as np
import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
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
Turn = Callable[[], None]


def main() -> None:
    """Print one line per comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=sorted(CPU_BATCH), default="digits")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=None)
    arguments = parser.parse_args()
    runtime = start(arguments.device, arguments.threads)
    spec = preset(arguments.network)
    rounds = arguments.rounds or ROUNDS[arguments.network]
    batch = CPU_BATCH[arguments.network] if runtime.device.type == "cpu" else GPU_BATCH
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"batch_size": batch, "steps": 10_000})})
    print(
        f"{arguments.network} network, batches of {batch}, {runtime.describe()}, torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}"
    )
    gflop, peak = gigaflop_per_image(spec), measured_peak(runtime)
    for name, (ours, theirs), passes in (("training", training(spec, runtime), 3), ("sampling", sampling(spec, runtime), 1)):
        a, b, ratio = compare(ours, theirs, rounds, runtime)
        share = passes * gflop * batch / a / peak
        print(
            f"{name:9s} ours {batch / a:8.1f}  diffusers {batch / b:8.1f} images/s  ratio {ratio:.2f}  "
            f"ours at {share:.0%} of the measured peak of {peak:.0f} GFLOP/s"
        )


def compare(ours: Turn, theirs: Turn, rounds: int, runtime: Runtime) -> tuple[float, float, float]:
    """Time two things in turns: median seconds of each, and the median ratio of theirs to ours."""
    times: list[tuple[float, float]] = []
    for turn in range(rounds + 2):
        pair = (seconds(ours, runtime), seconds(theirs, runtime))
        if turn >= 2:  # the first turns allocate
            times.append(pair)
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    return a, b, statistics.median(y / x for x, y in times)


def seconds(turn: Turn, runtime: Runtime) -> float:
    """Time one turn, to the end of what it queued."""
    began = time.perf_counter()
    turn()
    if runtime.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def training(spec: RunSpec, runtime: Runtime) -> tuple[Turn, Turn]:
    """One update of our trainer, and the usual one of diffusers' examples: AdamW, clipping, EMAModel."""
    data, batch = spec.data, spec.train.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (2048, data.channels, data.side, data.side), dtype=np.uint8)
    ids = np.arange(len(pixels))
    images = ImageSet("random", "train", ids, None, ids[:0], "0" * 12, data.channels, data.side, pixels)
    trainer, batches = Trainer(spec, runtime), iter(Batches(spec, images, runtime).stream(0, spec.train.steps))

    def ours() -> None:
        trainer.seeded_update(next(batches))

    model, scheduler = their_model(spec, runtime), their_scheduler(spec)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in trainer.network.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.train.learning_rate)
    warmup = diffusers.optimization.get_constant_schedule_with_warmup(optimizer, spec.train.warmup_steps)
    average = EMAModel(model.parameters(), decay=spec.train.ema_decay)
    resident = torch.from_numpy(pixels).to(runtime.device)

    def theirs() -> None:
        x_0 = resident[torch.randint(0, len(pixels), (batch,), device=runtime.device)] / 127.5 - 1
        noise = torch.randn_like(x_0)
        t = torch.randint(0, spec.diffusion.timesteps, (batch,), device=runtime.device)
        loss = F.mse_loss(model(scheduler.add_noise(x_0, noise, t), t).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.train.clip_norm)
        optimizer.step()
        warmup.step()
        optimizer.zero_grad()
        average.step(model.parameters())

    return ours, theirs


def sampling(spec: RunSpec, runtime: Runtime) -> tuple[Turn, Turn]:
    """One ancestral step of each: network, mean, noise."""
    shape = (spec.data.channels, spec.data.side, spec.data.side)
    network = Trainer(spec, runtime).network.eval()
    process = trained_process(spec, runtime.compile(network), clip=True)
    chain, ids = Chain(process, seed=0), torch.arange(spec.train.batch_size, device=runtime.device)
    x, t = chain.start(ids, shape), torch.tensor([500], device=runtime.device)

    @torch.inference_mode()
    def ours() -> None:
        with runtime.evaluation_precision():
            chain.step(process(x, t), x, t, ids)

    model, scheduler = their_model(spec, runtime).eval(), their_scheduler(spec)

    @torch.inference_mode()
    def theirs() -> None:
        scheduler.step(model(x, 499).sample, 499, x)

    return ours, theirs


def their_model(spec: RunSpec, runtime: Runtime) -> diffusers.UNet2DModel:
    """Build diffusers' network of the same configuration, in its default layout."""
    return diffusers.UNet2DModel.from_config(network_config(spec)).to(runtime.device)


def their_scheduler(spec: RunSpec) -> diffusers.DDPMScheduler:
    """Build diffusers' chain of the same schedule and variance."""
    return diffusers.DDPMScheduler.from_config(scheduler_config(spec.diffusion))


def gigaflop_per_image(spec: RunSpec) -> float:
    """Arithmetic of one network evaluation in convolutions and products, as diffusers' layers do it."""
    model = diffusers.UNet2DModel.from_config(network_config(spec))
    x = torch.zeros(1, spec.data.channels, spec.data.side, spec.data.side)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(x, 0)
    return counter.get_total_flops() / 1e9


def measured_peak(runtime: Runtime) -> float:
    """Return GFLOP/s of a 3x3 convolution of 256 channels (CPU, float32) or an 8192 matrix product (GPU, bfloat16)."""
    if runtime.device.type == "cuda":
        a = torch.randn(8192, 8192, device=runtime.device, dtype=torch.bfloat16)
        return 2 * 8192**3 / 1e9 / min(seconds(lambda: a @ a, runtime) for _ in range(10))
    x = torch.randn(8, 256, 32, 32).to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        best = min(seconds(lambda: F.conv2d(x, weight, padding=1), runtime) for _ in range(10))
    return 2 * x.numel() * 256 * 9 / 1e9 / best


if __name__ == "__main__":
    main()
