"""The checks of `validate`: each measures a Gaussian model and compares the results with its exact values.

A check is a function from the two models (`experiments.validation_models`) to rows, each of which compares
one measured number with its exact value (`experiments.validation_row`).
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.metrics import bound, distances
from ddpm_eval.metrics.measured_model import Model
from ddpm_eval.model.diffusion import Schedule
from ddpm_eval.model.gaussian import BIN, ExpectedTerms, Gaussian, frechet_distance
from ddpm_eval.protocol import ProtocolVariance, combine
from ddpm_eval.reporting.rate_distortion_tables import table4
from ddpm_eval.results.bound_terms import FullBoundTerms
from ddpm_eval.results.fields import Array
from ddpm_eval.results.records import FeatureStatistics
from ddpm_eval.spec import Method, Prediction
from experiments.validation_models import EXACT, GaussianModel, GaussianModels, in_model_range
from experiments.validation_row import (
    Row,
    law_rows,
    paired_row,
    quantity_rows,
    rooted_row,
    rounding_row,
    with_stated_value,
    worst_row,
)

BITS_PER_DIM = "bits/dim"
DRAWS = 4
"""Noise draws per image and step of the digits' bound, which narrow the standard errors."""
CHAIN_DRAWS = 16
"""Noise draws per image and step of the shorter chain's bound."""
N_SAMPLES = 2048
STRIDED_STEPS = 50
SAMPLED_STEPS = (STRIDED_STEPS, 1000)
FIXED_LARGE: ProtocolVariance = "fixed-large"
VARIANCES: tuple[ProtocolVariance, ...] = (FIXED_LARGE, "fixed-small", "optimal")


def check_bound(models: GaussianModels) -> list[Row]:
    """Check the split of the bound and its worst terms, on real digits under three variances."""
    digits = models.digits
    protocols = [combine(EXACT, variance=name, draws=DRAWS) for name in VARIANCES]
    rows = []
    for protocol, terms in zip(protocols, digits.full_bounds(protocols), strict=True):
        label = f"digits, {protocol.variance}"
        expected = digits.expected_terms(digits.variance(protocol), terms.image_id)
        measured = terms.values()
        exact = digits.exact_values(expected)
        chosen = ("rate", "distortion", "total") if protocol.variance == FIXED_LARGE else ("total",)
        rows += quantity_rows(label, measured, exact, chosen)
        worst = terms.term_values(), digits.bits_per_dim(expected.terms)
        rows.append(worst_row(f"{label}: worst term", BITS_PER_DIM, *worst))
    rows.append(worst_row("digits: worst error of x0_hat", "mean square", *_squared_errors(terms, expected)))
    prior = measured["prior"].mean(), exact["prior"].mean()
    rows.append(rounding_row("digits: prior", BITS_PER_DIM, *prior, 1e-12))
    return rows


def check_optimal_variance(models: GaussianModels) -> list[Row]:
    """Check the variance from the model's errors against that from the same images' exact errors."""
    digits = models.digits
    in_use = digits.optimal_variance()
    (terms,) = digits.full_bounds([EXACT], "train")
    schedule = digits.schedule
    expected = digits.expected_terms(schedule.fixed_variance("fixed-large"), terms.image_id, "train")
    weight = schedule.mean_weight_x_0[1:].square().numpy()
    beta_tilde = schedule.beta_tilde[1:].numpy()
    measured, exact = (beta_tilde + weight * errors for errors in _squared_errors(terms, expected))
    worst = worst_row("digits: worst of the optimal variances", "variance", measured, exact)
    t = int(worst.quantity.rpartition(" = ")[2])
    label = f"digits: optimal variance in use at t = {t}"
    return [worst, rounding_row(label, "variance", in_use[t], worst.measured, 1e-6)]


def check_rate_distortion(models: GaussianModels) -> list[Row]:
    """Check Table 4's rates and errors."""
    digits = models.digits
    (terms,) = digits.full_bounds([combine(EXACT, variance=FIXED_LARGE, draws=DRAWS)])
    expected = digits.expected_terms(digits.schedule.fixed_variance("fixed-large"), terms.image_id)
    table = table4(terms).set_index("reverse_steps")
    measured_rate = _received(terms.term_values())
    exact_rate = _received(digits.bits_per_dim(expected.terms))
    measured_error, exact_error = _squared_errors(terms, expected)
    rows = []
    for steps in (300, 600, 900, 1000):
        label = f"digits, after {steps} steps"
        j = terms.num_steps - steps
        rate = paired_row(f"{label}: rate", BITS_PER_DIM, measured_rate[:, j], exact_rate[:, j])
        rows.append(with_stated_value(rate, float(table.loc[steps, "rate_bits_per_dim"])))
        square = paired_row(f"{label}: RMSE", "mean square", measured_error[:, j], exact_error[:, j])
        root = rooted_row(square, "8-bit levels", 127.5)
        rows.append(with_stated_value(root, float(table.loc[steps, "rmse_255"])))
    return rows


def check_stratified(models: GaussianModels) -> list[Row]:
    """Check the stratified estimator's total and split.

    The standard error ignores the stratification, which only narrows it.
    """
    digits = models.digits
    terms = digits.stratified_bound(EXACT)
    expected = digits.expected_terms(digits.variance(EXACT), terms.image_id)
    return quantity_rows("digits, stratified", terms.values(), digits.exact_values(expected))


def check_chains(models: GaussianModels) -> list[Row]:
    """Check predictions of mu and x_0, and a shorter chain, in float64 and without a results file."""
    digits = models.digits
    x_0 = in_model_range(digits.test_images)
    predictions: tuple[Prediction, ...] = ("eps", "mu", "x0")
    totals = {p: _total(digits, digits.schedule, p, x_0[:16]).mean() for p in predictions}
    rows = []
    for p in ("mu", "x0"):
        label = f"digits, 16 images: total from {p}, not eps"
        rows.append(rounding_row(label, BITS_PER_DIM, totals[p], totals["eps"], 1e-9))
    chain = digits.chain(STRIDED_STEPS)
    expected = digits.gaussian.expected_terms(chain, chain.fixed_variance("fixed-large"), x_0)
    measured = _total(digits, chain, "eps", x_0, CHAIN_DRAWS)
    exact = digits.exact_values(expected)["total"]
    label = f"digits, chain of {STRIDED_STEPS} steps: total"
    return [*rows, paired_row(label, BITS_PER_DIM, measured, exact)]


def check_gaussian_data(models: GaussianModels) -> list[Row]:
    """Check 8-bit images one by one, clipping that never acts, and continuous data as a population."""
    narrow = models.narrow
    protocols = [combine(EXACT, clip=clip, variance="fixed-small") for clip in (False, True)]
    free, clipped = narrow.full_bounds(protocols)
    measured = free.values()
    expected = narrow.expected_terms(narrow.schedule.fixed_variance("fixed-small"), free.image_id)
    rows = quantity_rows("narrow, fixed-small", measured, narrow.exact_values(expected))
    totals = clipped.values()["total"].mean(), measured["total"].mean()
    rows.append(rounding_row("narrow, clipped: total", BITS_PER_DIM, *totals, 1e-12))
    x_0 = narrow.gaussian.draw(1, torch.arange(len(narrow.test_images)))
    large = narrow.schedule.fixed_variance("fixed-large")
    population = narrow.exact_values(narrow.gaussian.expected_bound(narrow.schedule, large))
    total = _total(narrow, narrow.schedule, "eps", x_0)
    exact = np.full(len(x_0), population["total"][0])
    return [*rows, paired_row("narrow, continuous data: total", BITS_PER_DIM, total, exact)]


def check_sampler(models: GaussianModels) -> list[Row]:
    """Check the law of stored 8-bit samples, ancestral and DDIM, on a shorter chain and on all steps."""
    narrow = models.narrow
    rows = []
    for steps in SAMPLED_STEPS:
        chain = narrow.chain(steps)
        laws: dict[Method, Gaussian] = {
            "ancestral": narrow.gaussian.sampler_output(chain, chain.fixed_variance("fixed-large")),
            "ddim": narrow.gaussian.ddim_output(chain),
        }
        for method, law in laws.items():
            samples = torch.from_numpy(narrow.samples(N_SAMPLES, steps, method))
            rounded = Gaussian(law.mean, law.eigenvalues + BIN**2 / 12, law.basis)
            label = f"narrow, {method} in {steps} steps"
            rows += law_rows(label, to_model_range(samples).double(), rounded)
    return rows


def check_frechet(models: GaussianModels) -> list[Row]:
    """Check the Frechet distance of features with known moments, to rounding."""
    data_law = models.narrow.gaussian
    chain = models.narrow.chain(10)
    standard_normal = torch.ones(48, dtype=torch.float64), torch.eye(48).double()
    laws = {
        "itself": data_law,
        "a 10-step sampler's law": data_law.sampler_output(chain, chain.fixed_variance("fixed-large")),
        "a shifted standard normal": Gaussian(data_law.mean + 1, *standard_normal),
    }
    reference = _statistics(data_law)
    rows = []
    for name, law in laws.items():
        features = rows_with_exact_moments(law, 500).astype(np.float32)
        measured = distances.frechet(features, reference).value
        exact = frechet_distance(law, data_law)
        # float32 features move means and standard deviations by 1e-8 of the largest feature
        tolerance = 1e-6 * max(1.0, exact)
        rows.append(Row(f"Frechet distance to {name}", "squared feature", measured, exact, 0.0, tolerance))
    return rows


CHECKS: dict[str, Callable[[GaussianModels], list[Row]]] = {
    "bound": check_bound,
    "optimal-variance": check_optimal_variance,
    "rate-distortion": check_rate_distortion,
    "stratified": check_stratified,
    "chains": check_chains,
    "gaussian-data": check_gaussian_data,
    "sampler": check_sampler,
    "frechet": check_frechet,
}


def rows_with_exact_moments(law: Gaussian, n: int) -> Array:
    """Return ``[n, D]`` rows whose sample mean and unbiased covariance are the law's to rounding."""
    noise = np.random.default_rng(0).standard_normal((n, law.dimensions))
    orthogonal, _ = np.linalg.qr(noise - noise.mean(0))
    white = orthogonal * math.sqrt(n - 1)
    root = (law.basis * law.eigenvalues.sqrt()).numpy()
    rows: Array = law.mean.flatten().numpy() + white @ root.T
    return rows


def _total(
    model: GaussianModel, schedule: Schedule, prediction: Prediction, x_0: Tensor, draws: int = 1
) -> Array:
    """Return each image's total under variance ``fixed-large``, bits/dim, with all arithmetic in float64."""
    network = model.gaussian.network(model.schedule if prediction == "eps" else schedule, prediction)
    in_float64 = Model(network, schedule, prediction, "fixed-large", dtype=None)
    n = len(x_0)
    steps = schedule.timesteps
    image, t = np.indices((n, steps)).reshape(2, -1)
    terms, _ = bound.evaluate_pairs(
        [in_float64.under(EXACT)],
        lambda positions: x_0[torch.from_numpy(positions)],
        np.arange(n),
        np.stack([image, t + 1], axis=1),
        seed=1,
        draws=draws,
        batch_size=256,
        progress=lambda _: None,
    )
    prior = bound.prior_terms(schedule, lambda positions: x_0[torch.from_numpy(positions)], np.arange(n))
    total: Array = (terms.reshape(n, steps).sum(1) + prior) * model.bits_per_nat
    return total


def _squared_errors(terms: FullBoundTerms, expected: ExpectedTerms) -> tuple[Array, Array]:
    """Return the measured and the exact squared errors of x0_hat, float64 ``[image, t]``."""
    return terms.x_0_squared_error.astype(np.float64), expected.x_0_squared_error.numpy()


def _received(terms: Array) -> Array:
    """Sum the terms of all later times, ``[image, t]``: what was received before x_0 is estimated at t."""
    return np.asarray(terms[:, ::-1].cumsum(1)[:, ::-1] - terms)


def _statistics(law: Gaussian) -> FeatureStatistics:
    return FeatureStatistics(
        mean=law.mean.flatten().numpy(),
        covariance=law.covariance.numpy(),
        n_images=0,
        data_digest="",
        split="train",
        features="gaussian",
        weights_digest="",
        resize="",
    )
