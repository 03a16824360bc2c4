"""docs/fields.md says of every field what the records say."""

import sys
from dataclasses import fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import field_tables  # noqa: E402

from experiments.csv_columns import COMPARISON, REPORT  # noqa: E402


def test_the_page_is_what_the_records_declare():
    assert (ROOT / "docs" / "fields.md").read_text() == field_tables.page(), (
        "docs/fields.md and the records differ: run python benchmarks/field_tables.py"
    )


def test_every_field_of_every_record_has_its_row():
    names = {record.__name__ for record in field_tables.record_types()}
    assert {"TrainingLog", "Quality", "FullBoundTerms", "StratifiedBoundTerms"} <= names
    text = field_tables.page().partition(field_tables.OF_REPORTS)[0]
    rows = sum(len(fields(record)) for record in field_tables.record_types())
    assert text.count("\n| `") - field_tables.HEAD.count("\n| `") == rows
    assert "| `loss` | array [update] | nats or squared error, as the objective | loss of each" in text


def test_every_column_of_every_csv_file_has_its_row():
    text = field_tables.page().partition(field_tables.OF_REPORTS)[2]
    files = (*REPORT, *COMPARISON)
    assert text.count("\n| `") == sum(len(file.described()) for file in files)
    assert "| `psnr_db` | dB | peak signal-to-noise ratio of rmse_255 |" in text
    assert all(f"`{name}.csv`" in text for file in files for name in file.names.split())
