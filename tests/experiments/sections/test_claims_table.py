"""The table of claims: its columns, and that no verdict contradicts its own interval."""

import pandas as pd

from experiments.paper.claims import CLAIMS
from experiments.sections.claims_table import section


def test_every_claim_has_a_row_of_the_columns_that_scripts_rely_on(measured):
    found = section(measured)
    table = pd.read_csv(measured.tables / "claims.csv")
    assert list(table.columns) == ["claim", "place", "paper", "ours", "low", "high", "verdict", "condition"]
    assert table["claim"].tolist() == [claim.sentence for claim in CLAIMS]
    counts = table["verdict"].value_counts()
    assert set(counts.index) <= {"holds", "does not hold", "undecided"}
    assert found.text == (
        f"Of {len(CLAIMS)} claims of the paper {counts.get('holds', 0)} hold here, "
        f"{counts.get('does not hold', 0)} do not hold, and {counts.get('undecided', 0)} are undecided."
    )


def test_no_verdict_contradicts_its_interval(measured):
    section(measured)
    table = pd.read_csv(measured.tables / "claims.csv")
    for claim, row in zip(CLAIMS, table.itertuples(), strict=True):
        inside = row.low > claim.limits[0] and row.high < claim.limits[1]
        outside = row.high <= claim.limits[0] or row.low >= claim.limits[1]
        assert row.verdict != "holds" or inside
        assert row.verdict != "does not hold" or outside
    assert table.loc[table["verdict"] != "undecided", ["ours", "low", "high"]].notna().all(axis=None)


def test_people_read_the_verdict_first_and_the_interval_with_the_number(measured):
    (table,) = section(measured).tables
    assert table.header == ("claim", "verdict", "ours", "published", "condition")
    copies = next(row for row in table.rows if "no copies" in row[0])
    assert copies[1:4] == ("holds", "0.30 [0.20, 0.40]", "a figure (Section 4.3, Fig. 15)")
