"""Write docs/fields.md: every field of every record, and every column of every CSV file of a report.

    python benchmarks/field_tables.py

Tests hold the page to the records, and the dictionary of columns to what reports write.
"""

from dataclasses import fields
from pathlib import Path

from ddpm_eval.results import bound_terms, records
from ddpm_eval.results.fields import Record
from experiments.csv_columns import COMPARISON, REPORT, CsvFile

PAGE = Path(__file__).resolve().parents[1] / "docs" / "fields.md"
MODULES = (records, bound_terms)
HEADINGS = ("| field | kind | unit | meaning |", "| --- | --- | --- | --- |")
COLUMN_HEADINGS = ("| column | unit | meaning |", "| --- | --- | --- |")
OF_REPORTS = """## Columns of a report's CSV files

Paths are below the report's folder. A row below stands for an estimate's bounds, too: `x` for `x_low` and
`x_high`, and the estimate of the row for `low` and `high`.
"""
OF_COMPARISONS = """## Columns of the CSV files of `compare`
"""
HEAD = """# Fields and columns

A run's `results.h5` holds records. Each field below has its dimensions, its unit and its meaning, which the
file carries, too; `python cli.py show RUN` lists what is stored. This page is written by
`python benchmarks/field_tables.py`.

The [columns of the CSV files](#columns-of-a-reports-csv-files) of a report, and of the page of `compare`,
follow the records. They keep this form:

| column | holds |
| --- | --- |
| `x`, `x_low`, `x_high` | an estimate and the bounds of its 95% interval; empty where nothing was measured |
| `low`, `high` | the bounds of `value` or `bits_per_dim`, where each row holds one estimate |
| `..._bits_per_dim` | nats per image divided by (elements of an image times ln 2) |
| `rmse_255` | a root mean squared error on the scale of 8-bit levels |
| `n_...` | how many images or samples are behind the row |
| `paper_...` | what the paper published, of CIFAR-10; empty where it printed nothing |
| `features` | the extractor in whose features scores and distances were measured |
| `t`, `reverse_steps` | the time of a step, 1 to T, and the steps taken from T on: T - t + 1 |
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page in Markdown."""
    files = [OF_REPORTS, *map(_file, REPORT), OF_COMPARISONS, *map(_file, COMPARISON)]
    return "\n".join([HEAD, *map(_section, record_types()), *files])


def _file(file: CsvFile) -> str:
    """Return the table of the columns of a CSV file."""
    names = ", ".join(f"`{name}.csv`" for name in file.names.split())
    lines = [f"**{names}**: a row is {file.rows}.", "", *COLUMN_HEADINGS]
    for name, column in file.described().items():
        lines.append(f"| `{name}` | {column.unit} | {column.meaning} |")
    return "\n".join([*lines, ""])


def record_types() -> list[type[Record]]:
    """Return the types of all records, in the order of their modules."""
    return [
        value for module in MODULES for value in vars(module).values() if _is_record(value, module.__name__)
    ]


def _is_record(value: object, module: str) -> bool:
    return isinstance(value, type) and issubclass(value, Record) and value.__module__ == module


def _section(record_type: type[Record]) -> str:
    """Return the table of one record's fields below its sentence."""
    sentence = (record_type.__doc__ or "").strip().splitlines()[0]
    lines = [f"## {record_type.__name__}", "", sentence, "", *HEADINGS]
    for field in fields(record_type):
        dims = " x ".join(field.metadata.get("dims", ()))
        kind = f"{field.metadata['kind']} [{dims}]" if dims else field.metadata["kind"]
        meaning = field.metadata["meaning"].replace("|", "\\|")
        lines.append(f"| `{field.name}` | {kind} | {field.metadata['unit']} | {meaning} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
