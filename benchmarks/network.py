"""Speed and memory of training and sampling: our program in several variants, and diffusers'.

    python benchmarks/network.py [--networks digits cifar10-tiny ...] [--device cpu|cuda] [--threads N]
                                 [--rounds N] [--variants ours/fp32/eager ...] [--write docs/performance.md]

Each variant runs in a process of its own, with the settings its users get. In each round every variant has
one turn (first, second, ..., first, ...), so that a busy machine slows all. A turn is one update, or one step
of the reverse process of a batch, after warm-up; on a GPU, and of the digits' network, it is 20 of them
without a pause. Reported are the median and the range over the rounds; the ratio is of the same round. The
share of the peak is the arithmetic of the network's layers (forward, or forward and backward) per second,
over the most that one large 3x3 convolution (CPU, float32) or an 8192 matrix product (GPU, bfloat16) reaches
before or after. On a CPU our upsampling needs less arithmetic than its layers are counted with.
"""

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
from network_tables import THEIRS, Row, around, caption, hours_table, insert, spread, table
from network_turns import STAGES, TURNS, Turn, Variant, gigaflop_per_image, installed

from ddpm_eval.runtime import Runtime, start
from ddpm_eval.spec import RunSpec
from experiments.paper.presets import preset

NETWORKS = ("digits", "cifar10-tiny", "cifar10-small", "cifar10")
CPU_BATCH = {"digits": 128, "cifar10-tiny": 64, "cifar10-small": 16, "cifar10": 8}
"""Images per update and step on a CPU; on a GPU they are the preset's."""
ROUNDS = {"digits": 20, "cifar10-tiny": 9, "cifar10-small": 9, "cifar10": 7}
WARM_UP_TURNS = 3
QUICK_STEPS = 20
"""Updates or steps of one turn where one takes milliseconds: on a GPU, and of the digits' network."""
OURS = tuple(
    Variant("ours", precision, mode) for precision in ("fp32", "bf16") for mode in ("eager", "compiled")
)


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
            for row in found:
                print(f"{network} {stage} {row.variant}: {spread(row.speeds)} images/s", flush=True)
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


def measure(
    network: str, stage: str, variants: Sequence[Variant], here: Runtime, arguments: argparse.Namespace
) -> list[Row]:
    """Let the variants take turns; one that ends early (out of memory, no compiler) is left out."""
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
    context = multiprocessing.get_context("spawn")
    pipes: dict[Variant, Connection] = {}
    memory: dict[Variant, int] = {}
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
                taken = pipe.recv()
                if turn >= WARM_UP_TURNS:
                    seconds[variant].append(taken)
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
    """Answer each call of the pipe with the seconds of a turn, and the last with the memory taken."""
    runtime = runtime_of(variant, device, threads)
    step = TURNS[variant.project, stage](spec, runtime, variant)
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


def memory_taken(device: torch.device) -> int:
    """Return the most bytes that this process has taken: of the GPU's memory, or in all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    # getrusage would count what the parent held when this process began
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def wait(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured_peak(runtime: Runtime) -> float:
    """Return GFLOP/s of a 256-channel 3x3 convolution (CPU, float32) or an 8192 product (GPU, bfloat16)."""
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
    add("--rounds", type=int, help="how often each variant is timed (default 20, 9, 9 and 7)")
    add(
        "--batch",
        type=int,
        help="images per update and step (default: on a CPU 128, 64, 16 and 8, on a GPU the preset's)",
    )
    add("--variants", nargs="+", type=Variant.parse, help=f"default: {' '.join(map(str, (*OURS, THEIRS)))}")
    add("--write", type=Path, help="document in which to replace these networks' tables")
    return parser.parse_args()


if __name__ == "__main__":
    main()
