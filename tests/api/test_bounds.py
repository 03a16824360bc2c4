"""The bound of any model on any images: its tables, its precision on demand, comparisons, and bad input."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import digits

from ddpm_eval.api.bounds import Bound, compare_bounds, evaluate_bound
from ddpm_eval.api.network_model import Model
from ddpm_eval.data.image_set import from_array
from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.metrics import bound as estimator
from ddpm_eval.metrics.bound import Estimator
from ddpm_eval.metrics.measured_model import Model as MeasuredModel
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.model.gaussian import Gaussian
from ddpm_eval.protocol import PROTOCOLS, combine
from ddpm_eval.spec import DiffusionSpec

T = 40
SCHEDULE = make_schedule(DiffusionSpec(schedule="cosine", timesteps=T))


@pytest.fixture(scope="module")
def gaussian():
    return Gaussian.fit([to_model_range(torch.from_numpy(digits().array))])


@pytest.fixture(scope="module")
def images():
    return digits("test").subset(np.arange(60))


def model_of(gaussian, predicts="eps", **fields):
    """Return the closed form as a model, in double precision."""
    network = gaussian.network(SCHEDULE, predicts)
    return Model(network, predicts, schedule=SCHEDULE, dtype=torch.float64, **fields)


def quiet(model, images, **options):
    return evaluate_bound(model, images, progress=False, **options)


@pytest.mark.parametrize("variance", ["fixed-large", "fixed-small"])
def test_the_total_is_the_expectation_in_closed_form(gaussian, images, variance):
    """Of 60 images of 40 terms with one draw each, within six standard errors of the noise."""
    draws = combine(PROTOCOLS["exact"], draws=4)
    found = quiet(model_of(gaussian, variance=variance), images, protocol=draws, estimator="full")
    x_0 = to_model_range(torch.from_numpy(images.array)).double()
    exact = gaussian.expected_terms(SCHEDULE, SCHEDULE.fixed_variance(variance), x_0)
    expected = (exact.terms.sum(1) + exact.prior).numpy() / (64 * math.log(2))
    noise = found.terms.values()["total"] - expected
    assert abs(noise.mean()) < 6 * noise.std(ddof=1) / math.sqrt(60)
    assert noise.std() / math.sqrt(60) < 0.02  # so that the comparison says something


@pytest.mark.parametrize("name", ["full", "stratified"])
def test_the_terms_are_those_of_the_estimator_itself(gaussian, images, name):
    model = MeasuredModel(gaussian.network(SCHEDULE, "eps"), SCHEDULE, dtype=None)
    (expected,) = estimator.evaluate_bound(model, images, estimator=name, seed=4)
    found = quiet(model_of(gaussian), images, estimator=name, seed=4)
    np.testing.assert_array_equal(found.terms.terms, expected.terms)
    assert found.seed == 4 and found.data_digest == images.digest


def test_an_array_and_a_set_are_the_same(gaussian, images):
    of_array = quiet(model_of(gaussian), images.array, estimator="full")
    assert of_array.data_digest == from_array(images.array).digest
    of_set = quiet(model_of(gaussian), from_array(images.array), estimator="full")
    np.testing.assert_array_equal(of_array.terms.terms, of_set.terms.terms)


def test_tables_agree_with_each_other(gaussian, images):
    found = quiet(model_of(gaussian), images, estimator="full")
    split = found.split().set_index("quantity")
    assert list(split.columns) == ["bits_per_dim", "low", "high", "n_images", "split", "variance"]
    total = split["bits_per_dim"]
    assert total["total"] == pytest.approx(total[["rate", "distortion", "prior"]].sum(), rel=1e-12)
    assert found.total[:3] == tuple(split.loc["total", ["bits_per_dim", "low", "high"]])
    assert found.halfwidth == pytest.approx((found.total.high - found.total.low) / 2)
    per_step = found.per_step()
    assert list(per_step.columns) == ["t", "bits_per_dim", "low", "high", "n_images"]
    assert per_step["bits_per_dim"][0] == pytest.approx(total["distortion"], rel=1e-12)
    curve = found.rate_distortion()
    assert len(curve) == T
    # the last reverse step has received all KL terms of t > 1
    assert curve["rate_bits_per_dim"].iloc[-1] == pytest.approx(total["rate"], rel=1e-12)
    table = found.table4()
    assert table["reverse_steps"].tolist() == [40, 36, 32, 28, 24, 20, 16, 12, 8, 4]
    assert not [column for column in table if column.startswith("paper_")]
    assert "bits/dim, 60 images, T = 40, full estimator, protocol paper" in repr(found)


def test_the_shape_is_learnt_from_the_first_images(gaussian, images):
    model = model_of(gaussian)
    assert model.shape is None
    quiet(model, images)
    assert model.shape == (1, 8, 8)
    with pytest.raises(ValueError, match="the model is of images of 1x8x8, but these have 3x4x4"):
        quiet(model, np.zeros((2, 3, 4, 4), np.uint8))


def test_a_shorter_chain_is_measured(gaussian, images):
    chain = SCHEDULE.respaced([8, 16, 24, 32, 40])
    (expected,) = estimator.evaluate_bound(
        MeasuredModel(gaussian.network(SCHEDULE, "eps"), chain, dtype=None), images
    )
    found = quiet(model_of(gaussian).respaced(5), images, estimator="full")
    np.testing.assert_array_equal(found.terms.terms, expected.terms)


# Precision on demand


def test_evaluations_are_doubled_until_the_half_width_is_reached(gaussian, images):
    model = model_of(gaussian)
    few = Estimator("stratified", 2)
    widths = [
        quiet(model, images, estimator=replace(few, evaluations_per_image=k)).halfwidth for k in (2, 4, 8)
    ]
    assert widths[1] < widths[0]
    assert quiet(model, images, estimator=few, target_halfwidth=widths[0]).halfwidth == widths[0]
    target = (widths[0] + widths[1]) / 2
    assert quiet(model, images, estimator=few, target_halfwidth=target).halfwidth == widths[1]


def test_a_half_width_that_the_images_do_not_allow_is_told(gaussian, images):
    with pytest.warns(
        UserWarning, match="although all 40 steps of the 60 images were evaluated: 1e-06 needs more"
    ):
        found = quiet(model_of(gaussian), images, target_halfwidth=1e-6)
    full = quiet(model_of(gaussian), images, estimator="full")
    # with every step included the estimate is the full one; terms are stored in single precision
    assert found.total.value == pytest.approx(full.total.value, rel=1e-6)


def test_progress_is_reported_in_network_evaluations(gaussian, images):
    seen = []
    evaluate_bound(model_of(gaussian), images, estimator="full", progress=lambda *event: seen.append(event))
    assert seen[-1] == ("bound test", 60 * T, 60 * T)


# Comparisons


def worse(gaussian, **fields):
    network = gaussian.network(SCHEDULE, "eps")
    return Model(
        lambda x, t: 0.9 * network(x, t), schedule=SCHEDULE, dtype=torch.float64, verify_times=False, **fields
    )


@pytest.mark.parametrize("name", ["full", "stratified"])
def test_a_paired_difference_is_far_more_precise_than_the_totals(gaussian, images, name):
    first, second = (quiet(model, images, estimator=name) for model in (worse(gaussian), model_of(gaussian)))
    table = compare_bounds(first, second, ("worse", "best")).set_index("quantity")
    row = table.loc["total"]
    assert row["difference"] == pytest.approx(first.total.value - second.total.value, rel=1e-9)
    assert row["worse_bits_per_dim"] == pytest.approx(first.total.value, rel=1e-12)
    half = (row["difference_high"] - row["difference_low"]) / 2
    unpaired = math.hypot(first.halfwidth, second.halfwidth)
    assert half < unpaired / 3
    assert row["difference_low"] > 0


def test_comparisons_of_what_is_not_paired_are_refused(gaussian, images):
    first = quiet(model_of(gaussian), images)
    for other, sentence in (
        (quiet(model_of(gaussian), images.subset(np.arange(30))), "different images"),
        (quiet(model_of(gaussian), images, seed=1), r"different seeds of the noise \(0 and 1\)"),
        (quiet(model_of(gaussian).respaced(10), images), r"different numbers of steps \(40 and 10\)"),
        (quiet(model_of(gaussian), images, protocol="exact"), r"different protocols \(paper and exact\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            compare_bounds(first, other)


# Classes


def test_a_conditional_network_is_given_the_labels(images):
    seen = []

    def network(x_t, t, y):
        seen.extend(zip(x_t[:, 0, 0, 0].tolist(), y.tolist(), strict=True))
        return 0.5 * x_t

    model = Model(network, schedule=SCHEDULE, conditional=True)
    found = quiet(model, images, estimator="full")
    assert isinstance(found, Bound)
    assert {y for _, y in seen} == set(images.labels.tolist())
    with pytest.raises(ValueError, match="class-conditional, but the images have no labels"):
        quiet(model, images.array)


# What is refused


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": np.zeros((4, 1, 8, 8))}, "must be 8-bit levels"),
        ({"images": np.zeros((4, 1, 8, 9), np.uint8)}, "must be square"),
        ({"protocol": "papers"}, r"no protocol 'papers' \(paper, exact are"),
        ({"estimator": "full", "target_halfwidth": 0.1}, "is for the stratified estimator"),
        ({"estimator": Estimator("stratified", 1)}, "needs 2 to T = 40"),
        ({"network": lambda x, t: x.repeat(1, 2, 1, 1)}, "does it learn its variance"),
        ({"network": lambda x, t: x * torch.nan}, "output is not finite at t ="),
        ({"network": lambda x, t: (x,)}, "returned a tuple"),
    ],
)
def test_bad_input_gets_one_sentence(images, change, sentence):
    network = change.pop("network", lambda x, t: 0.5 * x)
    chosen = change.pop("images", images)
    with pytest.raises(ValueError, match=sentence) as caught:
        quiet(Model(network, schedule=SCHEDULE), chosen, **change)
    assert "\n" not in str(caught.value)


def test_a_count_of_times_that_is_off_by_one_is_told(gaussian, images):
    network = gaussian.network(SCHEDULE, "eps")

    def from_one(x, t):
        return network(x, (t - 1).clamp(min=0))

    model = Model(from_one, schedule=SCHEDULE, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"better with the time after .*lambda x, t: network\(x, t \+ 1\)"):
        found = quiet(model, images)
    silent = quiet(replace(model, verify_times=False), images)
    assert found.total == silent.total
