"""Specifications: what they keep, what identifies a run, and what training depends on."""

import json

import pytest
from pydantic import ValidationError
from tiny import TINY

from ddpm_eval.spec import RunSpec
from ddpm_eval.spec_text import override, parse


def test_a_run_survives_json():
    assert parse(json.loads(json.dumps(TINY.model_dump(mode="json")))) == TINY
    assert RunSpec.model_validate_json(TINY.model_dump_json()) == TINY


def test_a_run_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        TINY.seed = 4
    with pytest.raises(ValidationError, match="frozen"):
        TINY.train.steps = 4


def test_the_digest_is_a_function_of_the_content():
    copy = parse(TINY.model_dump(mode="json"))
    assert TINY.digest() == copy.digest() and len(TINY.digest()) == 12
    assert TINY.digest() != override(TINY, {"evaluation.n_samples": "17"}).digest()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.steps", "200"),
        ("train.checkpoint_steps", "5"),
        ("evaluation.n_samples", "99"),
        ("preset", "other"),
    ],
)
def test_the_training_digest_ignores_what_does_not_touch_the_weights(key, value):
    assert override(TINY, {key: value}).training_digest() == TINY.training_digest()


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
def test_the_training_digest_sees_every_choice_that_touches_the_weights(key, value):
    assert override(TINY, {key: value}).training_digest() != TINY.training_digest()


def test_the_decoder_of_training_counts_where_L_is_trained_on_and_is_not_the_first_versions():
    tanh = {"diffusion.training_decoder": "tanh"}
    on_l = override(TINY, {"diffusion.objective": "vlb"})
    assert override(on_l, tanh).training_digest() != on_l.training_digest()
    assert override(TINY, tanh).training_digest() == TINY.training_digest()
    assert "training_decoder" not in on_l.model_dump(mode="json")["diffusion"]
    assert parse(override(TINY, tanh).model_dump(mode="json")) == override(TINY, tanh)


def test_uniform_times_are_not_the_first_versions_and_importance_is_of_L_alone():
    importance = {"train.time_sampling": "importance"}
    on_l = override(TINY, {"diffusion.objective": "vlb"})
    by_importance = override(on_l, importance)
    assert by_importance.training_digest() != on_l.training_digest()
    assert "time_sampling" not in on_l.model_dump(mode="json")["train"]
    assert parse(by_importance.model_dump(mode="json")) == by_importance
    with pytest.raises(ValueError, match="importance sampling of the times needs objective vlb"):
        override(TINY, importance)


def test_the_digests_are_those_that_stored_results_were_given():
    """Folders and keys of existing runs carry them: they must never change."""
    assert TINY.training_digest() == "cd7feea233b9"


def test_cell_and_output_channels():
    assert TINY.cell == "eps-mse-fixed-large" and TINY.out_channels == 1
    learned = override(TINY, {"diffusion.objective": "vlb", "diffusion.variance": "learned"})
    assert learned.cell == "eps-vlb-learned" and learned.out_channels == 2


def named(**changes):
    """Return the tiny run of a named network, with fields of its diffusion replaced."""
    document = TINY.model_dump(mode="json")
    document["network"] = {
        "reference": "package.module:function",
        "arguments": [["width", "8"]],
        "weights": "0123456789ab",
        "parameters": 3,
        "conditional": False,
        "clip_samples": True,
    }
    document["diffusion"] |= changes
    return document


def test_a_named_network_has_no_sizes_but_what_identifies_it():
    spec = RunSpec.model_validate(named(prediction="v", schedule="table", variance="table"))
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
    assert (spec.network.reference, spec.diffusion.prediction) == ("package.module:function", "v")
    with pytest.raises(ValueError, match="is no U-Net of this project"):
        _ = spec.unet
    with pytest.raises(ValueError, match="a table that only the network's own model has"):
        _ = spec.diffusion.variance_name
    assert TINY.unet is TINY.network


@pytest.mark.parametrize(("field", "value"), [("prediction", "v"), ("schedule", "table")])
def test_networks_that_are_trained_here_have_no_choices_of_others(field, value):
    with pytest.raises(ValueError, match=f"diffusion.{field} is '{value}', but networks that are trained"):
        RunSpec.model_validate(TINY.model_dump() | {"diffusion": {"timesteps": 20, field: value}})
