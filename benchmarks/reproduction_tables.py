"""Write the paper's numbers beside what the committed reports measured into docs/reproduction.md.

    python benchmarks/reproduction_tables.py

after a report in reports/ was rendered again. A test holds docs/reproduction.md to the reports.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from network_tables import insert
from readme_tables import ablation, markdown_table

from ddpm_eval.reporting.tables import format_estimate

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reproduction.md"
REPORTS = ROOT / "reports"
SUBJECT = "numbers of the paper"
LONGER = "more updates"
SUBJECTS = {
    "default": "Photographs, 8x8 patches",
    "cifar10-tiny": "CIFAR-10, the paper's test images, models/cifar10-tiny",
}
"""The reports whose likelihood stands beside the paper's, and of what they are."""
LONG = "digits-long"
"""The report of the digits' networks after more updates than those of the default one."""
HEADER = ("number of the paper", "paper", "measured", "measured minus paper", "test images", "table")


def main() -> None:
    """Write the tables."""
    insert(PAGE, SUBJECT, tables(REPORTS))
    insert(PAGE, LONGER, longer(REPORTS))


def tables(reports: Path) -> str:
    """Return one table for each report that there is, in Markdown."""
    found = [(reports / name / "tables", title) for name, title in SUBJECTS.items()]
    return "\n\n".join(
        f"**{title}**\n\n{markdown_table(HEADER, list(_rows(folder)))}"
        for folder, title in found
        if (folder / "split.csv").is_file()
    )


def longer(reports: Path) -> str:
    """Return Table 2 and the claims of the digits after more updates, beside those of the default report."""
    long = reports / LONG / "tables"
    updates = pd.read_csv(long / "training.csv")["updates"].max()
    usual, found = (pd.read_csv(folder / "claims.csv") for folder in (reports / "default" / "tables", long))
    both = usual.merge(found, on="claim", suffixes=("", "_long"))
    both = both[both["condition"].str.contains("digits, ")]
    rows = [
        (
            *(row.claim, row.verdict, format_estimate(row.ours, row.low, row.high)),
            *(row.verdict_long, format_estimate(row.ours_long, row.low_long, row.high_long)),
        )
        for row in both.itertuples()
    ]
    header = ("claim", "default report", "measured", f"{updates:,} updates", "measured")
    return "\n\n".join([*ablation(pd.read_csv(long / "table2.csv"), updates), markdown_table(header, rows)])


def _rows(folder: Path) -> Iterator[tuple[str, ...]]:
    split = pd.read_csv(folder / "split.csv")
    for row in split[split["paper_bits_per_dim"].notna()].itertuples():
        estimate = (row.bits_per_dim, row.low, row.high)
        yield _row(f"{row.quantity}, bits/dim", row.paper_bits_per_dim, estimate, row.n_images, "split")
    table4 = pd.read_csv(folder / "table4.csv")
    for quantity, label in (("rate_bits_per_dim", "rate, bits/dim"), ("rmse_255", "RMSE, levels of 255")):
        for _, row in table4.iterrows():
            estimate = (row[quantity], row[f"{quantity}_low"], row[f"{quantity}_high"])
            name = f"Table 4, {row['reverse_steps']:.0f} reverse steps: {label}"
            yield _row(name, row[f"paper_{quantity}"], estimate, row["n_images"], "table4")


def _row(
    name: str, paper: float, estimate: tuple[float, float, float], images: float, table: str
) -> tuple[str, ...]:
    share = f" ({(estimate[0] - paper) / paper:+.1%})" if paper else ""
    off = f"{estimate[0] - paper:+.3g}{share}"
    return name, f"{paper:g}", format_estimate(*estimate), off, f"{images:,.0f}", f"`{table}.csv`"


if __name__ == "__main__":
    main()
