import numpy as np

from ddpm_eval.data.datasets import load
from ddpm_eval.spec import DataSpec

DIGITS = DataSpec(name="digits", channels=1, side=8)


def test_digits_split(digits):
    train, test = digits
    assert (len(train), len(test)) == (1437, 360)
    for label in range(10):
        share = (test.labels == label).sum() / ((test.labels == label).sum() + (train.labels == label).sum())
        assert abs(share - 1 / 5) < 1 / 170  # at most one image off, and no class has fewer than 170
    assert len(set(test.labels[:8].tolist())) > 2  # in no order
    assert sorted([*train.ids, *test.ids]) == list(range(1797))


def test_digits_are_scikit_learns_levels(digits):
    from sklearn.datasets import load_digits

    original = load_digits()
    for split in digits:
        # multiples of 255 / 16 rounded: dividing back gives the original 17 levels exactly
        levels = np.round(split.array[:, 0] * (16 / 255))
        assert np.array_equal(levels, original.images[split.ids])
        assert np.array_equal(split.labels, original.target[split.ids])
        assert (split.array.min(), split.array.max()) == (0, 255)


def test_digest_identifies_the_split(digits):
    train, test = digits
    assert train.digest == load(DIGITS, "train").digest != test.digest
    assert (train.digest, test.digest) == (
        "2bf955053523",
        "b51d10bfcd69",
    )  # stored results are kept under these
