"""Everything of a preset or of one given run: the jobs of all experiments, and the report of whatever is
stored.
"""

from collections.abc import Iterable
from pathlib import Path

from ddpm_eval.reporting import analyse, intervals, page, render
from ddpm_eval.results.records import QUALITY_OVER_STEPS, QUALITY_OVER_TIME, Quality, TrainingLog
from ddpm_eval.results.store import Entry
from ddpm_eval.stages.scheduler import Job
from experiments import (
    ablation,
    description,
    interpolation,
    progressive,
    quality_curves,
    rate_distortion,
    sample_quality,
    training,
)
from experiments.paper.presets import MAIN_CELL, against_the_paper
from experiments.workspace import Workspace

MAIN_STAGES = (
    "train",
    "reals",
    "baseline",
    "bound-train",
    "bound-test-protocols",
    "progressive",
    "sample",
    "quality",
    "bound-test-chains",
    QUALITY_OVER_TIME,
    *QUALITY_OVER_STEPS.values(),
    "neighbours",
    "interpolate",
)

UNITS = {
    "TrainingLog": "the objective's",
    "ScheduleTables": "variance",
    "FullBoundTerms": "nats per image and step",
    "StratifiedBoundTerms": "nats per image and step",
    "BoundHistory": "bits/dim",
    "Quality": "none; distances in squared features",
    "QualityCurve": "none; distances in squared features",
    "Samples": "8-bit levels",
    "ReferenceImages": "8-bit levels",
    "Trajectory": "8-bit levels",
    "Interpolations": "8-bit levels",
    "Baseline": "nats per image",
    "Neighbours": "8-bit levels; feature units",
}

DIMENSIONS = {"image": "images", "sample": "samples", "update": "updates", "pair": "pairs", "t": "steps"}


def jobs(workspace: Workspace) -> list[Job]:
    """Return all jobs of a preset, the paper's model first; of a given run its own."""
    others = ablation.jobs(workspace)[1:] if workspace.given is None else []
    return [workspace.job(MAIN_CELL, MAIN_STAGES), *others]


MAIN_SECTIONS = (
    rate_distortion.section,
    rate_distortion.protocols_section,
    rate_distortion.chains_section,
    progressive.section,
    quality_curves.over_time,
    quality_curves.over_steps,
    sample_quality.neighbours_section,
    interpolation.section,
)
"""Sections that depend on the paper's model alone."""


def write(workspace: Workspace, kept: dict[int, list[page.Section]] | None = None) -> Path:
    """Write the report of a preset or of a given run from what is stored; return the path of its page.

    Args:
        workspace: where.
        kept: sections of the paper's model that an earlier call in this process rendered; filled and reused
            while that model's results do not change.
    """
    kept = {} if kept is None else kept
    results = workspace.folder() / "results.h5"
    stamp = results.stat().st_mtime_ns if results.exists() else 0
    if stamp not in kept:
        kept.clear()
        kept[stamp] = [section(workspace) for section in MAIN_SECTIONS]
    overview = [sample_quality.section(workspace)]
    if workspace.given is None:
        overview.append(ablation.section(workspace))
    sections = [
        *overview,
        *kept[stamp],
        sample_quality.every_figure(workspace),
        sample_quality.table1(workspace),
        training.section(workspace),
    ]
    title = f"Denoising diffusion on {workspace.spec().data.name}: sample quality, bound, rate and distortion"
    return page.write_report(workspace.report, title, sections, list(_facts(workspace)), _head(workspace))


PAPER = "Ho, Jain, Abbeel, Denoising Diffusion Probabilistic Models, NeurIPS 2020"


def _head(workspace: Workspace) -> dict[str, str]:
    if workspace.given is not None:
        folder = workspace.folder()
        return {"Run": str(folder), **description.of_run(folder / "results.h5"), "Paper": PAPER}
    spec = workspace.spec()
    return {
        "Preset": spec.preset,
        "Data": f"{spec.data.name}, {spec.data.channels} x {spec.data.side} x {spec.data.side}",
        "Paper": PAPER,
        "Against the paper": against_the_paper(spec),
        "Settings": ", ".join(f"{key}={value}" for key, value in workspace.settings.items())
        or "the preset's",
        "Seed": str(workspace.seed),
    }


def summary(workspace: Workspace, job: Job) -> str:
    """Say in one line what is known of a job's run."""
    cell = next(cell for cell in workspace.cells if workspace.folder(cell) == job.folder)
    log, bound = workspace.result("training", TrainingLog, cell), workspace.bound(cell)
    if log is not None and log.diverged:
        return f"diverged, {log.reason}"
    parts = []
    if bound is not None:
        row = analyse.split_table(bound, job.spec.diffusion.variance).set_index("quantity").loc["total"]
        parts.append(f"{render.format_estimate(row['bits_per_dim'], row['low'], row['high'])} bits/dim")
    quality = workspace.result("quality", Quality, cell)
    if quality is not None:
        distance = (quality.frechet_distance, quality.frechet_distance_low, quality.frechet_distance_high)
        parts.append(f"{quality.distance_name} {render.format_estimate(*distance)}")
    return ", ".join(parts) or "trained"


def _facts(workspace: Workspace) -> Iterable[page.Fact]:
    for cell in workspace.cells:
        for name, entry in workspace.entries(cell).items():
            yield page.fact(
                workspace.folder(cell).resolve().name,
                name,
                entry.provenance,
                n=_count(entry),
                unit=UNITS[entry.record],
                interval=_interval(entry),
                protocol=_protocol(entry),
            )


def _count(entry: Entry) -> str:
    if "n_samples" in entry.scalars:
        return f"{entry.scalars['n_samples']} samples"
    for dimension, word in DIMENSIONS.items():
        for length in (size for array in entry.sizes for name, size in array if name == dimension):
            return f"{length} {word}"
    return ""


def _interval(entry: Entry) -> str:
    if entry.record == "StratifiedBoundTerms":
        return "95%, from the differences of images with neighbouring offsets (docs/protocol.md)"
    if "Atoms" in entry.record or entry.record == "BoundHistory":
        return intervals.METHOD
    return "see docs/quality.md" if entry.record in ("Quality", "QualityCurve", "Neighbours") else "none"


def _protocol(entry: Entry) -> str:
    from ddpm_eval.protocol import Protocol

    if "terms" in entry.arrays or entry.record == "BoundHistory":
        return Protocol.model_validate_json(entry.scalars["protocol"]).caption()
    return str(entry.scalars.get("caption") or entry.scalars.get("method") or "")
