"""The numbers in README.md are those of the committed report."""

import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import readme_tables  # noqa: E402


def test_the_results_are_those_of_the_committed_report():
    text = (ROOT / "README.md").read_text()
    assert readme_tables.results(readme_tables.TABLES) in text, (
        "README.md and reports/default differ: run python benchmarks/readme_tables.py"
    )


def test_every_claim_and_every_cell_has_its_row():
    text = readme_tables.results(readme_tables.TABLES)
    claims = pd.read_csv(readme_tables.TABLES / "claims.csv")
    assert all(f"| {row.claim} | {row.verdict} | " in text for row in claims.itertuples())
    assert sum(line.startswith(("| mu | ", "| eps | ")) for line in text.splitlines()) == 6


@pytest.mark.parametrize("several", [False, True])
def test_it_is_said_how_often_each_cell_was_trained(several):
    table = pd.read_csv(readme_tables.TABLES / "table2.csv").drop(columns="trainings", errors="ignore")
    if several:
        table["trainings"] = 3
    heading, _ = readme_tables._ablation(table, 1200)
    how = "means of 3 trainings with 95% intervals over them" if several else "one training of each"
    assert heading.startswith(f"**Digits** (Table 2, 1,200 updates; {how}")
