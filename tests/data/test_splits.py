import pytest

from ddpm_eval.data.splits import every_nth


def test_every_nth_from_the_first_is_a_test_image():
    assert every_nth(11, 5, "test").tolist() == [0, 5, 10]
    assert every_nth(11, 5, "train").tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    assert every_nth(11, 5, "all").tolist() == [*range(11)]


def test_an_empty_split_is_a_sentence():
    with pytest.raises(ValueError, match=r"1 images leave none for the train split \(every 10th"):
        every_nth(1, 10, "train")
