"""Work items: kept when they are finished, divided among processes, joined in their order."""

import numpy as np
import pytest
from counted_run import Killed
from tiny import HERE
from two_processes import Together, side_by_side

from ddpm_eval.metrics.bound import NotFinite, evaluate_bound
from ddpm_eval.metrics.measured_model import Model
from ddpm_eval.metrics.work import SERIAL
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.protocol import PROTOCOLS, combine
from ddpm_eval.results.fields import array_fields
from ddpm_eval.spec import DiffusionSpec
from ddpm_eval.stages.shared_work import SharedWork

ITEMS = [[3, 1], [2], [5], [4, 4, 4]]
COSTS = [2, 1, 1, 3]


class Squares:
    """Computes squares, notes for which items, and is killed by item ``bad``."""

    def __init__(self, bad=None, error=Killed):
        self.bad, self.error = bad, error
        self.done = []

    def __call__(self, item):
        if item == self.bad:
            raise self.error("at this item")
        self.done.append(item)
        return {"square": np.array(item) ** 2}


def shared(folder, key="key", runtime=HERE, progress=lambda *event: None):
    return SharedWork(folder / "work", key, runtime, progress)


def both(folder, progress=lambda rank, *event: None):
    """Return the work of two processes."""
    runtimes = [Together(HERE.device, rank, world_size=2) for rank in (0, 1)]
    return [
        shared(folder, "key", runtime, lambda *event, rank=runtime.rank: progress(rank, *event))
        for runtime in runtimes
    ]


def test_items_are_joined_in_their_order(tmp_path):
    found = shared(tmp_path).map("squares", "key", ITEMS, Squares(), COSTS)
    expected = SERIAL.map("squares", "key", ITEMS, Squares(), COSTS)
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["square"], [9, 1, 4, 25, 16, 16, 16])
    np.testing.assert_array_equal(found["square"], expected["square"])


def test_finished_items_are_kept_after_a_kill(tmp_path):
    with pytest.raises(Killed):
        shared(tmp_path).map("squares", "key", ITEMS, Squares(bad=[5]), COSTS)
    second = Squares()
    found = shared(tmp_path).map("squares", "key", ITEMS, second, COSTS)
    assert second.done == [[5], [4, 4, 4]]
    np.testing.assert_array_equal(found["square"], [9, 1, 4, 25, 16, 16, 16])


@pytest.mark.parametrize("damage", [lambda content: content[:-40], lambda content: b"no HDF5"])
def test_a_damaged_item_is_computed_again(tmp_path, damage):
    with pytest.raises(Killed):
        shared(tmp_path).map("squares", "key", ITEMS, Squares(bad=[4, 4, 4]), COSTS)
    (path,) = (tmp_path / "work").rglob("000001.h5")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(content))
    second = Squares()
    found = shared(tmp_path).map("squares", "key", ITEMS, second, COSTS)
    assert second.done == [[2], [4, 4, 4]]
    np.testing.assert_array_equal(found["square"], [9, 1, 4, 25, 16, 16, 16])


@pytest.mark.parametrize("change", [{"key": "other"}, {"part": "other"}, {"name": "cubes"}])
def test_items_of_another_result_are_not_taken(tmp_path, change):
    choices = {"key": "key", "part": "part", "name": "squares"}
    shared(tmp_path, choices["key"]).map(choices["name"], choices["part"], ITEMS, Squares(), COSTS)
    choices |= change
    second = Squares()
    shared(tmp_path, choices["key"]).map(choices["name"], choices["part"], ITEMS, second, COSTS)
    assert second.done == ITEMS


def test_clearing_deletes_all_that_was_kept(tmp_path):
    work = shared(tmp_path)
    work.map("squares", "key", ITEMS, Squares(), COSTS)
    work.map("cubes of squares", "key", ITEMS, Squares(), COSTS)
    work.clear()
    assert not (tmp_path / "work").exists()
    work.clear()  # harmless


def test_progress_begins_with_what_is_kept_and_ends_with_all(tmp_path):
    seen = []
    with pytest.raises(Killed):
        shared(tmp_path).map("squares", "key", ITEMS, Squares(bad=[5]), COSTS)
    work = shared(tmp_path, progress=lambda *event: seen.append(event))

    def compute(item):
        if item == [4, 4, 4]:
            work.advance(1)
        return Squares()(item)

    work.map("squares", "key", ITEMS, compute, COSTS)
    assert seen == [("squares", done, 7) for done in (3, 4, 5, 7)]
    seen.clear()
    work.map("squares", "key", ITEMS, compute, COSTS)
    assert seen == [("squares", 7, 7)]
    seen.clear()
    work.map("pilot", "key", ITEMS, Squares(), COSTS, everywhere=True)
    assert seen == []


def test_two_processes_divide_the_items_and_each_shows_all(tmp_path):
    seen, squares = ([], []), (Squares(), Squares())
    works = both(tmp_path, lambda rank, _, done, total: seen[rank].append((done, total)))
    found = side_by_side(
        lambda work: work.map("squares", "key", ITEMS, squares[work.runtime.rank], COSTS), works
    )
    assert squares[0].done == [[3, 1], [5]] and squares[1].done == [[2], [4, 4, 4]]
    np.testing.assert_array_equal(found[0]["square"], [9, 1, 4, 25, 16, 16, 16])
    assert found[1] is None
    for events in seen:
        assert events == sorted(events) and events[0] == (0, 7) and events[-1] == (7, 7)


def test_every_process_gets_what_all_need(tmp_path):
    found = side_by_side(
        lambda work: work.map("pilot", "key", ITEMS, Squares(), COSTS, everywhere=True), both(tmp_path)
    )
    for each in found:
        np.testing.assert_array_equal(each["square"], [9, 1, 4, 25, 16, 16, 16])


def test_an_output_that_is_not_finite_ends_all_processes_with_the_reason(tmp_path):
    """The other one finishes its share first, so that it is not computed again."""
    squares = (Squares(), Squares(bad=[2], error=NotFinite))

    def use(work):
        with pytest.raises(NotFinite) as caught:
            work.map("squares", "key", ITEMS, squares[work.runtime.rank], COSTS)
        return str(caught.value)

    said = side_by_side(use, both(tmp_path))
    assert said == ["the network's output is not finite on another process", "at this item"]
    assert squares[0].done == [[3, 1], [5]] and squares[1].done == []


# The bound's items


SCHEDULE = make_schedule(DiffusionSpec(timesteps=12, beta_start=1e-3, beta_end=0.6))
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 1, 4, 4)).astype(np.uint8)
PROTOCOLS_AND_DRAWS = [PROTOCOLS["paper"], combine(PROTOCOLS["exact"], draws=2), PROTOCOLS["exact"]]


def evaluate(work, estimator="full", network=lambda x_t, timestep: 0.5 * x_t, protocols=PROTOCOLS_AND_DRAWS):
    model = Model(network, SCHEDULE)
    return evaluate_bound(model, PIXELS, protocols, estimator=estimator, seed=3, batch_size=5, work=work)


def assert_same_bounds(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.protocol == b.protocol and a.network_evaluations == b.network_evaluations
        for field in array_fields(type(b)):
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


@pytest.mark.parametrize("estimator", ["full", "stratified"])
def test_shared_and_serial_work_give_equal_bounds(tmp_path, estimator):
    """Protocols of one and of two draws among them: their items are not taken for each other's."""
    expected = evaluate(SERIAL, estimator)
    assert_same_bounds(evaluate(shared(tmp_path), estimator), expected)
    found = side_by_side(lambda work: evaluate(work, estimator), both(tmp_path / "both"))
    assert_same_bounds(found[0], expected)
    assert found[1] == []


def test_items_of_other_protocols_are_not_taken(tmp_path):
    """Killed under two protocols, continued under the second alone: its terms are not the first's."""
    limit = iter(range(20))

    def network(x_t, timestep):
        if next(limit, None) is None:
            raise Killed
        return 0.5 * x_t

    pair = [PROTOCOLS["paper"], PROTOCOLS["exact"]]
    with pytest.raises(Killed):
        evaluate(shared(tmp_path), network=network, protocols=pair)
    assert list((tmp_path / "work").rglob("*.h5"))
    found = evaluate(shared(tmp_path), protocols=pair[1:])
    assert_same_bounds(found, evaluate(SERIAL, protocols=pair[1:]))
