"""Tables in LaTeX with booktabs: plainly, or in a layout of the paper's.

A layout is written in LaTeX; the cells and the caption are plain text and escaped here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ddpm_eval.reporting.report_parts import Table

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


@dataclass(frozen=True)
class LatexLayout:
    """How the paper sets a table.

    Attributes:
        label: heading of the first column.
        rows: first cell of each row.
        columns: headings of the further columns by their names in the CSV; the table's own where empty.
        groups: titles above rows, by the position of the row that follows.
        spans: titles above the further columns, with the number of columns of each.
    """

    label: str
    rows: Sequence[str]
    columns: Mapping[str, str]
    groups: Mapping[int, str] = field(default_factory=dict)
    spans: Sequence[tuple[str, int]] = ()


def latex_table(table: Table, layout: LatexLayout | None = None) -> str:
    """Return a table environment that needs booktabs; without a layout with all of the table's columns."""
    body = _plain_body(table) if layout is None else _body(table, layout)
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape(table.full_caption)}}}",
        *body,
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Return plain text as LaTeX, on one line."""
    return "".join(SPECIAL.get(character, character) for character in " ".join(text.splitlines()))


def _plain_body(table: Table) -> list[str]:
    places = "".join("r" if right else "l" for right in table.numeric)
    rows = [_line(map(escape, cells)) for cells in table.rows]
    return _tabular(places, [_line(map(escape, table.header))], rows)


def _body(table: Table, layout: LatexLayout) -> list[str]:
    """Choose the layout's columns, and put its titles above rows and columns."""
    chosen = [table.columns.index(name) for name in layout.columns]
    headings = [
        heading or escape(table.header[position])
        for position, heading in zip(chosen, layout.columns.values(), strict=True)
    ]
    rows: list[str] = []
    for position, (label, cells) in enumerate(zip(layout.rows, table.rows, strict=True)):
        if position in layout.groups:
            space = [r"\addlinespace"] if rows else []
            title = rf"\multicolumn{{{len(chosen) + 1}}}{{l}}{{\textbf{{{layout.groups[position]}}}}}"
            rows += [*space, rf"{title} \\"]
        indent = r"\quad " if layout.groups else ""
        rows.append(_line([indent + label, *(escape(cells[k]) for k in chosen)]))
    head = [*_spans(layout.spans), _line([layout.label, *headings])]
    return _tabular("l" + "r" * len(chosen), head, rows)


def _spans(spans: Sequence[tuple[str, int]]) -> list[str]:
    """Return the line of titles above columns, and the rules below it."""
    if not spans:
        return []
    rules = []
    first = 2
    for _, columns in spans:
        rules.append(rf"\cmidrule(lr){{{first}-{first + columns - 1}}}")
        first += columns
    titles = [rf"\multicolumn{{{columns}}}{{c}}{{{title}}}" for title, columns in spans]
    return [_line(["", *titles]), " ".join(rules)]


def _tabular(places: str, head: Sequence[str], rows: Sequence[str]) -> list[str]:
    return [
        rf"\begin{{tabular}}{{{places}}}",
        r"\toprule",
        *head,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
