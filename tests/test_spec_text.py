"""Specifications as text: what is read, what is refused in which words, and how differences are named."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny import TINY

from ddpm_eval.spec import WIDEST_LEVEL
from ddpm_eval.spec_text import differences, override, parse, read_json


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


def test_the_decoder_of_training_is_a_difference_only_where_L_is_trained_on():
    on_l = override(TINY, {"diffusion.objective": "vlb"})
    tanh = {"diffusion.training_decoder": "tanh"}
    assert differences(on_l, override(on_l, tanh)) == ["diffusion.training_decoder: exact, not tanh"]
    assert differences(TINY, override(TINY, tanh)) == []
    assert len(differences(TINY, override(on_l, tanh))) == 2


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
        ({"diffusion.prediction": "noise"}, "'eps', 'mu', 'x0', 'v' or 'score'"),
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
        ({"network.multipliers": "[-1]"}, "network.multipliers.0 is -1: "),
        ({"network.multipliers": "[0, 1]"}, "network.multipliers.0 is 0: "),
        ({"network.multipliers": str([1] * 13)}, "at most 12 items"),
        ({"network.base_channels": "16384", "network.multipliers": "[2]"}, "32768 channels, but 16384 are"),
        ({"network.attention_sides": "[-8]"}, "network.attention_sides.0 is -8: "),
        ({"network.blocks": "1000"}, "network.blocks is 1000: .*less than or equal to 64"),
        ({"data.side": "100000"}, "data.side is 100000: .*less than or equal to 4096"),
        ({"data.name": "x" * 10**6}, r"data.name is 'xxx.*\.\.\..*x': .* at most 4096 characters"),
        ({"diffusion.timesteps": "1000000000"}, "diffusion.timesteps is 1000000000: .*equal to 1000000$"),
        ({"diffusion.timesteps": "0"}, "diffusion.timesteps is 0: "),
        ({"train.steps": "1000000000000"}, "train.steps is 1000000000000: .*equal to 1000000000$"),
        ({"train.batch_size": "1000000000"}, "train.batch_size is 1000000000: "),
        ({"train.steps": "9" * 5000}, r"train.steps is '9+\.\.\.9+': .*an integer too long to read"),
        ({"train.steps": "1e400"}, "train.steps is inf: "),
        ({"evaluation.n_samples": "1000000000000"}, "evaluation.n_samples is 1000000000000: "),
        ({"train.steps": "[" * 100_000}, r"train.steps is '\[+\.\.\.\[+': nested too deeply"),
        (
            {"train.steps": "[" * 900 + "]" * 900},
            r"train.steps is \[+\.\.\.\]+: input should be a valid integer",
        ),
        ({"network.multipliers": '[{"a": 1}]'}, "network.multipliers.0: Input should be a valid integer"),
    ],
)
def test_bad_settings_are_refused_with_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        override(TINY, settings)
    assert not isinstance(caught.value, ValidationError) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_unknown_fields_are_refused():
    document = TINY.model_dump(mode="json")
    document["train"]["momentum"] = 0.9
    with pytest.raises(ValueError, match=r"train\.momentum"):
        parse(document)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "9" * 5000, ""])
def test_a_text_that_is_no_json_is_refused_with_one_sentence(text):
    with pytest.raises(
        ValueError, match=r"is no JSON|is nested too deeply, or an integer too long"
    ) as caught:
        read_json(text)
    assert type(caught.value) is ValueError and len(str(caught.value)) < 300
    assert read_json('{"a": [1, null]}') == {"a": [1, None]}


# Properties

KEYS = sorted(
    f"{part}.{field}" if isinstance(fields, dict) else part
    for part, fields in TINY.model_dump().items()
    for field in (fields if isinstance(fields, dict) else [""])
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SETTINGS = st.dictionaries(st.sampled_from(KEYS), VALUES.map(json.dumps) | st.text(), max_size=4)
PROPERTY = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def sentence_or_run(make):
    """Return the run that is made, or None if it is refused in one sentence."""
    try:
        return make()
    except ValueError as error:
        assert type(error) is ValueError and str(error) and len(str(error).splitlines()) == 1
        return None


@PROPERTY
@given(SETTINGS)
def test_any_settings_give_a_run_that_survives_json_or_one_sentence(changes):
    run = sentence_or_run(lambda: override(TINY, changes))
    if run is not None:
        assert parse(read_json(run.model_dump_json())) == run
        assert differences(run, run) == [] and override(run, {}) == run


@PROPERTY
@given(VALUES)
def test_any_document_is_a_run_or_one_sentence(document):
    sentence_or_run(lambda: parse(document))
    sentence_or_run(lambda: parse({**TINY.model_dump(mode="json"), "network": document}))


@PROPERTY
@given(st.integers(-3, 2**15), st.lists(st.integers(-2, 40), max_size=4), st.integers(-1, 64))
def test_every_network_that_is_accepted_has_levels_that_its_groups_divide(base, multipliers, groups):
    changes = {
        "network.base_channels": base,
        "network.multipliers": multipliers,
        "network.norm_groups": groups,
    }
    run = sentence_or_run(lambda: override(TINY, {key: str(value) for key, value in changes.items()}))
    if run is not None:
        widths = [base * multiplier for multiplier in multipliers]
        assert widths and all(0 < width <= WIDEST_LEVEL and width % groups == 0 for width in widths)
        assert run.data.side % 2 ** (len(widths) - 1) == 0
