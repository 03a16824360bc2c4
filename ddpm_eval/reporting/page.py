"""From sections to report.md and index.html.

A report is a list of sections, each plain text with tables and figures that already lie below the report's
folder. It is written again whenever a result is added, and each file is replaced in one step, so that a
reader never sees half of it. Paths in it are relative: the folder can be moved or published as it is.
Importing this module needs neither torch nor matplotlib.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import jinja2

from ddpm_eval.files import write_text
from ddpm_eval.reporting.report_parts import ProvenanceRow, Section

FILES = ("report.md", "index.html")


def write_report(
    folder: Path,
    title: str,
    sections: Sequence[Section],
    provenance: Sequence[ProvenanceRow] = (),
    summary: Mapping[str, str] | None = None,
) -> Path:
    """Write report.md and index.html, replacing earlier ones.

    Args:
        folder: of the report; tables and figures must lie below it.
        title: of the report.
        sections: in order; those without text, tables and figures are shown as not yet measured.
        provenance: one row for each stored result.
        summary: labelled texts at the top, such as the preset, the data set and what is still missing.

    Returns:
        The path of index.html.

    Raises:
        ValueError: if a table or figure lies outside the folder or does not exist, or the report cannot be
            written.
    """
    content = {
        "title": title,
        "summary": dict(summary or {}),
        "sections": [_section_content(folder, section) for section in sections],
        **_provenance_content(provenance),
    }
    for name in FILES:
        write_text(folder / name, _environment().get_template(f"{name}.j2").render(content))
    return folder / FILES[-1]


def _section_content(folder: Path, section: Section) -> dict[str, object]:
    """Put a section into the templates' terms, with paths relative to the report."""
    tables = [
        {
            "caption": table.caption,
            "header": table.header,
            "rows": table.rows,
            "path": _relative(folder, table.stem, ".csv", ".md", ".tex"),
        }
        for table in section.tables
    ]
    figures = [
        {"caption": figure.caption, "path": _relative(folder, figure.stem, ".png", ".pdf", ".csv")}
        for figure in section.figures
    ]
    return {"title": section.title, "paragraphs": section.paragraphs, "tables": tables, "figures": figures}


def _provenance_content(provenance: Sequence[ProvenanceRow]) -> dict[str, object]:
    """Split the rows into what all results share, which is said once, and the table of the rest."""
    rows = [{name.replace("_", " "): text for name, text in vars(row).items()} for row in provenance]
    names = list(rows[0]) if rows else []
    several = len(rows) > 1
    shared = [name for name in names if several and all(row[name] == rows[0][name] for row in rows)]
    columns = [name for name in names if name not in shared]
    return {
        "shared": {name: rows[0][name] for name in shared if rows[0][name]},
        "columns": columns,
        "provenance": [[row[name] for name in columns] for row in rows],
    }


def _relative(folder: Path, stem: Path, *suffixes: str) -> str:
    """Return the path of a table or figure below the report's folder, without a suffix."""
    for path in (stem.with_suffix(suffix) for suffix in suffixes):
        if not path.exists():
            raise ValueError(
                f"the report needs {path}, which does not exist (was it deleted while the report was "
                "written?)"
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
