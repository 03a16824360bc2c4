"""Sample quality as tables: every figure of a run, curves over time and steps, memorisation, and Table 1.

Scores and distances in the features of different extractors cannot be compared, so every table names the
features. Intervals lie in the columns of `estimate_columns`.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from ddpm_eval.reporting.estimate_columns import ROW_BOUNDS, add_interval, estimate_cells, estimate_columns
from ddpm_eval.reporting.intervals import share_interval
from ddpm_eval.results.fields import Array, Estimate, fields_of_kind
from ddpm_eval.results.records import Neighbours, Quality, QualityCurve

TABLE1_COLUMNS = (
    *("model", "data", "conditional", "features", "score", "frechet_distance"),
    *("test_bits_per_dim", "train_bits_per_dim"),
)
"""The first columns of Table 1."""


def quality_table(results: Mapping[str, Quality]) -> pd.DataFrame:
    """List every quality figure of the named runs: run, metric, value, low, high, n, features, reference.

    A metric is named like its field of `Quality`; one that was not asked for is left out.
    """
    rows = [
        (run, metric, *estimate[:3], n, quality.features, quality.reference)
        for run, quality in results.items()
        for metric, estimate, n in _figures(quality)
        if n and estimate.known  # n is 0 where the test images were not compared
    ]
    columns = ["run", "metric", "value", "low", "high", "n", "features", "reference"]
    return pd.DataFrame(rows, columns=columns)


def quality_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Lay `quality_table` out with a row for each run and a column for each metric, with its interval."""
    frame = pd.DataFrame({"run": table["run"].drop_duplicates()})
    for metric in table["metric"].drop_duplicates():
        part = table[table["metric"] == metric]
        names = dict(zip(("value", *ROW_BOUNDS), estimate_columns(metric), strict=True))
        frame = frame.merge(part[["run", *names]].rename(columns=names), how="left", on="run")
    first = table.drop_duplicates("run")  # of samples; the reference distance is of test images
    return frame.assign(n_samples=first["n"].to_numpy(), features=first["features"].to_numpy())


def memorisation_table(found: Neighbours) -> pd.DataFrame:
    """State in pixels and in features whether samples are nearer to training images than held-out images are.

    Returns:
        space, memorisation with its interval, median_distance, median_held_out_distance, unit (of the
        distances), n_samples, n_held_out.
    """
    rows = [
        _memorisation_row(
            "pixel", found.pixel_memorisation, found.pixel_distance, found.held_out_pixel_distance
        ),
        _memorisation_row(
            "feature", found.feature_memorisation, found.feature_distance, found.held_out_feature_distance
        ),
    ]
    frame = pd.DataFrame(rows)
    frame["unit"] = ["8-bit levels", "feature units"]
    return frame.assign(n_samples=found.n_samples, n_held_out=found.n_held_out)


def table1(rows: Sequence[Mapping[str, object]], paper: pd.DataFrame) -> pd.DataFrame:
    """Join measured models with the paper's Table 1, naming each row's features and data set.

    Args:
        rows: of the measured models, each with columns of the result and intervals as ``_low`` and ``_high``.
        paper: the literature's rows, all of CIFAR-10 and in Inception's features.
    """
    names = {"inception_score": "score", "fid": "frechet_distance", "nll_is_bound": "is_bound"}
    names |= {f"nll_{split}_bits_per_dim": f"{split}_bits_per_dim" for split in ("test", "train")}
    known = paper.drop(columns=["source", "inception_score_std"]).rename(columns=names)
    known = known.assign(features="Inception", data="CIFAR-10")
    known["is_bound"] = known["is_bound"].where(known["test_bits_per_dim"].notna(), None)
    frame = pd.concat([pd.DataFrame(rows), known.astype(object)], ignore_index=True)
    others = [column for column in frame if column not in TABLE1_COLUMNS]
    return frame[[*TABLE1_COLUMNS, *others]]


def quality_over_time(curve: QualityCurve, num_steps: int) -> pd.DataFrame:
    """List the quality of x0_hat over the reverse process: t, reverse_steps, distance and score.

    Args:
        curve: along t.
        num_steps: T, the steps of the chain.
    """
    frame = _curve_frame(curve)
    frame.insert(0, "reverse_steps", num_steps - curve.position + 1)
    frame.insert(0, "t", curve.position)
    return frame


def quality_over_steps(curves: Sequence[QualityCurve]) -> pd.DataFrame:
    """List the quality of samples by number of steps: method, steps, seconds_per_image, distance, score."""
    frames = []
    for curve in curves:
        frame = _curve_frame(curve)
        frame.insert(0, "seconds_per_image", curve.seconds_per_image)
        frame.insert(0, "steps", curve.position)
        frame.insert(0, "method", curve.method)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _figures(quality: Quality) -> Iterator[tuple[str, Estimate, int]]:
    """List each metric's name, estimate and number of images."""
    for field in fields_of_kind(Quality, "estimate"):
        n = quality.n_test if field.name == "reference_distance" else quality.n_samples
        yield field.name, getattr(quality, field.name), n
    accuracy = quality.classifier_test_accuracy
    # the two numbers were equal in all results of earlier versions, which did not store the first
    n = quality.n_classifier_test or quality.n_test
    yield "classifier_test_accuracy", Estimate(accuracy, *share_interval(accuracy, n), "1"), n


def _memorisation_row(space: str, statistic: Estimate, distance: Array, held_out: Array) -> dict[str, object]:
    return {
        "space": space,
        **estimate_cells("memorisation", statistic),
        "median_distance": np.median(distance[:, 0]),
        "median_held_out_distance": np.median(held_out),
    }


def _curve_frame(curve: QualityCurve) -> pd.DataFrame:
    frame = pd.DataFrame(index=range(len(curve.position)))
    add_interval(frame, "frechet_distance", *curve.frechet_distance.T)
    add_interval(frame, "score", *curve.score.T)
    return frame.assign(n_samples=curve.n_samples, features=curve.features)
