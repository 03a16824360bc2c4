"""Speed and memory of training and sampling: ours eager and compiled, in fp32 and bf16, and diffusers', as a
Markdown table.

    python benchmarks/network.py [--networks digits cifar10-small cifar10] [--device cpu|cuda] [--threads N]
                                 [--rounds N] [--variants ours/fp32/eager ...] [--write docs/performance.md]

Each variant runs in a process of its own, with the settings its users get, and all take turns (first, second,
..., first, ...), so that a busy machine slows all. A turn is one update, or one step of the reverse process
of a batch, after warm-up; on a GPU, and of the digits' network, it is 20 of them without a pause. Reported
are the median and the range over the turns; the ratio is of turns of the same round. The share of the peak is
the arithmetic of the network's layers (forward, or forward and backward) per second, over the most that one
large 3x3 convolution (CPU, float32) or an 8192 matrix product (GPU, bfloat16) reaches before or after. On a
CPU our upsampling needs less arithmetic than its layers are counted with.
"""

import argparse
import datetime
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.data.torchvision_compatibility import import_torchvision
from ddpm_eval.interchange.diffusers_format import network_config, scheduler_config
from ddpm_eval.model.samplers import Chain
from ddpm_eval.model.unet import UNet
from ddpm_eval.results.store import environment
from ddpm_eval.runtime import Runtime, start
from ddpm_eval.spec import RunSpec
from ddpm_eval.training.batches import Batches
from ddpm_eval.training.build import trained_process
from ddpm_eval.training.trainer import Trainer
from experiments.paper.presets import preset

NETWORKS = ("digits", "cifar10-small", "cifar10")
STAGES = ("training", "sampling")
CPU_BATCH = {"digits": 128, "cifar10-small": 16, "cifar10": 8}  # on a GPU the preset's
ROUNDS = {"digits": 20, "cifar10-small": 9, "cifar10": 7}
WARM_UP_TURNS = 3
QUICK_STEPS = (
    20  # updates or steps of one turn where one takes milliseconds: on a GPU, and of the digits' network
)
LIKELIHOOD_IMAGES = 10_000
Turn = Callable[[], object]


@dataclass(frozen=True)
class Variant:
    """Whose program, at which precision, compiled or not."""

    project: str
    precision: str
    mode: str

    def __str__(self) -> str:
        return f"{self.project}/{self.precision}/{self.mode}"

    @staticmethod
    def parse(text: str) -> "Variant":
        """Read ``ours/fp32/eager``; raise ValueError for anything else."""
        if not re.fullmatch(r"(ours|diffusers)/(fp32|bf16)/(eager|compiled)", text):
            raise ValueError(f"{text!r} is no variant: (ours|diffusers)/(fp32|bf16)/(eager|compiled)")
        return Variant(*text.split("/"))

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which another project's network runs."""
        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()


THEIRS = Variant("diffusers", "fp32", "eager")
OURS = tuple(
    Variant("ours", precision, mode) for precision in ("fp32", "bf16") for mode in ("eager", "compiled")
)


@dataclass(frozen=True)
class Row:
    """What was measured of one variant.

    Attributes:
        network: the preset.
        stage: ``training`` or ``sampling``.
        variant: whose program.
        batch: images per update or step.
        speeds: images per second of each turn; in sampling, of one step of T.
        memory_bytes: the most that the process took: on a GPU of its memory, on a CPU in all.
        gigaflop: arithmetic of one image.
        peak: of the device, GFLOP/s.
    """

    network: str
    stage: str
    variant: Variant
    batch: int
    speeds: tuple[float, ...]
    memory_bytes: int
    gigaflop: float
    peak: float

    @property
    def speed(self) -> float:
        """The median."""
        return statistics.median(self.speeds)


def main() -> None:
    """Measure, print the tables, and write them into a document if one is named."""
    arguments = parse()
    here = start(arguments.device, arguments.threads)
    variants = arguments.variants or [*OURS, *([THEIRS] if installed("diffusers") else [])]
    if arguments.write is not None:  # now, not when hours have passed
        for network in arguments.networks:
            around(arguments.write, f"{network} on {here.device.type}")
    for network in arguments.networks:
        rows: list[Row] = []
        for stage in STAGES:
            found = measure(network, stage, variants, here, arguments)
            rows += found
            print(
                *(f"{network} {stage} {row.variant}: {spread(row.speeds)} images/s" for row in found),
                sep="\n",
                flush=True,
            )
        if not rows:
            raise SystemExit(f"nothing was measured of {network}: every variant ended early")
        peak = max(row.peak for row in rows)
        rows = [replace(row, peak=peak) for row in rows]
        text = "\n".join(
            [*caption(network, here, arguments), "", *table(rows), "", *hours_table(rows, here.device.type)]
        )
        print(f"\n{text}\n", flush=True)
        if arguments.write is not None:
            insert(arguments.write, f"{network} on {here.device.type}", text)


# Measuring


def measure(
    network: str, stage: str, variants: Sequence[Variant], here: Runtime, arguments: argparse.Namespace
) -> list[Row]:
    """Let all variants of one network take turns; one that ends early (out of memory, no compiler) is left
    out.
    """
    on_cpu = here.device.type == "cpu"
    spec = preset(network, settings={"train.steps": "100000"})
    batch = arguments.batch or (CPU_BATCH[network] if on_cpu else spec.train.batch_size)
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"batch_size": batch})})
    steps = 1 if on_cpu and network != "digits" else QUICK_STEPS
    before = measured_peak(here)
    seconds, memory = compare(stage, spec, variants, steps, arguments.rounds or ROUNDS[network], arguments)
    peak, gigaflop = max(before, measured_peak(here)), gigaflop_per_image(spec, stage)
    return [
        Row(network, stage, v, batch, tuple(steps * batch / s for s in seconds[v]), memory[v], gigaflop, peak)
        for v in variants
        if v in memory
    ]


def compare(
    stage: str,
    spec: RunSpec,
    variants: Sequence[Variant],
    steps: int,
    rounds: int,
    arguments: argparse.Namespace,
) -> tuple[dict[Variant, list[float]], dict[Variant, int]]:
    """Return the seconds of each variant's turns and the memory it took."""
    context, pipes, memory = multiprocessing.get_context("spawn"), {}, {}
    seconds: dict[Variant, list[float]] = {variant: [] for variant in variants}
    for variant in variants:
        pipes[variant], end = context.Pipe()
        settings = (variant, stage, spec, steps, arguments.device, arguments.threads, end)
        context.Process(target=work, args=settings, daemon=True).start()
        end.close()  # so that the death of the process is seen
    for turn in range(WARM_UP_TURNS + rounds):
        for variant, pipe in list(pipes.items()):
            try:
                pipe.send(True)
                seconds[variant] += [pipe.recv()] if turn >= WARM_UP_TURNS else [pipe.recv()][:0]
            except (EOFError, BrokenPipeError, ConnectionResetError):
                print(f"{variant} ended early and is left out (its own words are above)")
                del pipes[variant]
    for variant, pipe in pipes.items():
        pipe.send(False)
        memory[variant] = pipe.recv()
    return seconds, memory


def work(
    variant: Variant,
    stage: str,
    spec: RunSpec,
    steps: int,
    device: str,
    threads: int | None,
    pipe: Connection,
) -> None:
    """Take a turn whenever the pipe says so and answer with its seconds; at the end answer with the memory
    taken.
    """
    runtime = runtime_of(variant, device, threads)
    step = STEPS[variant.project, stage](spec, runtime, variant)
    while pipe.recv():
        began = time.perf_counter()
        for _ in range(steps):
            step()
        wait(runtime.device)
        pipe.send(time.perf_counter() - began)
    pipe.send(memory_taken(runtime.device))


def runtime_of(variant: Variant, device: str, threads: int | None) -> Runtime:
    """Set up this process as a user of the variant's project would find it."""
    bf16, compiled = variant.precision == "bf16", variant.mode == "compiled"
    if variant.project == "ours":
        return replace(
            start(device, threads, "bf16" if bf16 else "fp32"), mixed_precision=bf16, compiled=compiled
        )
    if threads is not None:
        torch.set_num_threads(threads)
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return Runtime(torch.device(auto if device == "auto" else device), compiled=compiled)


def wait(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_taken(device: torch.device) -> int:
    """Return the most bytes that this process has taken: of the GPU's memory, or in all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    lines = (
        Path("/proc/self/status").read_text().splitlines()
    )  # getrusage would count what the parent held when this one began
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def random_pixels(spec: RunSpec) -> np.ndarray:
    """Return images whose content does not matter."""
    shape = (2048, spec.data.channels, spec.data.side, spec.data.side)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def our_update(spec: RunSpec, runtime: Runtime, variant: Variant) -> Turn:
    """One update of our trainer, batch and logging included."""
    pixels, data = random_pixels(spec), spec.data
    ids = np.arange(len(pixels))
    images = ImageSet("random", "train", ids, None, ids[:0], "0" * 12, data.channels, data.side, pixels)
    trainer, batches = Trainer(spec, runtime), Batches(spec, images, runtime).stream(0, spec.train.steps)
    return lambda: trainer.seeded_update(next(batches))


def their_update(spec: RunSpec, runtime: Runtime, variant: Variant) -> Turn:
    """One update as in diffusers' examples: AdamW, warm-up, clipping, EMAModel."""
    diffusers, training_utils = import_diffusers()
    train, count, device = spec.train, len(random_pixels(spec)), runtime.device
    model = diffusers.UNet2DModel.from_config(network_config(spec)).to(device).train()
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in our_network(spec).parameters()
    )
    scheduler = diffusers.DDPMScheduler.from_config(scheduler_config(spec.diffusion))
    optimizer = torch.optim.AdamW(model.parameters(), lr=train.learning_rate)
    warmup = diffusers.optimization.get_constant_schedule_with_warmup(optimizer, train.warmup_steps)
    average = training_utils.EMAModel(model.parameters(), decay=train.ema_decay)
    pixels, network = torch.from_numpy(random_pixels(spec)).to(device), runtime.compile(model)

    def turn() -> None:
        x_0 = pixels[torch.randint(0, count, (train.batch_size,), device=device)] / 127.5 - 1
        noise = torch.randn_like(x_0)
        t = torch.randint(0, spec.diffusion.timesteps, (train.batch_size,), device=device)
        with variant.autocast(device):
            loss = F.mse_loss(network(scheduler.add_noise(x_0, noise, t), t).sample.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm)
        optimizer.step()
        warmup.step()
        optimizer.zero_grad()
        average.step(model.parameters())

    return turn


def our_step(spec: RunSpec, runtime: Runtime, variant: Variant) -> Turn:
    """One ancestral step of ours: network, mean, noise."""
    network = Trainer(spec, replace(runtime, compiled=False)).network.eval()
    process = trained_process(spec, runtime.compile(network), clip=True)
    chain, ids = Chain(process, seed=0), torch.arange(spec.train.batch_size, device=runtime.device)
    x, t = (
        chain.start(ids, (spec.data.channels, spec.data.side, spec.data.side)),
        torch.tensor([500], device=runtime.device),
    )

    @torch.inference_mode()
    def turn() -> None:
        with runtime.evaluation_precision():
            chain.step(process(x, t), x, t, ids)

    return turn


def their_step(spec: RunSpec, runtime: Runtime, variant: Variant) -> Turn:
    """One ancestral step of diffusers' pipeline."""
    diffusers, _ = import_diffusers()
    model = diffusers.UNet2DModel.from_config(network_config(spec)).to(runtime.device).eval()
    network = runtime.compile(model)
    scheduler = diffusers.DDPMScheduler.from_config(scheduler_config(spec.diffusion))
    x = torch.randn(
        spec.train.batch_size, spec.data.channels, spec.data.side, spec.data.side, device=runtime.device
    )

    @torch.inference_mode()
    def turn() -> None:
        with variant.autocast(runtime.device):
            eps = network(x, 499).sample
        scheduler.step(eps.float(), 499, x)

    return turn


STEPS: dict[tuple[str, str], Callable[[RunSpec, Runtime, Variant], Turn]] = {
    ("ours", "training"): our_update,
    ("ours", "sampling"): our_step,
    ("diffusers", "training"): their_update,
    ("diffusers", "sampling"): their_step,
}


def import_diffusers() -> tuple[Any, Any]:
    """Import diffusers, for which torchvision must load beside a CPU-only torch."""
    import_torchvision()
    import diffusers
    import diffusers.training_utils

    return diffusers, diffusers.training_utils


def installed(package: str) -> bool:
    """Tell whether a package is installed."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


# Arithmetic


def our_network(spec: RunSpec) -> UNet:
    """Return the network without memory for its weights."""
    with torch.device("meta"):
        return UNet(spec.network, spec.data.channels, spec.data.side, spec.out_channels)


def gigaflop_per_image(spec: RunSpec, stage: str) -> float:
    """Count the arithmetic of an image's share of an update or a step, in the products of the layers as they
    are defined.
    """
    network, side = our_network(spec), spec.data.side
    x, t = (
        torch.zeros(1, spec.data.channels, side, side, device="meta"),
        torch.ones(1, dtype=torch.long, device="meta"),
    )
    with FlopCounterMode(display=False) as counter:
        output = network(x, t)
        if stage == "training":
            output.sum().backward()
    return counter.get_total_flops() / 1e9


def measured_peak(runtime: Runtime) -> float:
    """Return GFLOP/s of a 3x3 convolution of 256 channels (CPU, float32) or an 8192 matrix product (GPU,
    bfloat16).
    """
    if runtime.device.type == "cuda":
        a = torch.randn(8192, 8192, device=runtime.device, dtype=torch.bfloat16)
        return 2 * 8192**3 / 1e9 / best_seconds(lambda: a @ a, runtime.device)
    x = torch.randn(8, 256, 32, 32).to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        seconds = best_seconds(lambda: F.conv2d(x, weight, padding=1), runtime.device)
    return 2 * x.numel() * 256 * 9 / 1e9 / seconds


def best_seconds(call: Turn, device: torch.device, repeats: int = 20) -> float:
    """Time a call several times and return the least."""
    times = []
    for _ in range(repeats):
        wait(device)
        began = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - began)
    return min(times)


# Tables


def caption(network: str, here: Runtime, arguments: argparse.Namespace) -> list[str]:
    """Say when, where, with what and by which command the tables were made."""
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "diffusers") if installed(name)
    )
    peak = "a bf16 matrix product" if here.device.type == "cuda" else "an fp32 convolution"
    words = [f"--networks {network}", f"--device {here.device.type}"]
    words += [
        f"--{key} {value}" for key in ("threads", "batch", "rounds") if (value := getattr(arguments, key))
    ]
    words += [f"--variants {' '.join(map(str, arguments.variants))}"] if arguments.variants else []
    return [
        f"{datetime.date.today()}, {here.describe()}, {versions}, commit {environment()['git_commit']}; peak: {peak}. Median "
        "[least, most] over turns. Made by",
        "",
        f"    python benchmarks/network.py {' '.join(words)} --write docs/performance.md",
    ]


def table(rows: Sequence[Row]) -> list[str]:
    """Return a Markdown table of all rows; ratios are to diffusers' fp32 eager, or, without it, to the first
    row's variant.
    """
    base = THEIRS if any(row.variant == THEIRS for row in rows) else rows[0].variant
    peak = f"share of {rows[0].peak / 1000:.3g} TFLOP/s"
    lines = [
        f"| network | stage | batch | variant | images/s | images/s over all T | ratio to {base} | {peak} | memory, GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        steps = preset(row.network).diffusion.timesteps
        whole = f"{row.speed / steps:.3g}" if row.stage == "sampling" else ""
        share = f"{row.gigaflop * row.speed / row.peak:.0%}"
        cells = [
            row.network,
            row.stage,
            row.batch,
            row.variant,
            spread(row.speeds),
            whole,
            ratio(row, base, rows),
            share,
        ]
        lines.append("| " + " | ".join(map(str, [*cells, f"{row.memory_bytes / 1e9:.2f}"])) + " |")
    return lines


def ratio(row: Row, base: Variant, rows: Sequence[Row]) -> str:
    """Return the ratio of a row's speed to the base variant's in the same rounds."""
    for other in rows:
        if (other.network, other.stage, other.variant) == (row.network, row.stage, base):
            return spread([a / b for a, b in zip(row.speeds, other.speeds, strict=True)])
    return ""


def hours_table(rows: Sequence[Row], device: str) -> list[str]:
    """Return the hours of a preset's training, samples and bound at the speeds that the program's defaults
    have here.
    """
    default = {
        "training": Variant("ours", "bf16", "compiled")
        if device == "cuda"
        else Variant("ours", "fp32", "eager"),
        "sampling": Variant("ours", "fp32", "compiled" if device == "cuda" else "eager"),
    }
    speeds = {(row.network, row.stage): row.speed for row in rows if row.variant == default[row.stage]}
    lines = [
        f"| network | training ({default['training']}) | hours | samples ({default['sampling']}) | hours "
        f"| all T terms of {LIKELIHOOD_IMAGES:,} images, hours |",
        "|---|---|---|---|---|---|",
    ]
    for network in dict.fromkeys(row.network for row in rows):
        if not all((network, stage) in speeds for stage in STAGES):
            continue
        spec = preset(network)
        train, n, steps = spec.train, spec.evaluation.n_samples, spec.diffusion.timesteps
        seconds = {n: n * steps / speeds[network, "sampling"] for n in (n, LIKELIHOOD_IMAGES)}
        cells = [network, f"{train.steps:,} x {train.batch_size} images"]
        cells += [
            hours(train.steps * train.batch_size / speeds[network, "training"]),
            f"{n:,}",
            hours(seconds[n]),
        ]
        lines.append("| " + " | ".join([*cells, hours(seconds[LIKELIHOOD_IMAGES])]) + " |")
    return lines


def spread(values: Sequence[float]) -> str:
    """Return the median and the range."""
    return f"{statistics.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"


def hours(seconds: float) -> str:
    """Return seconds in hours."""
    return f"{seconds / 3600:.2g}" if seconds < 36_000 else f"{seconds / 3600:,.0f}"


def insert(document: Path, subject: str, text: str) -> None:
    """Put text between a subject's marks in a document."""
    head, tail = around(document, subject)
    document.write_text(f"{head}\n\n{text}\n\n{tail}")


def around(document: Path, subject: str) -> tuple[str, str]:
    """Return a document up to and from a subject's marks; raise ValueError if it has none."""
    begin, end = f"<!-- {subject} -->", f"<!-- end of {subject} -->"
    match = re.fullmatch(f"(.*{begin}).*({end}.*)", document.read_text(), re.DOTALL)
    if match is None:
        raise ValueError(f"{document} has no place for these tables: {begin} ... {end}")
    return match[1], match[2]


def parse() -> argparse.Namespace:
    """Read the options."""
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--threads", type=int, help="intra-operation CPU threads (default: torch's choice)")
    add("--rounds", type=int, help="turns of each variant (default 20, 9 and 7)")
    add(
        "--batch",
        type=int,
        help="images per update and step (default: on a CPU 128, 16 and 8, on a GPU the preset's)",
    )
    add("--variants", nargs="+", type=Variant.parse, help=f"default: {' '.join(map(str, (*OURS, THEIRS)))}")
    add("--write", type=Path, help="document in which to replace these networks' tables")
    return parser.parse_args()


if __name__ == "__main__":
    main()
