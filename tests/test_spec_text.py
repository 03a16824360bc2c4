"""Specifications as text: what is read, what is refused in which words, and how differences are named."""

import pytest
from pydantic import ValidationError
from tiny import TINY

from ddpm_eval.spec_text import differences, override, parse


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "4"),
        ("data.flips", "true"),
        ("network.dropout", "0.1"),
        ("diffusion.prediction", "mu"),
        ("diffusion.timesteps", "51"),
        ("train.batch_size", "64"),
        ("train.warmup_steps", "1"),
    ],
)
def test_differences_name_every_choice_that_touches_the_weights(key, value):
    (difference,) = differences(override(TINY, {key: value}), TINY)
    assert difference.startswith(f"{key}: ")


def test_differences_state_found_and_wanted_and_leave_out_what_may_differ():
    other = override(TINY, {"train.batch_size": "64", "train.steps": "1", "evaluation.n_samples": "2"})
    assert differences(other, TINY) == ["train.batch_size: 64, not 8"]
    assert differences(TINY, TINY) == []


def test_override_reads_json_and_plain_text():
    settings = {
        "network.multipliers": "[1, 2, 2]",
        "data.name": "npz:some file.npz",
        "network.dropout": "0.25",
    }
    changed = override(TINY, settings)
    assert changed.network.multipliers == (1, 2, 2) and changed.data.name == "npz:some file.npz"
    assert changed.network.dropout == 0.25 and TINY.network.dropout == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"train.batchsize": "3"}, r"no option 'train.batchsize' \(did you mean train.batch_size"),
        ({"zzz": "3"}, "no option 'zzz'"),
        ({"train": "3"}, "no option 'train'"),
        ({"train.batch_size": "0"}, "train.batch_size is 0: "),
        ({"train.batch_size": "many"}, "train.batch_size is 'many': "),
        ({"train.learning_rate": "NaN"}, "train.learning_rate is nan: "),
        ({"network.dropout": "1"}, "network.dropout is 1: "),
        ({"diffusion.prediction": "noise"}, "'eps', 'mu' or 'x0'"),
        ({"diffusion.beta_end": "1.5"}, "diffusion.beta_end is 1.5: "),
        ({"diffusion.timesteps": "1"}, "diffusion.timesteps is 1: "),
        ({"diffusion.variance": "learned"}, "a learned variance needs objective vlb"),
        ({"network.base_channels": "18"}, "18 channels, which 4 normalisation groups do not divide"),
        ({"network.norm_groups": "3", "network.base_channels": "9"}, "time embedding needs an even number"),
        (
            {"data.side": "9"},
            "images are 9 pixels wide, but a network with 2 levels needs a side divisible by 2",
        ),
        ({"data.channels": "2"}, "data.channels is 2: "),
        ({"seed": "-1"}, "seed is -1: "),
    ],
)
def test_bad_settings_are_refused_with_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        override(TINY, settings)
    assert not isinstance(caught.value, ValidationError) and "\n" not in str(caught.value)


def test_unknown_fields_are_refused():
    document = TINY.model_dump(mode="json")
    document["train"]["momentum"] = 0.9
    with pytest.raises(ValueError, match=r"train\.momentum"):
        parse(document)
