"""A network with its schedule: variances by name and as tables, and the classes of images."""

import numpy as np
import pytest
import torch

from ddpm_eval.data.image_set import from_array, in_memory_set
from ddpm_eval.metrics.bound import evaluate_bound
from ddpm_eval.metrics.measured_model import Model
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.protocol import PROTOCOLS, Protocol, combine
from ddpm_eval.spec import DiffusionSpec

SCHEDULE = make_schedule(DiffusionSpec(timesteps=8, beta_start=1e-3, beta_end=0.6))
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4)).astype(np.uint8)
LABELS = np.array([2, 0, 1, 1, 0, 2])


def eps(x_t, timestep):
    return 0.5 * x_t


def conditional(x_t, timestep, y):
    return (0.3 + 0.2 * y.reshape(-1, 1, 1, 1)) * x_t


def bound(model, images=PIXELS, protocol="exact", **options):
    (terms,) = evaluate_bound(model, images, [PROTOCOLS[protocol]], **options)
    return terms


def under(protocol, trained="fixed-large"):
    return Model(eps, SCHEDULE, "eps", trained).under(protocol)


def test_a_protocol_chooses_variance_clipping_and_decoder():
    paper, exact = (under(PROTOCOLS[name]) for name in ("paper", "exact"))
    assert paper.process.clip and not exact.process.clip
    assert (paper.decoder, exact.decoder) == ("tanh", "exact")
    for name in ("fixed-large", "fixed-small"):
        expected = SCHEDULE.fixed_variance(name)[1:]
        chosen = under(combine(PROTOCOLS["paper"], variance=name))
        assert torch.equal(chosen.process.variance[1:], expected)
        trained = under(PROTOCOLS["paper"], name)
        assert torch.equal(trained.process.variance[1:], expected)
    for name in ("learned", "learned-range"):
        assert under(PROTOCOLS["exact"], name).process.variance == name
        over = under(combine(PROTOCOLS["exact"], variance="fixed-small"), name)
        assert isinstance(over.process.variance, torch.Tensor)


def test_the_variance_of_a_protocol_has_a_name():
    model = Model(eps, SCHEDULE, "eps", "fixed-small")
    assert model.variance_name(PROTOCOLS["paper"]) == "fixed-small"
    assert model.variance_name(combine(PROTOCOLS["paper"], variance="optimal")) == "optimal"


@pytest.mark.parametrize(("trained", "asked"), [("fixed-large", "learned"), ("learned", "learned-range")])
def test_a_variance_that_the_model_has_not_is_refused(trained, asked):
    protocol = Protocol(name="mine", variance=asked, clip=False, decoder="exact")
    message = f"variance '{asked}' asked for, but this model was trained with '{trained}'"
    with pytest.raises(ValueError, match=message):
        under(protocol, trained)


def test_the_optimal_variance_needs_an_estimate_with_the_same_clipping():
    optimal = combine(PROTOCOLS["exact"], variance="optimal")
    table = np.linspace(0, 1, 9)
    for tables in ({}, {True: table}):
        with pytest.raises(ValueError, match="needs an estimate of the model's errors"):
            Model(eps, SCHEDULE, optimal_variance=tables).under(optimal)
    found = Model(eps, SCHEDULE, optimal_variance={False: table}).under(optimal)
    np.testing.assert_array_equal(found.process.variance.numpy(), table)


def test_the_network_sees_the_type_it_was_made_for():
    seen = []

    def network(x_t, timestep):
        seen.append(x_t.dtype)
        return x_t

    x, t = torch.zeros(1, 1, 4, 4, dtype=torch.float64), torch.tensor([1])
    for dtype in (torch.float32, torch.bfloat16, None):
        Model(network, SCHEDULE, dtype=dtype).evaluate(x, t)
    assert seen == [torch.float32, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("name", ["fixed-large", "fixed-small"])
def test_a_table_of_a_fixed_variance_gives_its_terms(name):
    by_name = bound(Model(eps, SCHEDULE, "eps", name))
    table = Model(eps, SCHEDULE, "eps", SCHEDULE.fixed_variance(name).float().double())
    by_table = bound(table)
    # the table was rounded to single precision, 6e-8 of each variance, and a term has 16 elements
    np.testing.assert_allclose(by_table.terms, by_name.terms, rtol=1e-5, atol=1e-5)
    assert (by_name.variance, by_table.variance) == (name, "table")


def test_a_model_with_a_table_has_no_learned_variance_but_fixed_ones():
    table = Model(eps, SCHEDULE, "eps", SCHEDULE.fixed_variance("fixed-large"))
    with pytest.raises(
        ValueError, match="variance 'learned' asked for, but this model was trained with 'table'"
    ):
        table.under(combine(PROTOCOLS["exact"], variance="learned"))
    small = table.under(combine(PROTOCOLS["exact"], variance="fixed-small"))
    assert torch.equal(small.process.variance[1:], SCHEDULE.fixed_variance("fixed-small")[1:])


@pytest.mark.parametrize("options", [{}, {"estimator": "stratified"}, {"batch_size": 5}])
def test_every_image_is_evaluated_with_its_own_class(options):
    """In any batch, each image's terms are those of the network of its class alone; ids are not positions."""
    ids = np.array([40, 7, 99, 12, 0, 3])
    images = in_memory_set("array", "test", PIXELS, ids, LABELS)
    found = bound(Model(conditional, SCHEDULE, conditional=True), images, **options)
    for y in range(3):

        def of_class(x_t, timestep, y=y):
            return conditional(x_t, timestep, torch.tensor([y]))

        alone = bound(Model(of_class, SCHEDULE), images)
        rows = np.flatnonzero(LABELS == y)
        if options.get("estimator") == "stratified":
            expected = np.where(found.t > 0, np.take_along_axis(alone.terms, found.t - 1, axis=1), 0)
        else:
            expected = alone.terms
        np.testing.assert_allclose(found.terms[rows], expected[rows], rtol=1e-6)


def test_a_conditional_network_needs_labels():
    model = Model(conditional, SCHEDULE, conditional=True)
    with pytest.raises(ValueError, match="class-conditional, but the images have no labels"):
        bound(model)
    assert np.isfinite(bound(model, from_array(PIXELS, labels=LABELS)).terms).all()


def test_labels_of_images_do_not_disturb_an_unconditional_network():
    np.testing.assert_array_equal(
        bound(Model(eps, SCHEDULE), from_array(PIXELS, labels=LABELS)).terms,
        bound(Model(eps, SCHEDULE)).terms,
    )
