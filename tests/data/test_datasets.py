import pytest

from ddpm_eval.data.datasets import NATIVE, inspect, kind, load
from ddpm_eval.data.torchvision_sets import TORCHVISION
from ddpm_eval.spec import DataSpec

DIGITS = DataSpec(name="digits", channels=1, side=8)


def test_wrong_shape_split_and_name_are_sentences():
    with pytest.raises(
        ValueError, match=r"1 channels and 8 pixels .* asks for 3 and 8 \(set data.channels=1"
    ):
        load(DIGITS.model_copy(update={"channels": 3}), "train")
    with pytest.raises(ValueError, match="no split 'valid'"):
        load(DIGITS, "valid")
    with pytest.raises(ValueError, match="splits train and test"):
        load(DIGITS, "all")
    with pytest.raises(ValueError, match=r"no data set 'digitz' .*did you mean digits\?"):
        load(DIGITS.model_copy(update={"name": "digitz"}), "train")


@pytest.mark.parametrize("name", ["folder:", "folder@0:x", "folder@x:y", "npz:", "lsun:dog", ""])
def test_half_a_name_is_no_data_set(name):
    with pytest.raises(ValueError, match="there is no data set"):
        inspect(name)


def test_every_name_has_a_reader():
    assert {kind(name) for name in NATIVE} == {"digits", "photos", "torchvision", "celeba", "lsun"}
    assert {name for name in NATIVE if kind(name) in ("torchvision", "celeba")} == set(TORCHVISION)
