"""From rendered tables and figures to report.md and index.html.

A report is a list of sections, each plain text with tables and figures that already lie below the report's
folder. It is written again whenever a result is added, and replaced in one step, so a reader never sees half
of it. Paths in it are relative: the folder can be moved or published as it is. Importing this module needs
neither torch nor matplotlib.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

if TYPE_CHECKING:
    from ddpm_eval.reporting.render import Illustration, Table

FILES = ("report.md", "index.html")


@dataclass(frozen=True)
class Section:
    """A part of the report. ``text`` is plain paragraphs, separated by blank lines."""

    title: str
    text: str = ""
    tables: "Sequence[Table]" = ()
    figures: "Sequence[Illustration]" = ()

    @property
    def paragraphs(self) -> list[str]:
        """The text's paragraphs, each on one line."""
        return [" ".join(part.split()) for part in self.text.split("\n\n") if part.strip()]


@dataclass(frozen=True)
class Fact:
    """How one stored result came about: a row of the report's last table."""

    run: str
    result: str
    n: str
    unit: str
    interval: str
    protocol: str
    device: str
    wall_time: str
    versions: str
    commit: str
    created: str


def write_report(
    folder: Path,
    title: str,
    sections: Sequence[Section],
    facts: Sequence[Fact] = (),
    summary: Mapping[str, str] | None = None,
) -> Path:
    """Write report.md and index.html, atomic_write earlier ones.

    Args:
        folder: of the report; tables and figures must lie below it.
        title: of the report.
        sections: in order; those without text, tables and figures are shown as not yet measured.
        facts: one per stored result.
        summary: labelled facts at the top, such as the preset, the data set and what is still missing.

    Returns:
        The path of index.html.

    Raises:
        ValueError: if a table or figure lies outside the folder or does not exist.
    """
    content = {
        "title": title,
        "summary": dict(summary or {}),
        "sections": [_view(folder, section) for section in sections],
        **_facts(facts),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        _replace(folder / name, _environment().get_template(f"{name}.j2").render(content))
    return folder / FILES[-1]


def fact(
    run: str, result: str, provenance: Mapping[str, Any], *, n: str, unit: str, interval: str, protocol: str
) -> Fact:
    """Make a row from a stored result's provenance (`ddpm_eval.results.store.Entry`); what it does not say is
    left blank.

    Args:
        run: the run's name.
        result: the result's name in the store.
        provenance: its keys ``versions``, ``git_commit``, ``device``, ``wall_seconds`` and ``created`` are
            shown.
        n: how many of what, such as ``360 images``.
        unit: of the numbers.
        interval: how the interval was made, or ``none``.
        protocol: every choice that changes the number.
    """
    versions = ", ".join(f"{name} {version}" for name, version in provenance.get("versions", {}).items())
    return Fact(
        run=run,
        result=result,
        n=n,
        unit=unit,
        interval=interval,
        protocol=protocol,
        device=str(provenance.get("device", "")),
        wall_time=format_seconds(provenance.get("wall_seconds")),
        versions=f"Python {provenance['python']}, {versions}" if "python" in provenance else versions,
        commit=str(provenance.get("git_commit", "")),
        created=str(provenance.get("created", "")),
    )


def format_seconds(seconds: float | None) -> str:
    """Format a duration: ``8.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _view(folder: Path, section: Section) -> dict[str, Any]:
    """Put a section into the templates' terms, with paths relative to the report."""
    tables = [
        {
            "caption": t.caption,
            "header": t.header,
            "rows": t.rows,
            "path": _relative(folder, t.stem, ".csv", ".md", ".tex"),
        }
        for t in section.tables
    ]
    figures = [
        {"caption": f.caption, "path": _relative(folder, f.stem, ".png", ".pdf", ".csv")}
        for f in section.figures
    ]
    return {"title": section.title, "paragraphs": section.paragraphs, "tables": tables, "figures": figures}


def _facts(facts: Sequence[Fact]) -> dict[str, Any]:
    """Split facts into those that all results share, said once, and the table of the others."""
    rows = [{name.replace("_", " "): text for name, text in vars(fact).items()} for fact in facts]
    shared = {
        name: text
        for name, text in (rows[0] if len(rows) > 1 else {}).items()
        if all(row[name] == text for row in rows)
    }
    columns = [name for name in (rows[0] if rows else {}) if name not in shared]
    return {
        "shared": {name: text for name, text in shared.items() if text},
        "columns": columns,
        "facts": [[row[name] for name in columns] for row in rows],
    }


def _relative(folder: Path, stem: Path, *suffixes: str) -> str:
    for path in (stem.with_suffix(suffix) for suffix in suffixes):
        if not path.exists():
            raise ValueError(
                f"the report needs {path}, which does not exist (was it deleted while the report was written?)"
            )
    try:
        return stem.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        raise ValueError(
            f"{stem} lies outside the report's folder {folder}, so the report could not be moved"
        ) from None


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ddpm_eval.reporting", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda text: text.replace("|", "\\|").replace("\n", " ")
    return environment


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
