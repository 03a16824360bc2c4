"""From sections to report.md and index.html.

A report is a list of sections, each plain text with tables and figures that already lie below the report's
folder. index.html holds everything within itself, figures, styles and scripts: it opens from disk, can be
mailed alone, and loads nothing; without scripts its figures and tables remain. Both files are written again
whenever a result is added, and each is replaced in one step, so that a reader never sees half of it. Links to
the files of tables and figures are relative: the folder can be moved or published as it is.
Importing this module needs neither torch nor matplotlib.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from ddpm_eval.files import write_text
from ddpm_eval.reporting import colours
from ddpm_eval.reporting.inline_figures import inline_png, inline_svg
from ddpm_eval.reporting.interactive_data import choice_data, curve_data, slider_data
from ddpm_eval.reporting.mosaics import data_uri, mosaic, png
from ddpm_eval.reporting.report_parts import (
    Choice,
    Curve,
    Finding,
    Illustration,
    Picture,
    ProgressiveSlider,
    ProvenanceRow,
    Section,
    Table,
    markdown_text,
)

FILES = ("report.md", "index.html")
HERE = Path(__file__).parent
STYLES = ("vendor/uplot/uPlot.min.css", "templates/page.css")
SCRIPTS = (
    "vendor/uplot/uPlot.iife.min.js",
    *(f"templates/{name}.js" for name in ("charts", "slider", "choice", "tables", "contents")),
)
"""What the page needs, in this order; the vendored files are as their project published them."""


def write_report(
    folder: Path,
    title: str,
    sections: Sequence[Section],
    provenance: Sequence[ProvenanceRow] = (),
    summary: Mapping[str, str] | None = None,
    *,
    headline: Sequence[Finding] = (),
    claims: Section | None = None,
) -> Path:
    """Write report.md and index.html, replacing earlier ones.

    Args:
        folder: of the report; tables and figures must lie below it.
        title: of the report.
        sections: in order; those without text, tables and figures are shown as not yet measured.
        provenance: one row for each stored result.
        summary: labelled texts, such as the preset, the data set and what is still missing.
        headline: what was found, shown first.
        claims: what the results say of the paper's claims, shown next.

    Returns:
        The path of index.html.

    Raises:
        ValueError: if a table or figure lies outside the folder or does not exist, or the report cannot be
            written.
    """
    parts = [*([claims] if claims is not None else []), *sections]
    content = {
        "title": title,
        "summary": dict(summary or {}),
        "headline": [_finding_content(finding) for finding in headline],
        "sections": [_section_content(folder, section) for section in parts],
        "light": colours.LIGHT,
        "dark": colours.DARK,
        "styles": Markup("\n".join(_own_text(name) for name in STYLES)),
        "scripts": [Markup(_own_text(name)) for name in SCRIPTS],
        **_provenance_content(provenance),
    }
    for name in FILES:
        write_text(folder / name, _environment(name).get_template(f"{name}.j2").render(content))
    return folder / FILES[-1]


def _finding_content(finding: Finding) -> dict[str, object]:
    picture = None if finding.picture is None else _picture_content(finding.picture)
    return {
        "label": finding.label,
        "value": finding.value,
        "sentence": finding.sentence,
        "picture": picture,
    }


def _picture_content(picture: Picture) -> dict[str, str]:
    source = data_uri(png(mosaic(picture.images, picture.columns)))
    return {"source": source, "alternative": picture.alternative}


def _section_content(folder: Path, section: Section) -> dict[str, object]:
    """Put a section into the templates' terms, with paths relative to the report."""
    curves = [part for part in section.interactive if isinstance(part, Curve)]
    sliders = [part for part in section.interactive if isinstance(part, ProgressiveSlider)]
    choices = [part for part in section.interactive if isinstance(part, Choice)]
    return {
        "title": section.title,
        "anchor": section.anchor,
        "paragraphs": section.paragraphs,
        "tables": [_table_content(folder, table) for table in section.tables],
        "figures": [_figure_content(folder, figure, curves) for figure in section.figures],
        "sliders": [
            {"title": slider.title, "caption": slider.caption, "data": slider_data(slider)}
            for slider in sliders
        ],
        "choices": [
            {"title": choice.title, "caption": choice.caption, "data": choice_data(choice)}
            for choice in choices
        ],
    }


def _table_content(folder: Path, table: Table) -> dict[str, object]:
    values = table.values or table.rows
    return {
        "caption": table.full_caption,
        "name": table.stem.name,
        "header": list(zip(table.header, table.numeric, table.columns or table.header, strict=True)),
        "rows": [
            list(zip(cells, table.numeric, raw, strict=True))
            for cells, raw in zip(table.rows, values, strict=True)
        ],
        "cells": table.rows,
        "path": _relative(folder, table.stem, ".csv", ".md", ".tex"),
    }


def _figure_content(folder: Path, figure: Illustration, curves: Sequence[Curve]) -> dict[str, object]:
    path = _relative(folder, figure.stem, ".svg", ".png", ".pdf", ".csv")
    name = figure.stem.name
    alternative = f"{figure.caption} {figure.alternative}".strip()
    return {
        "caption": figure.caption,
        "alternative": alternative,
        "name": name,
        "path": path,
        "image": inline_png(figure.stem.with_suffix(".png")) if figure.of_images else "",
        "svg": ""
        if figure.of_images
        else Markup(inline_svg(figure.stem.with_suffix(".svg"), name, alternative)),
        "curves": [curve_data(curve) for curve in curves if curve.figure == name],
    }


def _provenance_content(provenance: Sequence[ProvenanceRow]) -> dict[str, object]:
    """Split the rows into what all results share, which is said once, and the table of the rest."""
    rows = [{name.replace("_", " "): text for name, text in vars(row).items()} for row in provenance]
    names = [name for name in (rows[0] if rows else {}) if any(row[name] for row in rows)]
    several = len(rows) > 1
    shared = [name for name in names if several and all(row[name] == rows[0][name] for row in rows)]
    columns = [name for name in names if name not in shared]
    return {
        "shared": {name: rows[0][name] for name in shared},
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
def _own_text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@cache
def _environment(name: str) -> jinja2.Environment:
    """Return how the templates of a file are filled in; no text of a result becomes markup."""
    html = name.endswith(".html")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ddpm_eval.reporting", "templates"),
        autoescape=html,
        finalize=None if html else _finalize_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda text: text.replace("|", "\\|")
    return environment


def _finalize_markdown(value: object) -> object:
    return markdown_text(value) if isinstance(value, str) else value
