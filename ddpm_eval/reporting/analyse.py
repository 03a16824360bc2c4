"""From stored atoms to tidy tables in which an estimate and its interval come together; numpy, scipy and
pandas only.

Conventions: bits/dim are nats per image divided by (dimensions x ln 2). Column j of an array over ``t`` is t
    = j + 1. A column
``x`` has its 95% interval in ``x_low`` and ``x_high`` (``low`` and ``high`` where a table has one estimate
per row); an empty bound means that fewer than two images were available. Columns that start with ``paper_``
are published CIFAR-10 values.

Intervals are over images, see `ddpm_eval.reporting.intervals`.

Source of the split and of Table 4: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS
    2020.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ddpm_eval.reporting.intervals import (
    Estimate,
    difference,
    grouped_estimate,
    mean_estimate,
    share_interval,
)
from ddpm_eval.results.records import (
    Array,
    Baseline,
    BoundHistory,
    FullBoundTerms,
    Neighbours,
    Quality,
    QualityCurve,
    StratifiedBoundTerms,
    TrainingLog,
)

Atoms = FullBoundTerms | StratifiedBoundTerms

QUANTITIES = ("rate", "distortion", "prior", "total")
CELLS = (
    ("mu", "L", "learned"),
    ("mu", "L", "fixed"),
    ("mu", "MSE", "fixed"),
    ("eps", "L", "learned"),
    ("eps", "L", "fixed"),
    ("eps", "MSE", "fixed"),
)
"""The six cells of Table 2: prediction, objective, variance."""


# The bound: per-image values


def steps(atoms: Atoms) -> int:
    """Return T, the number of steps of the chain that was measured."""
    return len(atoms.inclusion) if isinstance(atoms, StratifiedBoundTerms) else atoms.terms.shape[1]


def term_values(atoms: Atoms) -> Array:
    """Return bits/dim of each image's terms, float64 ``[image, t]``, whose mean over images is unbiased.

    Stratified terms are weighted by 1 / inclusion and zero where an image was not evaluated (Horvitz and
    Thompson, 1952).

    Raises:
        ValueError: if a term or the prior is not finite.
    """
    _check_finite(atoms)
    scale = 1 / (atoms.dimensions * math.log(2))
    if isinstance(atoms, FullBoundTerms):
        return atoms.terms.astype(np.float64) * scale
    image, column, terms = _entries(atoms, atoms.terms)
    values = np.zeros((len(atoms.image_id), steps(atoms)))
    np.add.at(values, (image, column), terms * scale / atoms.inclusion[column])
    return values


def bound_values(atoms: Atoms) -> dict[str, Array]:
    """Return each image's rate (terms t > 1), distortion (t = 1), prior and total in bits/dim, by name, each
    ``[image]``.
    """
    terms = term_values(atoms)
    prior = atoms.prior.astype(np.float64) / (atoms.dimensions * math.log(2))
    rate, distortion = terms[:, 1:].sum(1), terms[:, 0]
    return {"rate": rate, "distortion": distortion, "prior": prior, "total": rate + distortion + prior}


def _entries(atoms: StratifiedBoundTerms, values: Array) -> tuple[Array, Array, Array]:
    """Drop the padding: image index, column t - 1 and value of each evaluation, ``[entry]``."""
    image, _ = used = np.nonzero(atoms.t > 0)
    return image, atoms.t[used].astype(np.int64) - 1, values[used].astype(np.float64)


def _check_finite(atoms: Atoms) -> None:
    used = atoms.t > 0 if isinstance(atoms, StratifiedBoundTerms) else np.ones(atoms.terms.shape, dtype=bool)
    bad = np.argwhere(used & ~(np.isfinite(atoms.terms) & np.isfinite(atoms.x_0_squared_error)))
    if len(bad):
        row, column = bad[0]
        t = atoms.t[row, column] if isinstance(atoms, StratifiedBoundTerms) else column + 1
        raise ValueError(
            f"{len(bad)} measured terms are not finite, the first for image {atoms.image_id[row]} at t = {t} "
            "(the model's output overflowed: did its training diverge?)"
        )
    if not np.isfinite(atoms.prior).all():
        raise ValueError("the prior term of an image is not finite (is alpha_bar at T equal to 1?)")


# The bound: tables


def split_table(
    atoms: Atoms, trained_variance: str, paper: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Split the bound into rate L_1 + ... + L_{T-1}, distortion L_0, prior L_T and their sum.

    Args:
        atoms: of one model, split and protocol.
        trained_variance: the run's variance, which the protocol's ``trained`` stands for.
        paper: published bits/dim by quantity, for the column ``paper_bits_per_dim``.

    Returns:
        quantity, bits_per_dim, low, high, n_images, split, variance, paper_bits_per_dim.
    """
    rows = []
    for quantity, values in bound_values(atoms).items():
        estimate = _mean(atoms, values)
        low, high = estimate.interval()
        rows.append((quantity, estimate.value, low, high, len(values), atoms.split))
    frame = pd.DataFrame(rows, columns=["quantity", "bits_per_dim", "low", "high", "n_images", "split"])
    frame = frame.astype(dict.fromkeys(["bits_per_dim", "low", "high"], float))
    frame["variance"] = _variance(atoms, trained_variance)
    frame["paper_bits_per_dim"] = frame["quantity"].map(dict(paper or {})).astype(float)
    return frame


def terms_table(atoms: Atoms, floor: Array | None = None) -> pd.DataFrame:
    """List every term of the bound: t, bits_per_dim, low, high, n_images, floor_bits_per_dim.

    Args:
        atoms: of one model, split and protocol.
        floor: each term's lower limit under the protocol's variance, `variance_floor`, bits/dim ``[t]``.
    """
    estimate = _mean(atoms, term_values(atoms))
    low, high = estimate.interval()
    count = steps(atoms)
    t = np.arange(1, count + 1)
    return pd.DataFrame(
        {
            "t": t,
            "bits_per_dim": estimate.value,
            "low": low,
            "high": high,
            "n_images": _evaluated(atoms),
            "floor_bits_per_dim": np.full(count, np.nan) if floor is None else floor,
        }
    )


def halfwidth(atoms: Atoms) -> float:
    """Return half the width of the total's 95% interval, bits/dim."""
    low, high = _mean(atoms, bound_values(atoms)["total"]).interval()
    return float(high - low) / 2


def variance_floor(sigma2: Array, beta_tilde: Array) -> Array:
    """Return what the choice of reverse variance alone adds to each term, bits/dim ``[t]``; its sum is the
    bound's floor.

    The KL divergence between Gaussians of variance beta_tilde and sigma2 with equal means, zero at t = 1 (the
    decoder).

    Args:
        sigma2: reverse variances indexed 0..T.
        beta_tilde: posterior variances indexed 0..T.
    """
    ratio = np.asarray(beta_tilde, dtype=np.float64)[2:] / np.asarray(sigma2, dtype=np.float64)[2:]
    return np.concatenate([[0.0], 0.5 * (ratio - 1 - np.log(ratio)) / math.log(2)])


def rate_distortion_curve(atoms: Atoms) -> pd.DataFrame:
    """Follow progressive decoding step by step (Fig. 5): what was received, and how good x_0 can be estimated
    from it.

    After tau reverse steps the receiver is at t = T - tau + 1 and has x_t; the rate counts the terms received
    before that. The root mean squared error is on the 0-255 scale, pooled over images before the root
    (``rmse_255``) and as the mean of each image's root (``image_rmse_255``); PSNR is the pooled one's. In
    stratified atoms the rate is a Horvitz-Thompson mean over all images, and the distortion at t the mean
    over the images evaluated there (``n_distortion``).

    Returns:
        One row per reverse step, increasing: reverse_steps, t, rate_bits_per_dim, rmse_255, image_rmse_255,
            psnr_db, each
        with _low and _high, n_images, n_distortion.
    """
    terms = term_values(atoms)
    received = np.flip(np.cumsum(np.flip(terms, 1), 1), 1)
    received -= terms  # in place: these arrays are large
    frame = pd.DataFrame({"t": np.arange(1, steps(atoms) + 1)})
    frame["reverse_steps"] = len(frame) - frame["t"] + 1
    _add(frame, "rate_bits_per_dim", *_bounds(_mean(atoms, received)))
    squared = _at_each_step(atoms, atoms.x_0_squared_error)
    with np.errstate(
        invalid="ignore"
    ):  # a bound below zero, which few and very skewed images can have, is left empty
        pooled = [127.5 * np.sqrt(part) for part in _bounds(squared)]
    _add(frame, "rmse_255", *pooled)
    _add(
        frame,
        "image_rmse_255",
        *(127.5 * p for p in _bounds(_at_each_step(atoms, np.sqrt(atoms.x_0_squared_error)))),
    )
    with np.errstate(divide="ignore"):  # a perfect estimate has infinite PSNR
        value, high, low = (20 * np.log10(255 / part) for part in pooled)
    _add(frame, "psnr_db", value, low, high)
    frame["n_images"], frame["n_distortion"] = len(atoms.image_id), _evaluated(atoms)
    return frame.sort_values("reverse_steps", ignore_index=True)


def table4(atoms: Atoms, paper: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the paper's Table 4: progressive lossy compression at ten equally spaced numbers of reverse
    steps.

    Args:
        atoms: of one model, split and protocol.
        paper: reverse_steps, rate_bits_per_dim, rmse_255; joined where T is the paper's 1000, blank
            otherwise.

    Returns:
        reverse_steps (T, 0.9 T, ...), t, rate_bits_per_dim, rmse_255, paper_rate_bits_per_dim,
        paper_rmse_255, then the intervals and further columns of `rate_distortion_curve`.
    """
    count = steps(atoms)
    wanted = sorted({round(count * share / 10) for share in range(1, 11)} - {0}, reverse=True)
    frame = rate_distortion_curve(atoms).set_index("reverse_steps").loc[wanted].reset_index()
    for column in ("rate_bits_per_dim", "rmse_255"):
        published = (
            {} if paper is None or count != 1000 else paper.set_index("reverse_steps")[column].to_dict()
        )
        frame[f"paper_{column}"] = frame["reverse_steps"].map(published).astype(float)
    first = [
        "reverse_steps",
        "t",
        "rate_bits_per_dim",
        "rmse_255",
        "paper_rate_bits_per_dim",
        "paper_rmse_255",
    ]
    return frame[first + [column for column in frame if column not in first]]


def gap_table(train: Atoms, test: Atoms) -> pd.DataFrame:
    """Compare splits: per quantity train, test and gap (test - train) in bits/dim with intervals, n_train,
    n_test.

    The two sets of images are independent, so the gap's interval is the unpaired one.

    Raises:
        ValueError: if the two were measured under different protocols.
    """
    if train.protocol != test.protocol:
        raise ValueError(
            "the two splits were measured under different protocols, so their gap would mean nothing"
        )
    a, b = bound_values(train), bound_values(test)
    frame = pd.DataFrame({"quantity": QUANTITIES})
    pairs = [(_mean(train, a[quantity]), _mean(test, b[quantity])) for quantity in QUANTITIES]
    for name, estimates in {
        "train": [first for first, _ in pairs],
        "test": [second for _, second in pairs],
        "gap": [difference(second, first) for first, second in pairs],
    }.items():
        _add(frame, f"{name}_bits_per_dim", *np.array([_bounds(estimate) for estimate in estimates]).T)
    frame["n_train"], frame["n_test"] = len(train.image_id), len(test.image_id)
    return frame


def paired_table(first: Atoms, second: Atoms, names: tuple[str, str]) -> pd.DataFrame:
    """Compare two measurements of the same images with the same noise, such as in two precisions.

    Args:
        first: of one model, split and protocol.
        second: of the same.
        names: of the two, which begin their columns.

    Returns:
        Per quantity both values in bits/dim and the paired difference, first - second, with its interval, and
        n_images.

    Raises:
        ValueError: if the images or the protocols differ.
    """
    if first.protocol != second.protocol or not np.array_equal(first.image_id, second.image_id):
        raise ValueError(
            "the two were measured on other images or under other protocols, so that nothing is paired"
        )
    a, b = bound_values(first), bound_values(second)
    frame = pd.DataFrame({"quantity": QUANTITIES})
    for name, values in zip(names, (a, b), strict=True):
        frame[f"{name}_bits_per_dim"] = [float(values[quantity].mean()) for quantity in QUANTITIES]
    paired = [_bounds(mean_estimate(a[quantity] - b[quantity])) for quantity in QUANTITIES]
    _add(frame, "difference", *np.array(paired).T)
    frame["n_images"] = len(first.image_id)
    return frame


def baseline_table(atoms: Atoms, baseline: Baseline) -> pd.DataFrame:
    """Compare a model's bound with a fitted Gaussian's: model, bits_per_dim, low, high, n_images.

    Args:
        atoms: the model's.
        baseline: of the same data set.
    """
    bits = baseline.dimensions * math.log(2)
    rows = []
    for name, values in {
        "this model, bound": bound_values(atoms)["total"],
        "Gaussian, likelihood": baseline.nll / bits,
        "Gaussian, bound": baseline.bound / bits,
    }.items():
        estimate = mean_estimate(values)
        rows.append((name, float(estimate.value), *map(float, estimate.interval()), len(values)))
    return pd.DataFrame(rows, columns=["model", "bits_per_dim", "low", "high", "n_images"])


def protocol_table(
    results: Sequence[Atoms], trained_variance: str, floors: Sequence[float] | None = None
) -> pd.DataFrame:
    """Compare bounds of one model under several protocols, or chains of several lengths, one row each.

    Args:
        results: of one model. Where a row's images are the first row's, ``difference_bits_per_dim`` is the
            paired difference of the totals from the first row, with its interval.
        trained_variance: the run's variance.
        floors: each row's variance floor in bits/dim (NaN where the variance is learned).

    Returns:
        protocol, variance, clip, decoder, draws, steps, estimator, network_evaluations, split, n_images,
        inexact_left_out, total, rate, distortion, prior in bits/dim with intervals, floor_bits_per_dim,
        decoder_share, difference_bits_per_dim with its interval.
    """
    rows = [_protocol_row(atoms, trained_variance) for atoms in results]
    frame = pd.DataFrame(rows)
    values = [bound_values(atoms) for atoms in results]
    for quantity in ("total", "rate", "distortion", "prior"):
        bounds = [
            _bounds(_mean(atoms, value[quantity])) for atoms, value in zip(results, values, strict=True)
        ]
        _add(frame, f"{quantity}_bits_per_dim", *np.array(bounds).T)
    frame["floor_bits_per_dim"] = np.nan if floors is None else floors
    frame["decoder_share"] = frame["distortion_bits_per_dim"] / frame["total_bits_per_dim"]
    paired = [_paired(results[0], values[0]["total"], *item) for item in zip(results, values, strict=True)]
    _add(frame, "difference_bits_per_dim", *np.array(paired).T)
    return frame


def estimator_table(results: Sequence[Atoms]) -> pd.DataFrame:
    """Compare what estimators of the total cost, one row per result, with its standard error over all its
    images.

    A full result is also listed at a half, a quarter, ... of its images, down to 8: its first images'
    estimate, with the standard error that the spread over all its images implies at that number.

    Returns:
        estimator, network_evaluations, n_images, bits_per_dim, low, high, standard_error.
    """
    rows = []
    for atoms in results:
        total = bound_values(atoms)["total"]
        n = len(total)
        spread = float(_mean(atoms, total).standard_error) * math.sqrt(n)
        halvings = int(math.log2(max(n / 8, 1))) if isinstance(atoms, FullBoundTerms) else 0
        for kept in (n >> k for k in range(halvings + 1)):
            estimate = _mean(atoms, total) if kept == n else mean_estimate(total[:kept])
            bounds = [float(part) for part in _bounds(estimate)]
            evaluations = _network_evaluations(atoms) * kept // n
            rows.append((_estimator(atoms), evaluations, kept, *bounds, spread / math.sqrt(kept)))
    names = ["estimator", "network_evaluations", "n_images", "bits_per_dim", "low", "high", "standard_error"]
    return pd.DataFrame(rows, columns=names)


def _protocol_row(atoms: Atoms, trained_variance: str) -> dict[str, object]:
    protocol = json.loads(atoms.protocol)
    return {
        "protocol": protocol["name"],
        "variance": _variance(atoms, trained_variance),
        **{key: protocol[key] for key in ("clip", "decoder", "draws")},
        "steps": steps(atoms),
        "estimator": _estimator(atoms),
        "network_evaluations": _network_evaluations(atoms),
        "split": atoms.split,
        "n_images": len(atoms.image_id),
        "inexact_left_out": atoms.inexact_left_out,
    }


def _paired(
    first: Atoms, first_total: Array, atoms: Atoms, values: Mapping[str, Array]
) -> tuple[Array, Array, Array]:
    if not np.array_equal(first.image_id, atoms.image_id):
        nan = np.array(np.nan)
        return nan, nan, nan
    return _bounds(
        _mean(first if isinstance(first, StratifiedBoundTerms) else atoms, values["total"] - first_total)
    )


def _estimator(atoms: Atoms) -> str:
    return "stratified" if isinstance(atoms, StratifiedBoundTerms) else "full"


def _network_evaluations(atoms: Atoms) -> int:
    if isinstance(atoms, StratifiedBoundTerms):
        return atoms.network_evaluations
    return atoms.terms.size * int(json.loads(atoms.protocol)["draws"])


def _variance(atoms: Atoms, trained_variance: str) -> str:
    name = str(json.loads(atoms.protocol)["variance"])
    return trained_variance if name == "trained" else name


def _mean(atoms: Atoms, values: Array) -> Estimate:
    """Estimate the mean over images of what was made from atoms, ``[image, ...]``, with the error that their
    design leaves.
    """
    if isinstance(atoms, FullBoundTerms) or (atoms.inclusion == 1).all():
        return mean_estimate(values)
    return mean_estimate(values, stratified_by=atoms.offset)


def _at_each_step(atoms: Atoms, values: Array) -> Estimate:
    """Estimate the mean of a per-image quantity at each t from the images that were evaluated there."""
    if isinstance(atoms, FullBoundTerms):
        return mean_estimate(values)
    _, column, entries = _entries(atoms, values)
    return grouped_estimate(entries, column, steps(atoms))


def _evaluated(atoms: Atoms) -> Array:
    if isinstance(atoms, FullBoundTerms):
        return np.full(steps(atoms), len(atoms.image_id))
    return np.bincount(_entries(atoms, atoms.terms)[1], minlength=steps(atoms))


def _bounds(estimate: Estimate) -> tuple[Array, Array, Array]:
    return estimate.value, *estimate.interval()


def _add(frame: pd.DataFrame, name: str, value: Array, low: Array, high: Array) -> None:
    frame[name], frame[f"{name}_low"], frame[f"{name}_high"] = value, low, high


# The ablation, sample quality, training


@dataclass(frozen=True)
class Cell:
    """What is known of one cell of Table 2; ``None`` where a result does not exist (yet)."""

    prediction: str
    objective: str
    variance: str
    log: TrainingLog | None = None
    quality: Quality | None = None
    atoms: Atoms | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """The cell's place in `CELLS`: the paper's names for the specification's."""
        objective = {"vlb": "L", "mse": "MSE"}.get(self.objective, self.objective)
        return self.prediction, objective, "learned" if self.variance.startswith("learned") else "fixed"

    @property
    def status(self) -> str:
        """``diverged`` if training did, ``ok`` if everything was measured, else ``missing``."""
        if self.log is not None and self.log.diverged:
            return "diverged"
        return "missing" if None in (self.log, self.quality, self.atoms) else "ok"


TABLE2_COLUMNS = (
    *("prediction", "objective", "variance", "status", "score", "score_std"),
    *("frechet_distance", "frechet_distance_low", "frechet_distance_high"),
    *("bits_per_dim", "bits_per_dim_low", "bits_per_dim_high"),
    *("n_samples", "features", "paper_inception_score", "paper_fid"),
)


def table2(cells: Sequence[Cell], paper: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's Table 2 with all six cells, in its order and with the columns `TABLE2_COLUMNS`.

    A cell without all its results has status ``missing``; see `ablation_table` for arguments and errors.
    """
    return ablation_table(cells, paper)[list(TABLE2_COLUMNS)]


def ablation_table(cells: Sequence[Cell], paper: pd.DataFrame) -> pd.DataFrame:
    """Return Table 2 with what its figure needs besides: score_low, score_high, reference_distance, n_images.

    Args:
        cells: at most one per place.
        paper: prediction, objective, variance, inception_score, fid.

    Raises:
        ValueError: if a cell is none of the six, or given twice.
    """
    by_key = {cell.key: cell for cell in cells}
    if len(by_key) < len(cells) or not by_key.keys() <= set(CELLS):
        raise ValueError(f"cells must be distinct and among {CELLS}, not {[cell.key for cell in cells]}")
    frame = pd.DataFrame([_cell_row(by_key.get(key, Cell(*key))) for key in CELLS])
    frame = frame.astype({"n_samples": "Int64", "n_images": "Int64"})
    published = paper[["prediction", "objective", "variance", "inception_score", "fid"]]
    published = published.rename(columns={"inception_score": "paper_inception_score", "fid": "paper_fid"})
    return frame.merge(
        published, how="left", on=["prediction", "objective", "variance"], validate="one_to_one"
    )


def _cell_row(cell: Cell) -> dict[str, object]:
    quality, atoms = cell.quality, cell.atoms
    bound = (
        (math.nan,) * 3 if atoms is None else map(float, _bounds(_mean(atoms, bound_values(atoms)["total"])))
    )
    measured = [f"{name}{end}" for name in ("score", "frechet_distance") for end in ("", "_low", "_high")]
    measured += ["score_std", "reference_distance"]
    return {
        **dict(zip(("prediction", "objective", "variance"), cell.key, strict=True)),
        "status": cell.status,
        **{name: math.nan if quality is None else getattr(quality, name) for name in measured},
        **dict(zip(("bits_per_dim", "bits_per_dim_low", "bits_per_dim_high"), bound, strict=True)),
        "n_samples": pd.NA if quality is None else quality.n_samples,
        "features": "" if quality is None else quality.features,
        "n_images": pd.NA if atoms is None else len(atoms.image_id),
    }


_METRICS = (
    "frechet_distance",
    "frechet_infinite",
    "score",
    "kid",
    "precision",
    "recall",
    "mean_confidence",
    "reference_distance",
    "classifier_test_accuracy",
)
"""Fields of `Quality`, each with ``_low`` and ``_high`` but the accuracy, whose interval follows from its
n.
"""


def quality_table(results: Mapping[str, Quality]) -> pd.DataFrame:
    """List every quality figure of the named runs: run, metric, value, low, high, n, features, reference.

    A metric is named as its field of `Quality`; one that was not asked for is left out. All are without unit.
    """
    rows = []
    for run, quality in results.items():
        for metric in _METRICS:
            value = getattr(quality, metric)
            n = (
                quality.n_test
                if metric in ("reference_distance", "classifier_test_accuracy")
                else quality.n_samples
            )
            if metric == "classifier_test_accuracy":
                bounds = share_interval(value, n)
            else:
                bounds = getattr(quality, f"{metric}_low"), getattr(quality, f"{metric}_high")
            if n:  # the test images' rows are of a comparison that included them
                rows.append((run, metric, value, *bounds, n, quality.features, quality.reference))
    frame = pd.DataFrame(
        rows, columns=["run", "metric", "value", "low", "high", "n", "features", "reference"]
    )
    return frame[frame["value"].notna()].reset_index(drop=True)


def memorisation_table(found: Neighbours) -> pd.DataFrame:
    """State per space the probability that a sample is nearer to its training neighbour than a held-out image
    to its own.
    """
    rows = []
    for space, unit in (("pixel", "8-bit levels"), ("feature", "feature units")):
        numbers = [getattr(found, f"{space}_memorisation{end}") for end in ("", "_low", "_high")]
        distance, held_out = getattr(found, f"{space}_distance"), getattr(found, f"held_out_{space}_distance")
        rows.append(
            (
                space,
                *numbers,
                np.median(distance[:, 0]),
                np.median(held_out),
                unit,
                found.n_samples,
                found.n_held_out,
            )
        )
    columns = [
        "space",
        "memorisation",
        "memorisation_low",
        "memorisation_high",
        "median_distance",
        "median_held_out_distance",
    ]
    return pd.DataFrame(rows, columns=[*columns, "unit", "n_samples", "n_held_out"])


def table1(rows: Sequence[Mapping[str, object]], paper: pd.DataFrame) -> pd.DataFrame:
    """Join measured models with the paper's Table 1: quality with the features it was measured in, bits/dim,
    data set.

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
    first = [
        "model",
        "data",
        "conditional",
        "features",
        "score",
        "frechet_distance",
        "test_bits_per_dim",
        "train_bits_per_dim",
    ]
    return frame[[*first, *(column for column in frame if column not in first)]]


def quality_over_time(curve: QualityCurve, timesteps: int) -> pd.DataFrame:
    """List the quality of x0_hat over the reverse process: t, reverse_steps, distance and score with
    intervals.
    """
    frame = _curve_frame(curve)
    frame.insert(0, "reverse_steps", timesteps - curve.position + 1)
    frame.insert(0, "t", curve.position)
    return frame


def quality_over_steps(curves: Sequence[QualityCurve]) -> pd.DataFrame:
    """List the quality of samples against the number of steps: method, steps, seconds_per_image, distance,
    score.
    """
    frames = []
    for curve in curves:
        frame = _curve_frame(curve)
        for name, values in (
            ("seconds_per_image", curve.seconds_per_image),
            ("steps", curve.position),
            ("method", curve.method),
        ):
            frame.insert(0, name, values)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _curve_frame(curve: QualityCurve) -> pd.DataFrame:
    columns = [f"{metric}{end}" for metric in ("frechet_distance", "score") for end in ("", "_low", "_high")]
    return pd.DataFrame({name: getattr(curve, name) for name in columns}).assign(
        n_samples=curve.n_samples, features=curve.features
    )


def training_curve(log: TrainingLog, points: int = 300) -> pd.DataFrame:
    """Average the training log over at most ``points`` equal blocks of updates (the last may be shorter).

    Returns:
        update (of the block's end), loss and gradient_norm (block means; not finite where the run diverged),
        updates (in the block).
    """
    count = len(log.loss)
    starts = np.arange(0, count, max(1, -(-count // points)))
    sizes = np.diff(np.append(starts, count))
    frame = pd.DataFrame({"update": starts + sizes})
    for name in ("loss", "gradient_norm"):
        values = getattr(log, name).astype(np.float64)
        frame[name] = np.add.reduceat(values, starts) / sizes if count else np.empty(0)
    frame["updates"] = sizes
    return frame


def history_table(history: BoundHistory) -> pd.DataFrame:
    """List the bound over a training: update, n_images, and total (bits_per_dim), rate and distortion with
    their intervals.
    """
    frame = pd.DataFrame({"update": history.update, "n_images": len(history.image_id)})
    for name, values in (
        ("bits_per_dim", history.total),
        ("rate", history.rate),
        ("distortion", history.distortion),
    ):
        _add(frame, name, *_bounds(mean_estimate(values.T, stratified_by=history.offset)))
    return frame


def pixel_table(panels: Mapping[str, Array]) -> pd.DataFrame:
    """List images as rows: panel, image, and the 8-bit level of each ``channel_row_column``.

    Args:
        panels: uint8 ``[image, channel, row, column]`` by title.
    """
    frames = []
    for title, images in panels.items():
        names = ["_".join(map(str, index)) for index in np.ndindex(images.shape[1:])]
        pixels = pd.DataFrame(images.reshape(len(images), -1), columns=names)
        frames.append(
            pd.concat([pd.DataFrame({"panel": title, "image": np.arange(len(images))}), pixels], axis=1)
        )
    return pd.concat(frames, ignore_index=True)
