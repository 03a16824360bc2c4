"""The noise has the published known answers and its law, and depends on nothing but its indices."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from ddpm_eval.randomness import Stream, derive_seed, normal, philox

# counter, key and result of philox4x32 with ten rounds, from Random123's kat_vectors
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return tuple(int(word, 16) for word in text.split())


def draw(seed=1, stream=Stream.BOUND, image=(0,), t=(1,), shape=(3, 8, 8), dtype=torch.float64):
    return normal(seed, stream, torch.tensor(image), torch.tensor(t), shape, dtype)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_known_answers(counter, key, expected):
    state = philox(tuple(torch.tensor([word]) for word in words(counter)), words(key))
    assert tuple(int(word) for word in state) == words(expected)


def test_philox_agrees_with_arithmetic_on_unbounded_integers():
    def literal(c, k):
        for _ in range(10):
            p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = ((p1 >> 32) ^ c[1] ^ k[0], p1 % 2**32, (p0 >> 32) ^ c[3] ^ k[1], p0 % 2**32)
            k = ((k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32)
        return c

    rng = np.random.default_rng(0)
    counters = rng.integers(0, 2**32, (50, 4), dtype=np.int64)
    key = tuple(map(int, rng.integers(0, 2**32, 2, dtype=np.int64)))
    found = torch.stack(philox(tuple(torch.from_numpy(counters).unbind(1)), key), 1)
    assert found.tolist() == [list(literal(tuple(map(int, row)), key)) for row in counters]


def test_normal_is_box_muller_on_the_words_of_its_counter():
    seed, stream, image, t = 2**40 + 3, 2, 7, 9
    u = [(int(w) + 0.5) / 2**32 for w in philox(tuple(map(torch.tensor, (0, t, image, stream))), (3, 2**8))]
    expected = []
    for a, b in (u[:2], u[2:]):
        radius = math.sqrt(-2 * math.log(a))
        expected += [radius * math.cos(2 * math.pi * b), radius * math.sin(2 * math.pi * b)]
    torch.testing.assert_close(
        draw(seed, stream, (image,), (t,), (4,))[0], torch.tensor(expected, dtype=torch.float64)
    )


def test_noise_is_standard_normal():
    # Kolmogorov-Smirnov on 400,000 draws; p is uniform over seeds, and the seed is fixed, so that the test
    # is deterministic
    noise = draw(image=range(100), shape=(4000,)).numpy().ravel()
    assert stats.kstest(noise, "norm").pvalue > 0.01
    tails = (np.abs(noise) > 4).sum()  # expected 25.3, Poisson
    assert 8 < tails < 50
    assert np.abs(noise).max() < math.sqrt(66 * math.log(2))  # 32-bit uniforms reach no further


def test_each_coordinate_of_a_block_is_standard_normal_and_independent_of_the_others():
    noise = draw(image=range(50_000), shape=(4,)).numpy()
    for column in noise.T:
        assert stats.kstest(column, "norm").pvalue > 0.005
    # correlations of the values and, since Box-Muller pairs share a radius, of their squares, within 4.5
    # standard errors of 1 / sqrt(n)
    for power in (1, 2):
        correlation = np.corrcoef(noise.T**power) - np.eye(4)
        assert np.abs(correlation).max() < 4.5 / math.sqrt(len(noise))


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"seed": 1 + 2**32},
        {"stream": Stream.SAMPLE},
        {"stream": Stream.BOUND_EXTRA_DRAWS + 1},
        {"image": (1,)},
        {"image": (2**32 - 1,)},
        {"t": (2,)},
        {"t": (0,)},
    ],
)
def test_another_seed_stream_image_or_time_gives_uncorrelated_noise(other):
    size = 40_000
    a, b = draw(shape=(size,))[0], draw(shape=(size,), **other)[0]
    assert abs(float((a * b).mean())) < 4.5 / math.sqrt(size)


def test_streams_are_distinct_numbers_and_extra_draws_come_after_all_of_them():
    values = [int(stream) for stream in Stream]
    assert len(set(values)) == len(values) and max(values) == Stream.BOUND_EXTRA_DRAWS


def test_noise_does_not_depend_on_the_batch_it_is_drawn_in():
    ids, times = torch.tensor([5, 2, 9, 2]), torch.tensor([3, 1, 1000, 7])
    together = normal(4, Stream.BOUND, ids, times, (1, 5, 3), torch.float32)
    for row, (i, t) in enumerate(zip(ids, times, strict=True)):
        alone = normal(4, Stream.BOUND, i[None], t[None], (1, 5, 3), torch.float32)
        assert torch.equal(together[row], alone[0])
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(
        together[order], normal(4, Stream.BOUND, ids[order], times[order], (1, 5, 3), torch.float32)
    )


def test_one_time_is_shared_by_the_batch():
    ids = torch.arange(3)
    shared = normal(0, Stream.SAMPLE, ids, torch.tensor([6]), (2, 2), torch.float64)
    assert torch.equal(shared, normal(0, Stream.SAMPLE, ids, torch.tensor([6, 6, 6]), (2, 2), torch.float64))


def test_dtype_only_rounds_and_size_only_cuts():
    full = draw(shape=(8,))
    assert torch.equal(draw(shape=(8,), dtype=torch.float32), full.float())
    for size in (1, 3, 5, 7):
        assert torch.equal(draw(shape=(size,)), full[:, :size])


def test_derived_seeds_differ_for_every_list_of_indices():
    # zeros, leading and trailing, and values beyond 32 bits are where hashes of padded words collide
    values = (0, 1, 2**32, 2**32 + 1)
    arguments = [a for length in (1, 2, 3, 4) for a in itertools.product(values, repeat=length)]
    seeds = [derive_seed(*a) for a in arguments]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derived_seeds_spread_over_their_range_and_never_change():
    seeds = np.array([derive_seed(7, i) for i in range(2000)]) / 2**63
    assert stats.kstest(seeds, "uniform").pvalue > 0.01
    assert derive_seed(0, 1, 2) == derive_seed(0, 1, 2) == GOLDEN_SEED


GOLDEN_SEED = (
    8355219811774198581  # every stored result depends on it: another seed is other noise in every run
)
