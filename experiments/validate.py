"""The production code measured against Gaussian data whose exact answers are known in closed form.

Two oracles (see `ddpm_eval.model.gaussian`) stand in for a trained network, and the library's own stages,
from images through the results file to the tables, must return their exact numbers:

- *digits*: a Gaussian fitted to the digits' training images, its exact denoiser evaluated on the real test
  images. The exact values are of these very images, so that only the noise of the bound is left between
  measured and exact.
- *narrow*: a correlated Gaussian over small colour images, so narrow that x_0 estimates never reach [-1, 1]:
  clipping must change nothing, and rounding samples to 8 bits adds ``(2/255)^2 / 12`` to each variance
  (Sheppard's correction; elements spread over some ten levels make it exact to 1e-100).

A row passes if measured and exact differ by no more than its tolerance: 4.5 standard errors (6 for the worst
    of T terms),
which a correct program exceeds in one of 100,000 rows, or for what has no randomness a stated rounding error.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ddpm_eval.data import datasets, pixels
from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.metrics import bound, quality
from ddpm_eval.model.diffusion import Network, Schedule, evenly_spaced, make_schedule
from ddpm_eval.model.gaussian import BIN, ExpectedTerms, Gaussian, frechet_distance
from ddpm_eval.model.samplers import Method
from ddpm_eval.protocol import PROTOCOLS, Protocol, combine
from ddpm_eval.reporting import analyse
from ddpm_eval.results.records import (
    Array,
    FeatureStatistics,
    FullBoundTerms,
    StratifiedBoundTerms,
    bound_name,
)
from ddpm_eval.runtime import Runtime
from ddpm_eval.spec import DataSpec, NetworkSpec, RunSpec
from ddpm_eval.spec_text import override
from ddpm_eval.stages.likelihood import Likelihood
from ddpm_eval.stages.pipeline import Run
from experiments.paper.presets import preset

STANDARD_ERRORS = 4.5
WORST_STANDARD_ERRORS = 6.0
EXACT = PROTOCOLS["exact"]
N_TRAIN, N_SAMPLES, N_GAUSSIAN = 100, 2048, 256
DRAWS, CHAIN_DRAWS = 4, 16  # noise draws per image and step, which narrow the standard errors
STRIDED_STEPS = 50
SAMPLED_STEPS = (STRIDED_STEPS, 1000)


@dataclass(frozen=True)
class Row:
    """One comparison; ``tolerance`` is in the measured unit, ``standard_error`` is 0 for what has no
    randomness.
    """

    quantity: str
    unit: str
    measured: float
    exact: float
    standard_error: float
    tolerance: float

    @property
    def difference_in_standard_errors(self) -> float:
        """Measured minus exact, in standard errors; NaN where there is none."""
        return (self.measured - self.exact) / self.standard_error if self.standard_error else math.nan

    @property
    def passed(self) -> bool:
        """Whether measured and exact agree to the tolerance; never with a NaN."""
        return abs(self.measured - self.exact) <= self.tolerance


def run(only: str | None, echo: Callable[[str], None]) -> tuple[str, bool]:
    """Run the checks.

    Args:
        only: text that the wanted checks' names contain; None for all of `CHECKS`.
        echo: told what is being done.

    Returns:
        The table as text, and whether every row passed.

    Raises:
        ValueError: if no check has such a name.
    """
    rows = validation_rows(only, echo)
    frame = validation_table(rows)
    failed = [row.quantity for row in rows if not row.passed]
    verdict = f"FAILED: {'; '.join(failed)}" if failed else f"all {len(rows)} rows passed"
    return f"{frame.to_string(index=False, float_format=_number)}\n{verdict}", not failed


def validation_rows(only: str | None = None, echo: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Return the rows of all checks, or of those whose name contains ``only``; see `run`."""
    chosen = {name: check for name, check in CHECKS.items() if only is None or only in name}
    if not chosen:
        raise ValueError(f"no check has {only!r} in its name (there are {', '.join(CHECKS)})")
    rows = []
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        bench = Bench(Path(folder))
        for name, check in chosen.items():
            echo(f"checking {name}")
            rows += check(bench)
    return rows


def validation_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the rows as a table: quantity, unit, measured, exact, difference_in_standard_errors, tolerance,
    passed.
    """
    columns = [
        "quantity",
        "unit",
        "measured",
        "exact",
        "difference_in_standard_errors",
        "tolerance",
        "passed",
    ]
    derived = (
        {"difference_in_standard_errors": row.difference_in_standard_errors, "passed": row.passed}
        for row in rows
    )
    return pd.DataFrame([asdict(row) | extra for row, extra in zip(rows, derived, strict=True)])[columns]


# The two oracles and their runs


class OracleNetwork(nn.Module):
    """A denoiser in the place of a trained network."""

    def __init__(self, denoiser: Network) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.place = nn.Parameter(torch.zeros(()))  # says which device the network is on

    def forward(self, x_t: Tensor, timestep: Tensor) -> Tensor:
        """Predict; see `ddpm_eval.model.diffusion.Network`."""
        return self.denoiser(x_t, timestep)


@dataclass
class Bench:
    """The oracles' runs, made when first needed, in folders that vanish afterwards."""

    folder: Path

    @cached_property
    def digits(self) -> "OracleRun":
        """The Gaussian fitted to the digits."""
        settings = {"evaluation.n_train_images": str(N_TRAIN), "evaluation.evaluations_per_image": "10"}
        spec = override(preset("digits"), settings)
        train, test = (datasets.load(spec.data, split) for split in ("train", "test"))
        return OracleRun(self.folder / "digits", spec, Gaussian.fit([_model_range(train)]), train, test)

    @cached_property
    def narrow(self) -> "OracleRun":
        """The narrow Gaussian over 4x4 colour images."""
        base = preset("digits")
        document = base.model_dump() | {
            "data": DataSpec(name="gaussian", channels=3, side=4),
            "network": NetworkSpec(base_channels=16, multipliers=(1,), norm_groups=4),
        }
        gaussian = narrow_gaussian()
        images = pixels.to_pixels(gaussian.draw(base.seed, torch.arange(2 * N_GAUSSIAN))).numpy()
        train, test = (
            _image_set(part, split)
            for part, split in zip(np.split(images, 2), ("train", "test"), strict=True)
        )
        return OracleRun(self.folder / "narrow", RunSpec.model_validate(document), gaussian, train, test)


class OracleRun:
    """A `pipeline.Run` whose network is an oracle, with the exact values beside it."""

    def __init__(
        self, folder: Path, spec: RunSpec, gaussian: Gaussian, train: ImageSet, test: ImageSet
    ) -> None:
        self.gaussian, self.schedule = gaussian, make_schedule(spec.diffusion)
        self.run = Run(folder, spec, Runtime(torch.device("cpu")))
        network = OracleNetwork(gaussian.network(self.schedule, spec.diffusion.prediction))
        # in the place of what would be read from a checkpoint and a data folder
        self.run.__dict__.update(network=network, weights="oracle", train_images=train, test_images=test)
        self.scale = 1 / (gaussian.dimensions * math.log(2))
        self._expected: dict[str, ExpectedTerms] = {}

    def atoms(self, protocol: Protocol, split: str = "test") -> FullBoundTerms:
        """Return the measured bound, all T steps."""
        self.run.likelihood(split, [protocol])
        return self.run.store.get(bound_name(split, protocol), FullBoundTerms)

    def stratified(self, protocol: Protocol) -> StratifiedBoundTerms:
        """Return the measured bound, a few steps per image."""
        self.run.likelihood("test", [protocol], few=True)
        return self.run.store.get(bound_name("test", protocol, few=True), StratifiedBoundTerms)

    def variance(self, protocol: Protocol) -> Tensor:
        """Return the protocol's table of sigma_t^2."""
        if protocol.variance == "optimal":
            return torch.from_numpy(Likelihood(self.run, "test").optimal_variance(protocol))
        return self.fixed_variance(self.schedule, protocol.variance)

    def fixed_variance(self, schedule: Schedule, name: str = "trained") -> Tensor:
        """Return a fixed choice for a chain; ``trained`` stands for that of the specification."""
        chosen = self.run.spec.diffusion.variance if name == "trained" else name
        return schedule.fixed_variance(chosen)  # type: ignore[arg-type]

    def expected(self, variance: Tensor, ids: Array, split: str = "test") -> ExpectedTerms:
        """Return the exact expectations for the images with these ids."""
        images = self.run.test_images if split == "test" else self.run.train_images
        return self.gaussian.expected_terms(
            self.schedule, variance, _model_range(images)[np.isin(images.ids, ids)]
        )

    def exact_values(self, expected: ExpectedTerms) -> dict[str, Array]:
        """Return each image's exact rate, distortion, prior and total, bits/dim."""
        terms, prior = expected.terms.numpy() * self.scale, expected.prior.numpy() * self.scale
        rate, distortion = terms[:, 1:].sum(1), terms[:, 0]
        return {"rate": rate, "distortion": distortion, "prior": prior, "total": rate + distortion + prior}


def narrow_gaussian() -> Gaussian:
    """Return a correlated Gaussian over 3x4x4 images: means within +-0.3, deviations from 0.01 to 0.18 (1 to
    23 levels).

    Its narrowest direction is about as wide as the decoder, so that what a sampler adds or forgets at its
    last steps is seen.
    """
    generator = torch.Generator().manual_seed(0)
    mean = 0.6 * torch.rand(3, 4, 4, generator=generator, dtype=torch.float64) - 0.3
    basis, _ = torch.linalg.qr(torch.randn(48, 48, generator=generator, dtype=torch.float64))
    return Gaussian(mean, torch.logspace(-4, -1.5, 48, dtype=torch.float64), basis)


# The checks


def check_bound(bench: Bench) -> list[Row]:
    """The split of the bound and its worst terms, on real digits under both fixed variances and the optimal
    one.
    """
    side, rows = bench.digits, []
    protocols = [
        combine(EXACT, variance=name, draws=DRAWS) for name in ("fixed-large", "fixed-small", "optimal")
    ]
    side.run.likelihood("test", protocols)  # together: they share their network evaluations
    for protocol in protocols:
        name, atoms = protocol.variance, side.atoms(protocol)
        expected = side.expected(side.variance(protocol), atoms.image_id)
        exact, measured = side.exact_values(expected), analyse.bound_values(atoms)
        for quantity in ("rate", "distortion", "total") if name == "fixed-large" else ("total",):
            rows.append(
                _paired(f"digits, {name}: {quantity}", "bits/dim", measured[quantity], exact[quantity])
            )
        terms = analyse.term_values(atoms), expected.terms.numpy() * side.scale
        rows.append(_worst(f"digits, {name}: worst term", "bits/dim", *terms))
    errors = atoms.x_0_squared_error.astype(np.float64), expected.x_0_squared_error.numpy()
    rows.append(_worst("digits: worst error of x0_hat", "mean square", *errors))
    rows.append(
        _rounding("digits: prior", "bits/dim", measured["prior"].mean(), exact["prior"].mean(), 1e-12)
    )
    return rows


def check_optimal_variance(bench: Bench) -> list[Row]:
    """The variance estimated from the model's errors against that of the same images' exact errors."""
    side = bench.digits
    protocol = combine(EXACT, variance="optimal")
    measured = Likelihood(side.run, "test").optimal_variance(protocol)
    atoms = side.atoms(EXACT, "train")
    expected = side.expected(side.schedule.fixed_variance("fixed-large"), atoms.image_id, "train")
    weight = side.schedule.mean_weight_x_0[1:].square().numpy()
    beta_tilde = side.schedule.beta_tilde[1:].numpy()
    from_measured, from_exact = (
        beta_tilde + weight * errors
        for errors in (atoms.x_0_squared_error.astype(np.float64), expected.x_0_squared_error.numpy())
    )
    row = _worst("digits: worst of the optimal variances", "variance", from_measured, from_exact)
    t = int(row.quantity.rpartition(" = ")[2])
    used = _rounding(
        f"digits: optimal variance in use at t = {t}", "variance", measured[t], row.measured, 1e-6
    )
    return [row, used]


def check_rate_distortion(bench: Bench) -> list[Row]:
    """Table 4's rates and errors."""
    side = bench.digits
    atoms = side.atoms(combine(EXACT, variance="fixed-large", draws=DRAWS))
    expected = side.expected(side.schedule.fixed_variance("fixed-large"), atoms.image_id)
    table = analyse.table4(atoms).set_index("reverse_steps")
    measured_rate, exact_rate = (
        _received(x) for x in (analyse.term_values(atoms), expected.terms.numpy() * side.scale)
    )
    errors = atoms.x_0_squared_error.astype(np.float64), expected.x_0_squared_error.numpy()
    rows = []
    for steps in (300, 600, 900, 1000):
        j = atoms.terms.shape[1] - steps
        rate = _paired(
            f"digits, after {steps} steps: rate", "bits/dim", measured_rate[:, j], exact_rate[:, j]
        )
        rows.append(_stated(rate, float(table.loc[steps, "rate_bits_per_dim"])))
        square = _paired("", "", errors[0][:, j], errors[1][:, j])
        root = 127.5 * math.sqrt(square.exact)
        error = root * square.standard_error / (2 * square.exact)  # of the root, to first order
        label = f"digits, after {steps} steps: RMSE"
        rows.append(_row(label, "8-bit levels", float(table.loc[steps, "rmse_255"]), root, error))
    return rows


def check_stratified(bench: Bench) -> list[Row]:
    """The cheap estimator's total and split; its standard error ignores the stratification, which only
    narrows it.
    """
    side = bench.digits
    atoms = side.stratified(EXACT)
    exact = side.exact_values(side.expected(side.variance(EXACT), atoms.image_id))
    measured = analyse.bound_values(atoms)
    return [
        _paired(f"digits, stratified: {quantity}", "bits/dim", measured[quantity], exact[quantity])
        for quantity in ("rate", "distortion", "total")
    ]


def check_chains(bench: Bench) -> list[Row]:
    """Predictions of mu and x_0, and a strided chain, evaluated in float64 without the pipeline."""
    side = bench.digits
    x_0 = _model_range(side.run.test_images)
    totals = {p: _total(side, side.schedule, p, x_0[:16]).mean() for p in ("eps", "mu", "x0")}
    rows = [
        _rounding(f"digits, 16 images: total from {p}, not eps", "bits/dim", totals[p], totals["eps"], 1e-9)
        for p in ("mu", "x0")
    ]
    chain = side.schedule.respaced(evenly_spaced(side.schedule.timesteps, STRIDED_STEPS))
    expected = side.gaussian.expected_terms(chain, chain.fixed_variance("fixed-large"), x_0)
    exact, measured = side.exact_values(expected)["total"], _total(side, chain, "eps", x_0, CHAIN_DRAWS)
    return [*rows, _paired(f"digits, chain of {STRIDED_STEPS} steps: total", "bits/dim", measured, exact)]


def check_gaussian_data(bench: Bench) -> list[Row]:
    """The narrow Gaussian: 8-bit images one by one, clipping that never acts, and continuous data as a
    population.
    """
    side = bench.narrow
    protocols = [combine(EXACT, clip=clip, variance="fixed-small") for clip in (False, True)]
    side.run.likelihood("test", protocols)
    free, clipped = (
        side.run.store.get(bound_name("test", protocol), FullBoundTerms) for protocol in protocols
    )
    variance = side.schedule.fixed_variance("fixed-small")
    measured = analyse.bound_values(free)
    exact = side.exact_values(side.expected(variance, free.image_id))
    rows = [
        _paired(f"narrow, fixed-small: {quantity}", "bits/dim", measured[quantity], exact[quantity])
        for quantity in ("rate", "distortion", "total")
    ]
    total = analyse.bound_values(clipped)["total"].mean()
    rows.append(_rounding("narrow, clipped: total", "bits/dim", total, measured["total"].mean(), 1e-12))
    x_0 = side.gaussian.draw(1, torch.arange(N_GAUSSIAN))
    population = side.exact_values(
        side.gaussian.expected_bound(side.schedule, side.schedule.fixed_variance("fixed-large"))
    )
    values = _total(side, side.schedule, "eps", x_0)
    rows.append(
        _paired(
            "narrow, continuous data: total", "bits/dim", values, np.full(len(x_0), population["total"][0])
        )
    )
    return rows


def check_sampler(bench: Bench) -> list[Row]:
    """The law of stored 8-bit samples: ancestral, strided and DDIM."""
    side, rows = bench.narrow, []
    for steps in SAMPLED_STEPS:
        chain = side.schedule.respaced(evenly_spaced(side.schedule.timesteps, steps))
        laws: dict[Method, Gaussian] = {
            "ancestral": side.gaussian.sampler_output(chain, side.fixed_variance(chain)),
            "ddim": side.gaussian.ddim_output(chain),
        }
        for method, law in laws.items():
            images = side.run.sample(N_SAMPLES, steps, method)
            x = pixels.to_model_range(torch.from_numpy(images)).double()
            rounded = Gaussian(law.mean, law.eigenvalues + BIN**2 / 12, law.basis)
            rows += _law(f"narrow, {method} in {steps} steps", x, rounded)
    return rows


def check_frechet(bench: Bench) -> list[Row]:
    """The Frechet distance of features with known moments, to rounding."""
    data_law, rows = bench.narrow.gaussian, []
    chain = bench.narrow.schedule.respaced(evenly_spaced(1000, 10))
    laws = {
        "itself": data_law,
        "a 10-step sampler's law": data_law.sampler_output(chain, chain.fixed_variance("fixed-large")),
        "a shifted standard normal": Gaussian(
            data_law.mean + 1, torch.ones(48, dtype=torch.float64), torch.eye(48).double()
        ),
    }
    for name, law in laws.items():
        reference = _statistics(data_law)
        features = _with_exact_moments(law, 500)
        measured = quality.frechet(features.astype(np.float32), reference).value
        exact = frechet_distance(law, data_law)
        # float32 features move means and standard deviations by 1e-8 of the largest feature
        rows.append(
            _row(
                f"Frechet distance to {name}", "squared feature", measured, exact, 0.0, 1e-6 * max(1.0, exact)
            )
        )
    return rows


CHECKS: dict[str, Callable[[Bench], list[Row]]] = {
    "bound": check_bound,
    "optimal-variance": check_optimal_variance,
    "rate-distortion": check_rate_distortion,
    "stratified": check_stratified,
    "chains": check_chains,
    "gaussian-data": check_gaussian_data,
    "sampler": check_sampler,
    "frechet": check_frechet,
}


# Rows


def _row(
    quantity: str, unit: str, measured: float, exact: float, error: float, tolerance: float | None = None
) -> Row:
    return Row(
        quantity,
        unit,
        float(measured),
        float(exact),
        error,
        STANDARD_ERRORS * error if tolerance is None else tolerance,
    )


def _rounding(quantity: str, unit: str, measured: float, exact: float, relative: float) -> Row:
    """Compare what has no randomness."""
    return _row(quantity, unit, measured, exact, 0.0, relative * abs(exact))


def _paired(quantity: str, unit: str, measured: Array, exact: Array) -> Row:
    """Compare means over images ``[image]``; the standard error is that of the differences."""
    error = float((measured - exact).std(ddof=1)) / math.sqrt(len(measured))
    return _row(quantity, unit, measured.mean(), exact.mean(), error)


def _stated(row: Row, measured: float) -> Row:
    """Put the number that a table states in the place of the one computed here."""
    return _row(row.quantity, row.unit, measured, row.exact, row.standard_error)


def _worst(quantity: str, unit: str, measured: Array, exact: Array) -> Row:
    """Compare means over images ``[image, t]`` at the time where they differ by the most standard errors."""
    difference = measured - exact
    z = np.abs(difference.mean(0)) * math.sqrt(len(difference)) / difference.std(0, ddof=1)
    j = int(np.argmax(z))
    row = _paired(f"{quantity}, t = {j + 1}", unit, measured[:, j], exact[:, j])
    return Row(
        row.quantity,
        unit,
        row.measured,
        row.exact,
        row.standard_error,
        WORST_STANDARD_ERRORS * row.standard_error,
    )


def _law(label: str, x: Tensor, law: Gaussian) -> list[Row]:
    """Compare samples with a Gaussian in its own whitened coordinates, where means, variances and
    correlations are known.
    """
    white = ((x - law.mean).flatten(1) @ law.basis / law.eigenvalues.sqrt()).numpy()
    n, d = white.shape
    second = white.T @ white / n
    off_diagonal = n * (np.square(second).sum() - np.square(np.diag(second)).sum()) / 2
    spectrum = n / 2 * np.square(np.diag(second) - 1).sum()
    pairs = d * (d - 1) / 2
    return [
        _row(f"{label}: chi2 of the means", "1", n * np.square(white.mean(0)).sum(), d, math.sqrt(2 * d)),
        _row(f"{label}: mean variance ratio", "1", np.diag(second).mean(), 1.0, math.sqrt(2 / (n * d))),
        _row(f"{label}: chi2 of the variances", "1", spectrum, d, math.sqrt(2 * d)),
        _row(f"{label}: chi2 of the correlations", "1", off_diagonal, pairs, math.sqrt(2 * pairs)),
    ]


# Their ingredients


def _total(side: OracleRun, schedule: Schedule, prediction: str, x_0: Tensor, draws: int = 1) -> Array:
    """Return each image's total, bits/dim, with all arithmetic in float64."""
    network = side.gaussian.network(side.schedule if prediction == "eps" else schedule, prediction)  # type: ignore[arg-type]
    model = bound.Model(network, schedule, prediction, "fixed-large")  # type: ignore[arg-type]
    n, steps = len(x_0), schedule.timesteps
    pairs = np.stack(np.meshgrid(np.arange(n), np.arange(1, steps + 1), indexing="ij"), axis=-1).reshape(
        -1, 2
    )
    terms, _ = bound.evaluate_pairs(
        [model.reading(EXACT)],
        lambda positions: x_0[torch.from_numpy(positions)],
        np.arange(n),
        pairs,
        seed=1,
        draws=draws,
        batch_size=256,
        progress=lambda _: None,
    )
    prior = bound.prior_terms(schedule, lambda positions: x_0[torch.from_numpy(positions)], np.arange(n))
    total: Array = (terms.reshape(n, steps).sum(1) + prior) * side.scale
    return total


def _received(terms: Array) -> Array:
    """Sum the terms of all later times, ``[image, t]``: what was received before x_0 is estimated at t."""
    return np.asarray(terms[:, ::-1].cumsum(1)[:, ::-1] - terms)


def _with_exact_moments(law: Gaussian, n: int) -> Array:
    """Return ``[n, D]`` rows whose sample mean and unbiased covariance are the law's to rounding."""
    noise = np.random.default_rng(0).standard_normal((n, law.dimensions))
    orthogonal, _ = np.linalg.qr(noise - noise.mean(0))
    white = orthogonal * math.sqrt(n - 1)
    root = (law.basis * law.eigenvalues.sqrt()).numpy()
    rows: Array = law.mean.flatten().numpy() + white @ root.T
    return rows


def _statistics(law: Gaussian) -> FeatureStatistics:
    return FeatureStatistics(
        mean=law.mean.flatten().numpy(),
        covariance=law.covariance.numpy(),
        n_images=0,
        data_digest="",
        split="train",
        features="oracle",
        weights_digest="",
        resize="",
    )


def _model_range(images: ImageSet) -> Tensor:
    return pixels.to_model_range(torch.from_numpy(images.array)).double()


def _image_set(images: Array, split: str) -> ImageSet:
    _, channels, side, _ = images.shape
    ids, none = np.arange(len(images)), np.array([], np.int64)
    return ImageSet("gaussian", split, ids, None, none, f"oracle-{split}", channels, side, images)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: these tensors are so small that threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _number(value: float) -> str:
    return f"{value:.6g}"
