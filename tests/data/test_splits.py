import numpy as np
import pytest

from ddpm_eval.data.splits import every_nth, stratified_split


def test_every_nth_from_the_first_is_a_test_image():
    assert every_nth(11, 5, "test").tolist() == [0, 5, 10]
    assert every_nth(11, 5, "train").tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    assert every_nth(11, 5, "all").tolist() == [*range(11)]


def test_an_empty_split_is_a_sentence():
    with pytest.raises(ValueError, match=r"1 images leave none for the train split \(every 10th"):
        every_nth(1, 10, "train")


LABELS = np.random.default_rng(1).choice(4, 503, p=[0.5, 0.3, 0.15, 0.05])


def test_stratified_splits_are_disjoint_and_complete():
    train, test = (stratified_split(LABELS, 5, split, seed=3) for split in ("train", "test"))
    assert sorted([*train, *test]) == list(range(503))
    assert len(test) == 101  # 503 / 5, rounded up
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    assert stratified_split(LABELS, 5, "all").tolist() == [*range(503)]


@pytest.mark.parametrize("every", [2, 5, 10])
def test_stratified_splits_hold_each_class_in_proportion(every):
    for seed in range(20):
        test = np.bincount(LABELS[stratified_split(LABELS, every, "test", seed)], minlength=4)
        share = np.bincount(LABELS) / every
        assert ((test == np.floor(share)) | (test == np.ceil(share))).all()


def test_stratified_splits_follow_the_seed_alone():
    first = stratified_split(LABELS, 5, "test", seed=0)
    assert np.array_equal(first, stratified_split(LABELS.copy(), 5, "test"))
    assert not np.array_equal(first, stratified_split(LABELS, 5, "test", seed=1))
    # of other names of the classes in the same order, too
    assert np.array_equal(first, stratified_split(10 * LABELS + 7, 5, "test"))


def test_stratified_splits_draw_every_image_equally_often():
    """Over seeds each image is a test image with probability 1 / every."""
    seeds = 600
    counts = sum(
        np.isin(np.arange(503), stratified_split(LABELS, 5, "test", seed)).astype(int)
        for seed in range(seeds)
    )
    # rounding lets the share of a class of 25 differ from 1/5 by 1/25 at most
    for label in range(4):
        size = (label == LABELS).sum()
        p = 0.2 + np.array([-1, 1]) / size
        spread = 5 * np.sqrt(p * (1 - p) / seeds)  # 503 images: beyond 5 sigma with probability 3e-4
        mean = counts[label == LABELS] / seeds
        assert ((p[0] - spread[0] < mean) & (mean < p[1] + spread[1])).all()


def test_an_empty_stratified_split_is_a_sentence():
    with pytest.raises(
        ValueError, match=r"1 images leave none for the train split \(one of 5 is a test image"
    ):
        stratified_split(np.array([3]), 5, "train")
