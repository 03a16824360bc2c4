"""How each stored result came about, as rows of the report's last table.

What a row says is derived from the stored entry and from the metadata of the record's fields. Only how
intervals were made is listed here, in `INTERVALS`.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ddpm_eval.protocol import Protocol
from ddpm_eval.reporting import intervals
from ddpm_eval.reporting.report_parts import ProvenanceRow
from ddpm_eval.results import bound_terms, records
from ddpm_eval.results.fields import Record, array_fields, fields_of_kind

if TYPE_CHECKING:
    from ddpm_eval.results.store import Entry  # which imports h5py

RECORDS = {
    name: kind
    for module in (bound_terms, records)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Record)
}
COUNTED = {"image": "images", "sample": "samples", "update": "updates", "pair": "pairs", "t": "steps"}
"""Dimensions of which a result's n is the length, and what they count."""
NO_MEASURE = ("1", "id")
"""Units that say nothing of a measured quantity."""
STRATIFIED_METHOD = "95%, from the differences of images with neighbouring offsets (docs/protocol.md)"
INTERVALS = {
    "FullBoundTerms": intervals.METHOD,
    "StratifiedBoundTerms": STRATIFIED_METHOD,
    "BoundHistory": STRATIFIED_METHOD,
    "Baseline": intervals.METHOD,
    "SimpleCodes": intervals.METHOD,
    "Quality": "see docs/quality.md",
    "Coverage": "see docs/quality.md",
    "QualityCurve": "see docs/quality.md",
    "Neighbours": "see docs/quality.md",
}
"""How the intervals of a record's numbers are made; other records have none."""


def provenance_row(run: str, entry: "Entry") -> ProvenanceRow:
    """Say how a stored result came about; what its provenance does not say is left blank.

    Args:
        run: the run's name.
        entry: of the store.
    """
    provenance = entry.provenance
    return ProvenanceRow(
        run=run,
        result=entry.name,
        n=_count(entry),
        unit=display_unit(entry.record),
        interval=INTERVALS.get(entry.record, "none"),
        protocol=_protocol(entry),
        device=str(provenance.get("device", "")),
        wall_time=format_seconds(provenance.get("wall_seconds")),
        versions=_versions(provenance),
        commit=str(provenance.get("git_commit", "")),
        created=str(provenance.get("created", "")),
        weights=str(provenance.get("weights", "")),
        key=entry.key,
        command=str(provenance.get("command", "")),
        machine=_machine(provenance),
    )


def total_time(entries: Iterable["Entry"]) -> str:
    """Return how long it took to compute results, empty if that is not known of any.

    Results that were stored in one step, at the same moment, were computed together: their time counts once.
    """
    known = {
        entry.provenance.get("created", k): float(entry.provenance["wall_seconds"])
        for k, entry in enumerate(entries)
        if entry.provenance.get("wall_seconds") is not None
    }
    return format_seconds(sum(known.values())) if known else ""


def uncommitted(entries: Iterable["Entry"]) -> int:
    """Count the results that were computed by a program with uncommitted changes."""
    return sum(str(entry.provenance.get("git_commit", "")).endswith("-dirty") for entry in entries)


def display_unit(record: str) -> str:
    """Return the units of a record type's measured quantities, separated by semicolons.

    Args:
        record: the type's name, as in a stored entry; of a type that is not among `RECORDS`, such as that of
            a stage outside this package, no unit is known ("").
    """
    if record not in RECORDS:
        return ""
    kind = RECORDS[record]
    fields = (*array_fields(kind), *fields_of_kind(kind, "estimate"))
    units = dict.fromkeys(field.metadata["unit"] for field in fields)  # each once, in their order
    return "; ".join(unit for unit in units if unit not in NO_MEASURE) or "1"


def format_seconds(seconds: float | None) -> str:
    """Format a duration: ``8.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _count(entry: "Entry") -> str:
    """Say how many of what a result is made from."""
    if "n_samples" in entry.scalars:
        return f"{entry.scalars['n_samples']} samples"
    lengths = dict(item for array in entry.sizes for item in array)
    counts = [f"{lengths[dimension]} {word}" for dimension, word in COUNTED.items() if dimension in lengths]
    return counts[0] if counts else ""


def _protocol(entry: "Entry") -> str:
    """Return every choice that changes the numbers, as far as the record states it."""
    for field in fields_of_kind(RECORDS.get(entry.record, Record), "protocol"):
        return Protocol.model_validate_json(entry.scalars[field.name]).caption()
    return str(entry.scalars.get("caption") or entry.scalars.get("method") or "")


def _machine(provenance: Mapping[str, object]) -> str:
    """Name the processor, its cores and the operating system, as far as they were recorded."""
    cores = f"{provenance['cores']} cores" if "cores" in provenance else ""
    parts = (provenance.get("processor", ""), cores, provenance.get("system", ""))
    return ", ".join(str(part) for part in parts if part)


def _versions(provenance: Mapping[str, object]) -> str:
    packages = provenance.get("versions", {})
    assert isinstance(packages, Mapping)
    python = [f"Python {provenance['python']}"] if "python" in provenance else []
    return ", ".join(python + [f"{name} {version}" for name, version in packages.items()])
