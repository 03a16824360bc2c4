"""Density and coverage as rows of the quality table, and the classes of samples against the data's."""

from collections.abc import Mapping

import pandas as pd
from scipy import stats

from ddpm_eval.reporting.estimate_columns import add_interval
from ddpm_eval.reporting.intervals import share_interval
from ddpm_eval.results.fields import Array, fields_of_kind
from ddpm_eval.results.records import Coverage

SAMPLES = "samples"
FEWEST_EXPECTED = 5
"""Images of a class that are expected at least where the chi-squared law is a good approximation (Cochran,
1954).
"""


def coverage_table(results: Mapping[str, Coverage]) -> pd.DataFrame:
    """List density and coverage of the named runs with the columns of `quality_table`."""
    rows = [
        (run, field.name, *getattr(found, field.name)[:3], found.n_samples, found.features, found.reference)
        for run, found in results.items()
        for field in fields_of_kind(Coverage, "estimate")
    ]
    columns = ["run", "metric", "value", "low", "high", "n", "features", "reference"]
    return pd.DataFrame(rows, columns=columns)


def class_table(found: Coverage) -> pd.DataFrame:
    """List the share of each class among the samples and among the reference images.

    Returns:
        images (``samples`` or such as ``train images``), class, n_assigned, share with its 95% interval for a
        share of independent images (Wilson, 1927), n_images.
    """
    return pd.concat(
        [
            _shares(SAMPLES, found.class_label, found.class_counts),
            _shares(reference_name(found), found.class_label, found.reference_counts),
        ],
        ignore_index=True,
    )


def class_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Lay `class_table` out with a row for each class."""
    frame = pd.DataFrame({"class": table["class"].drop_duplicates()})
    for images, part in table.groupby("images", sort=False):
        name = f"share_of_{images}".replace(" ", "_")
        renamed = {column: column.replace("share", name) for column in part if column.startswith("share")}
        frame = frame.merge(part[["class", *renamed]].rename(columns=renamed), on="class")
    return frame


def class_difference(found: Coverage) -> str:
    """Say how far the two distributions of classes are apart, with the chi-squared test of equality."""
    ours, theirs = (counts / counts.sum() for counts in (found.class_counts, found.reference_counts))
    distance = abs(ours - theirs).sum() / 2
    counts = pd.DataFrame([found.class_counts, found.reference_counts]).T
    present = counts[counts.sum(axis=1) > 0]
    if len(present) < 2:
        return "All images are of one class."
    test = stats.chi2_contingency(present.to_numpy(), correction=False)
    few = test.expected_freq.min() < FEWEST_EXPECTED
    return (
        f"Total variation distance of the two distributions: {distance:.3f}; chi-squared test that they are "
        f"equal: {test.statistic:.1f} on {test.dof} degrees of freedom, p = {test.pvalue:.2g}"
        + (" (a class has few images: p is rough)." if few else ".")
    )


def reference_name(found: Coverage) -> str:
    """Return the name of the reference images, such as ``training images``."""
    return {"train": "training images", "test": "test images"}[found.reference]


def _shares(images: str, labels: Array, counts: Array) -> pd.DataFrame:
    n = int(counts.sum())
    frame = pd.DataFrame({"images": images, "class": labels, "n_assigned": counts})
    bounds = pd.DataFrame([share_interval(count / n, n) for count in counts], columns=["low", "high"])
    add_interval(frame, "share", counts / n, bounds["low"].to_numpy(), bounds["high"].to_numpy())
    return frame.assign(n_images=n)
