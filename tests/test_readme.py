"""The numbers in README.md and docs/reproduction.md are those of the committed reports."""

import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import readme_tables  # noqa: E402
import reproduction_tables  # noqa: E402


def test_the_results_are_those_of_the_committed_report():
    text = (ROOT / "README.md").read_text()
    assert readme_tables.results(readme_tables.TABLES) in text, (
        "README.md and reports/default differ: run python benchmarks/readme_tables.py"
    )


def test_the_papers_numbers_stand_beside_those_of_the_committed_reports():
    text = reproduction_tables.tables(reproduction_tables.REPORTS)
    assert text in reproduction_tables.PAGE.read_text(), (
        "docs/reproduction.md and the reports differ: run python benchmarks/reproduction_tables.py"
    )
    split = pd.read_csv(readme_tables.TABLES / "split.csv").set_index("quantity").loc["rate"]
    off = split["bits_per_dim"] - 1.78
    row = next(line for line in text.splitlines() if line.startswith("| rate, bits/dim | 1.78 | "))
    assert f" | {off:+.3g} ({off / 1.78:+.1%}) | {split['n_images']} | `split.csv` |" in row
    assert text.count("| Table 4, ") == 20 * text.count("| rate, bits/dim | ")


def test_what_more_updates_change_is_that_of_the_committed_reports():
    text = reproduction_tables.longer(reproduction_tables.REPORTS)
    assert text in reproduction_tables.PAGE.read_text(), (
        "docs/reproduction.md and the reports differ: run python benchmarks/reproduction_tables.py"
    )
    assert sum(line.startswith(("| mu | ", "| eps | ")) for line in text.splitlines()) == 6
    claims = pd.read_csv(reproduction_tables.REPORTS / "digits-long" / "tables" / "claims.csv")
    for row in claims[claims["claim"].str.startswith(("Training on L ", "Samples are no "))].itertuples():
        assert f"| {row.claim} | " in text and f" | {row.verdict} | " in text


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
    heading, _ = readme_tables.ablation(table, 1200)
    how = "means of 3 trainings with 95% intervals over them" if several else "one training of each"
    assert heading.startswith(f"**Digits** (Table 2, 1,200 updates; {how}")
