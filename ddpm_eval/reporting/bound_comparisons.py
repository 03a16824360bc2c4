"""Bounds beside each other: of two splits, precisions or estimators, of several protocols, or of a Gaussian.

All figures are in bits/dim with 95% intervals over images in the columns of `estimate_columns`. Where two
bounds are of the same images with the same noise, their difference is paired: its interval is that of the
images' differences.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from ddpm_eval.reporting.bound_tables import BITS_PER_DIM
from ddpm_eval.reporting.estimate_columns import add_estimates, add_interval, estimate_columns
from ddpm_eval.reporting.intervals import difference, mean_estimate
from ddpm_eval.results.bound_terms import BoundTerms
from ddpm_eval.results.fields import Array, Estimate
from ddpm_eval.results.records import Baseline, SimpleCodes

QUANTITIES = ("rate", "distortion", "prior", "total")
FEWEST_IMAGES = 8
"""The smallest part of a full evaluation that is listed beside other estimators."""
INFINITE = Estimate(math.inf, math.nan, math.nan, BITS_PER_DIM)
NOT_PAIRED = Estimate(math.nan, math.nan, math.nan, BITS_PER_DIM)


def gap_table(train: BoundTerms, test: BoundTerms) -> pd.DataFrame:
    """Compare splits: train, test and gap (test - train) of each quantity, with n_train and n_test.

    The two sets of images are independent, so the gap's interval is the unpaired one.

    Raises:
        ValueError: if the two were measured under different protocols.
    """
    if train.protocol != test.protocol:
        raise ValueError(
            "the two splits were measured under different protocols, so their gap would mean nothing"
        )
    of_train, of_test = train.values(), test.values()
    first = [mean_estimate(of_train[quantity], train.stratified_by) for quantity in QUANTITIES]
    second = [mean_estimate(of_test[quantity], test.stratified_by) for quantity in QUANTITIES]
    gap = [difference(b, a) for a, b in zip(first, second, strict=True)]
    frame = pd.DataFrame({"quantity": QUANTITIES})
    for name, means in {"train": first, "test": second, "gap": gap}.items():
        add_estimates(frame, f"{name}_bits_per_dim", [mean.estimate(BITS_PER_DIM) for mean in means])
    frame["n_train"] = len(train.image_id)
    frame["n_test"] = len(test.image_id)
    return frame


def paired_table(first: BoundTerms, second: BoundTerms, names: tuple[str, str]) -> pd.DataFrame:
    """Compare two measurements of the same images with the same noise, such as in two precisions.

    Args:
        first: of one model, split and protocol.
        second: of the same.
        names: of the two, which begin their columns.

    Returns:
        Of each quantity both values and the paired difference, first - second, with its interval; n_images.

    Raises:
        ValueError: if the images or the protocols differ.
    """
    if first.protocol != second.protocol or not np.array_equal(first.image_id, second.image_id):
        raise ValueError(
            "the two were measured on other images or under other protocols, so that nothing is paired"
        )
    a, b = first.values(), second.values()
    frame = pd.DataFrame({"quantity": QUANTITIES})
    for name, values in zip(names, (a, b), strict=True):
        frame[f"{name}_bits_per_dim"] = [float(values[quantity].mean()) for quantity in QUANTITIES]
    design = _common_design(first, second)
    paired = [
        mean_estimate(a[quantity] - b[quantity], design).estimate(BITS_PER_DIM) for quantity in QUANTITIES
    ]
    add_estimates(frame, "difference", paired)
    frame["n_images"] = len(first.image_id)
    return frame


def differences_from_first(results: Mapping[str, BoundTerms]) -> pd.DataFrame:
    """Compare models with the first of them, on the same images with the same noise.

    Args:
        results: of at least two models by name, under one protocol.

    Returns:
        One row for each quantity of each model but the first: run, quantity, bits_per_dim,
        first_bits_per_dim, difference_bits_per_dim (model - first) with its paired interval,
        unpaired_bits_per_dim (the same difference with the interval of two independent sets of images),
        times_narrower (the unpaired interval's width over the paired one's), n_images.

    Raises:
        ValueError: if the images or the protocols differ.
    """
    first, *others = results.values()
    names = [*results][1:]
    return pd.concat(
        [_differences_of(name, terms, first) for name, terms in zip(names, others, strict=True)],
        ignore_index=True,
    )


def step_differences(results: Mapping[str, BoundTerms]) -> pd.DataFrame:
    """Compare each term of models with the first of them, on the same images with the same noise.

    Args:
        results: of the models by name, under one protocol and on chains of one length.

    Returns:
        One row for each t of each model, zero of the first: run, t, difference_bits_per_dim (model - first)
        of the term at t, cumulated_bits_per_dim (of all terms up to t), both with paired intervals, n_images
        (that were evaluated at t).
    """
    first = next(iter(results.values()))
    values = first.term_values()
    frames = []
    for name, terms in results.items():
        paired = terms.term_values() - values
        design = _common_design(terms, first)
        frame = pd.DataFrame({"run": name, "t": np.arange(1, terms.num_steps + 1)})
        add_interval(frame, "difference_bits_per_dim", *mean_estimate(paired, design).with_interval())
        cumulated = np.cumsum(paired, axis=1, out=paired)
        add_interval(frame, "cumulated_bits_per_dim", *mean_estimate(cumulated, design).with_interval())
        frames.append(frame.assign(n_images=terms.evaluated_per_step))
    return pd.concat(frames, ignore_index=True)


def baseline_table(terms: BoundTerms, baseline: Baseline) -> pd.DataFrame:
    """Compare a model's bound with a fitted Gaussian's: model, bits_per_dim, low, high, n_images.

    Args:
        terms: the model's.
        baseline: of the same data set.
    """
    bits = baseline.dimensions * math.log(2)
    rows = []
    for name, values, design in (
        ("this model, bound", terms.values()["total"], terms.stratified_by),
        ("Gaussian, likelihood", baseline.nll / bits, None),
        ("Gaussian, bound", baseline.bound / bits, None),
    ):
        value, low, high, _ = mean_estimate(values, design).estimate(BITS_PER_DIM)
        rows.append((name, value, low, high, len(values)))
    return pd.DataFrame(rows, columns=["model", "bits_per_dim", "low", "high", "n_images"])


def simple_codes_table(codes: SimpleCodes) -> pd.DataFrame:
    """List what images cost without a network, in the columns of `baseline_table`.

    The codelength of a coder is of all its images together, without an interval.
    """
    rows: list[tuple[str, float, float, float, int]] = []
    for name, values in {
        f"uniform over the {codes.levels} levels that occur": codes.uniform,
        "one histogram": codes.histogram,
        "a histogram per pixel": codes.pixel_histograms,
    }.items():
        known = np.isfinite(values).all()  # a level may be new in a test image
        estimate = mean_estimate(values).estimate(BITS_PER_DIM) if known else INFINITE
        rows.append((name, *estimate[:3], len(values)))
    for name, size in zip(codes.coders.split(", "), codes.coded_bytes, strict=True):
        if np.isfinite(size):
            bits = 8 * float(size) / codes.coded_dimensions
            rows.append((f"{name}, all images as one", bits, math.nan, math.nan, codes.n_coded))
    return pd.DataFrame(rows, columns=["model", "bits_per_dim", "low", "high", "n_images"])


def protocol_table(results: Sequence[BoundTerms], floors: Sequence[float] | None = None) -> pd.DataFrame:
    """Compare bounds of one model under several protocols, or chains of several lengths, one row each.

    Args:
        results: of one model. Where a row's images are the first row's, ``difference_bits_per_dim`` is the
            paired difference of the totals from the first row.
        floors: each row's variance floor in bits/dim (NaN where the variance is learned).

    Returns:
        protocol, variance, clip, decoder, draws, steps, estimator, network_evaluations, split, n_images,
        inexact_left_out, total, rate, distortion, prior in bits/dim with intervals, floor_bits_per_dim,
        decoder_share, difference_bits_per_dim with its interval.
    """
    frame = pd.DataFrame([_protocol_row(terms) for terms in results])
    values = [terms.values() for terms in results]
    for quantity in ("total", "rate", "distortion", "prior"):
        add_estimates(
            frame,
            f"{quantity}_bits_per_dim",
            [
                mean_estimate(of_images[quantity], terms.stratified_by).estimate(BITS_PER_DIM)
                for terms, of_images in zip(results, values, strict=True)
            ],
        )
    frame["floor_bits_per_dim"] = np.nan if floors is None else floors
    frame["decoder_share"] = frame["distortion_bits_per_dim"] / frame["total_bits_per_dim"]
    add_estimates(frame, "difference_bits_per_dim", list(_differences(results, values)))
    return frame


def estimator_table(results: Sequence[BoundTerms]) -> pd.DataFrame:
    """Compare what estimators of the total cost, one row each, with the standard error over all images.

    A full result is also listed at a half, a quarter, ... of its images, down to `FEWEST_IMAGES`: the
    estimate of its first images, with the standard error that the spread over all its images implies at that
    number.

    Returns:
        estimator, network_evaluations, n_images, bits_per_dim, low, high, standard_error.
    """
    rows = [row for terms in results for row in _estimator_rows(terms)]
    names = ["estimator", "network_evaluations", "n_images", "bits_per_dim", "low", "high", "standard_error"]
    return pd.DataFrame(rows, columns=names)


def _differences_of(name: str, terms: BoundTerms, first: BoundTerms) -> pd.DataFrame:
    """Return the rows of one model in `differences_from_first`."""
    paired = paired_table(terms, first, ("model", "first"))
    unpaired = [
        difference(mean_estimate(values, terms.stratified_by), mean_estimate(others, first.stratified_by))
        for values, others in zip(terms.values().values(), first.values().values(), strict=True)
    ]
    frame = pd.DataFrame({"run": name, "quantity": paired["quantity"]})
    frame["bits_per_dim"] = paired["model_bits_per_dim"]
    frame["first_bits_per_dim"] = paired["first_bits_per_dim"]
    columns = (paired[column] for column in estimate_columns("difference"))
    add_interval(frame, "difference_bits_per_dim", *columns)
    add_estimates(frame, "unpaired_bits_per_dim", [mean.estimate(BITS_PER_DIM) for mean in unpaired])
    widths = [
        frame[f"{kind}_bits_per_dim_high"] - frame[f"{kind}_bits_per_dim_low"]
        for kind in ("unpaired", "difference")
    ]
    frame["times_narrower"] = (widths[0] / widths[1]).where(widths[1] > 0)
    return frame.assign(n_images=paired["n_images"])


def _common_design(first: BoundTerms, second: BoundTerms) -> Array | None:
    """Return the design variable that both are stratified by, None if they are not, or by different ones."""
    one, other = first.stratified_by, second.stratified_by
    return one if one is not None and other is not None and np.array_equal(one, other) else None


def _protocol_row(terms: BoundTerms) -> dict[str, object]:
    protocol = terms.protocol
    return {
        "protocol": protocol.name,
        "variance": terms.variance,
        "clip": protocol.clip,
        "decoder": protocol.decoder,
        "draws": protocol.draws,
        "steps": terms.num_steps,
        "estimator": terms.estimator,
        "network_evaluations": terms.network_evaluations,
        "split": terms.split,
        "n_images": len(terms.image_id),
        "inexact_left_out": terms.inexact_left_out,
    }


def _differences(results: Sequence[BoundTerms], values: Sequence[Mapping[str, Array]]) -> Iterator[Estimate]:
    """Estimate the paired difference of each total from the first result's, NaN where the images differ."""
    first = results[0]
    for terms, of_images in zip(results, values, strict=True):
        if np.array_equal(first.image_id, terms.image_id):
            design = first if first.estimator == "stratified" else terms
            paired = of_images["total"] - values[0]["total"]
            yield mean_estimate(paired, design.stratified_by).estimate(BITS_PER_DIM)
        else:
            yield NOT_PAIRED


def _estimator_rows(terms: BoundTerms) -> Iterator[tuple[str | float, ...]]:
    total = terms.values()["total"]
    n = len(total)
    whole = mean_estimate(total, terms.stratified_by)
    spread = float(whole.standard_error) * math.sqrt(n)
    halvings = int(math.log2(max(n / FEWEST_IMAGES, 1))) if terms.estimator == "full" else 0
    for kept in (n >> k for k in range(halvings + 1)):
        mean = whole if kept == n else mean_estimate(total[:kept])
        value, low, high, _ = mean.estimate(BITS_PER_DIM)
        evaluations = terms.network_evaluations * kept // n
        yield terms.estimator, evaluations, kept, value, low, high, spread / math.sqrt(kept)
