"""Write the results of the default study, as its report has them, between their marks in README.md.

    python benchmarks/readme_tables.py

after ``python cli.py reproduce`` (with ``--seeds N``, if the report is of several). A test holds README.md to
reports/default.
"""

from collections import Counter
from pathlib import Path

import pandas as pd
from network_tables import insert

from ddpm_eval.reporting.estimate_columns import estimate_columns
from ddpm_eval.reporting.tables import format_estimate

ROOT = Path(__file__).resolve().parents[1]
SUBJECT = "results of the default study"
TABLES = ROOT / "reports" / "default" / "tables"
SHEET = ", all images as one"
LINK = "reports/default/tables/claims.md"


def main() -> None:
    """Write the results into README.md."""
    insert(ROOT / "README.md", SUBJECT, results(TABLES))


def results(tables: Path) -> str:
    """Return the split, Table 2 and the claims in Markdown, from the tables of a report."""
    training = pd.read_csv(tables / "training.csv").set_index("run")["updates"]
    of_photos = training.index.str.startswith("photos")
    return "\n\n".join(
        [
            *_split(pd.read_csv(tables / "split.csv"), training[of_photos].max()),
            _coders(pd.read_csv(tables / "baseline.csv")),
            *ablation(pd.read_csv(tables / "table2.csv"), training[~of_photos].max()),
            *_claims(pd.read_csv(tables / "claims.csv")),
        ]
    )


def _split(split: pd.DataFrame, updates: int) -> list[str]:
    rows = [
        (row.quantity, format_estimate(row.bits_per_dim, row.low, row.high), f"{row.paper_bits_per_dim:g}")
        for row in split.itertuples()
        if row.quantity != "prior"
    ]
    n = split["n_images"].iloc[0]
    return [
        f"**Photographs** (8x8 patches, {updates:,} updates, {n} test patches, protocol `paper`, "
        "95% intervals over images):",
        markdown_table(("bits/dim", "measured", "paper"), rows),
    ]


def _coders(baseline: pd.DataFrame) -> str:
    """Say what the coders of images take."""
    coded = baseline[baseline["model"].str.endswith(SHEET)]
    found = [f"{row.model.removesuffix(SHEET)} takes {row.bits_per_dim:.2f}" for row in coded.itertuples()]
    return f"On all {coded['n_images'].iloc[0]} test patches as one sheet {' and '.join(found)} bits/dim."


def ablation(table: pd.DataFrame, updates: int) -> list[str]:
    """Return a heading and Table 2 in Markdown."""
    several = "trainings" in table
    rows = []
    for _, row in table.iterrows():
        bits, distance, score = (_cell(row, name) for name in ("bits_per_dim", "frechet_distance", "score"))
        published = [_plain(row[name]) for name in ("paper_inception_score", "paper_fid")]
        rows.append((row["prediction"], row["objective"], row["variance"], bits, distance, score, *published))
    how = (
        f"means of {table['trainings'].iloc[0]} trainings with 95% intervals over them"
        if several
        else "one training of each; the intervals leave out what another seed would change"
    )
    header = (
        *("prediction", "objective", "variance", "bits/dim", "Frechet distance (digits classifier)", "score"),
        *("paper: IS", "paper: FID"),
    )
    return [f"**Digits** (Table 2, {updates:,} updates; {how}):", markdown_table(header, rows)]


def _claims(claims: pd.DataFrame) -> list[str]:
    counts = Counter(claims["verdict"])
    rows = [
        (row.claim, row.verdict, format_estimate(row.ours, row.low, row.high), row.paper)
        for row in claims.itertuples()
    ]
    return [
        f"**The paper's sentences**, checked by intervals: of {len(claims)}, {counts['holds']} hold here, "
        f"{counts['does not hold']} do not hold, and {counts['undecided']} are undecided; "
        f"[the table]({LINK}) says how each was measured.",
        markdown_table(("claim", "verdict", "measured", "paper (CIFAR-10)"), rows),
    ]


def _cell(row: pd.Series, name: str) -> str:
    """Format an estimate of a row with its interval, or the mean alone where there is none."""
    return format_estimate(*(row.get(column, float("nan")) for column in estimate_columns(name)))


def _plain(value: float) -> str:
    return "--" if pd.isna(value) else f"{value:g}"


def markdown_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


if __name__ == "__main__":
    main()
