"""The tables of measured speeds, in Markdown, and their places in a document."""

import argparse
import datetime
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from network_turns import STAGES, Variant, installed

from ddpm_eval.results.provenance import environment
from ddpm_eval.runtime import Runtime
from experiments.paper.presets import preset

LIKELIHOOD_IMAGES = 10_000
THEIRS = Variant("diffusers", "fp32", "eager")
DEFAULTS = {
    "cpu": {"training": Variant("ours", "fp32", "eager"), "sampling": Variant("ours", "fp32", "eager")},
    "cuda": {
        "training": Variant("ours", "bf16", "compiled"),
        "sampling": Variant("ours", "fp32", "compiled"),
    },
}
"""How the program trains and samples on each kind of device unless it is told otherwise."""


@dataclass(frozen=True)
class Row:
    """What was measured of one variant.

    Attributes:
        network: the preset.
        stage: ``training`` or ``sampling``.
        variant: whose program.
        batch: images per update or step.
        speeds: images per second in each round; in sampling, of one step of T.
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


def caption(network: str, here: Runtime, arguments: argparse.Namespace) -> list[str]:
    """Say when, where, with what and by which command the tables were made."""
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "diffusers") if installed(name)
    )
    peak = "a bf16 matrix product" if here.device.type == "cuda" else "an fp32 convolution"
    given = {key: getattr(arguments, key) for key in ("threads", "batch", "rounds")}
    words = [f"--networks {network}", f"--device {here.device.type}"]
    words += [f"--{key} {value}" for key, value in given.items() if value]
    words += [f"--variants {' '.join(map(str, arguments.variants))}"] if arguments.variants else []
    commit = environment()["git_commit"]
    return [
        f"{datetime.date.today()}, {here.describe()}, {versions}, commit {commit}; peak: {peak}. "
        "Median [least, most] over rounds. Made by",
        "",
        f"    python benchmarks/network.py {' '.join(words)} --write docs/performance.md",
    ]


def table(rows: Sequence[Row]) -> list[str]:
    """Return a Markdown table; ratios are to diffusers' fp32 eager, or, without it, to the first row."""
    base = THEIRS if any(row.variant == THEIRS for row in rows) else rows[0].variant
    peak = f"share of {rows[0].peak / 1000:.3g} TFLOP/s"
    speeds = f"images/s | images/s over all T | ratio to {base}"
    lines = [
        f"| network | stage | batch | variant | {speeds} | {peak} | memory, GB |",
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
    """Return the hours of training, samples and bound at the speeds that the defaults have on a device."""
    default = DEFAULTS[device]
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
        n = spec.evaluation.n_samples
        images_per_second = speeds[network, "sampling"] / spec.diffusion.timesteps
        training_images = spec.train.steps * spec.train.batch_size
        cells = [
            network,
            f"{spec.train.steps:,} x {spec.train.batch_size} images",
            hours(training_images / speeds[network, "training"]),
            f"{n:,}",
            hours(n / images_per_second),
            hours(LIKELIHOOD_IMAGES / images_per_second),
        ]
        lines.append("| " + " | ".join(cells) + " |")
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
