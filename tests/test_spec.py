"""Specifications: what they refuse, in which words, and what identifies a run."""

import json

import pytest
from pydantic import ValidationError

from ddpm_eval.protocol import PROTOCOLS, Protocol
from ddpm_eval.spec import (
    DataSpec,
    DiffusionSpec,
    EvaluationSpec,
    NetworkSpec,
    RunSpec,
    TrainSpec,
    differences,
    override,
    parse,
)


@pytest.fixture
def run():
    return RunSpec(
        preset="tiny",
        seed=3,
        data=DataSpec(name="digits", channels=1, side=8),
        network=NetworkSpec(base_channels=16, multipliers=(1, 2), norm_groups=4),
        diffusion=DiffusionSpec(timesteps=50),
        train=TrainSpec(steps=100, checkpoint_steps=10),
        evaluation=EvaluationSpec(n_samples=16, n_train_images=8),
    )


def test_a_run_survives_json(run):
    assert parse(json.loads(json.dumps(run.model_dump(mode="json")))) == run
    assert RunSpec.model_validate_json(run.model_dump_json()) == run


def test_a_run_cannot_be_changed(run):
    with pytest.raises(ValidationError, match="frozen"):
        run.seed = 4
    with pytest.raises(ValidationError, match="frozen"):
        run.train.steps = 4


def test_the_digest_is_a_function_of_the_content(run):
    copy = parse(run.model_dump(mode="json"))
    assert run.digest() == copy.digest() and len(run.digest()) == 12
    assert run.digest() != override(run, {"evaluation.n_samples": "17"}).digest()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.steps", "200"),
        ("train.checkpoint_steps", "5"),
        ("evaluation.n_samples", "99"),
        ("preset", "other"),
    ],
)
def test_identity_ignores_what_does_not_touch_the_weights(run, key, value):
    assert override(run, {key: value}).training_digest() == run.training_digest()


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
def test_identity_and_differences_see_every_choice_that_touches_the_weights(run, key, value):
    changed = override(run, {key: value})
    assert changed.training_digest() != run.training_digest()
    (difference,) = differences(changed, run)
    assert difference.startswith(f"{key}: ")


def test_differences_states_found_and_wanted_and_leaves_out_what_may_differ(run):
    other = override(run, {"train.batch_size": "64", "train.steps": "1", "evaluation.n_samples": "2"})
    assert differences(other, run) == ["train.batch_size: 64, not 128"]
    assert differences(run, run) == []


def test_cell_and_output_channels(run):
    assert run.cell == "eps-mse-fixed-large" and run.out_channels == 1
    learned = override(run, {"diffusion.objective": "vlb", "diffusion.variance": "learned"})
    assert learned.cell == "eps-vlb-learned" and learned.out_channels == 2


def test_override_reads_json_and_plain_text(run):
    changed = override(
        run, {"network.multipliers": "[1, 2, 2]", "data.name": "npz:some file.npz", "network.dropout": "0.25"}
    )
    assert changed.network.multipliers == (1, 2, 2) and changed.data.name == "npz:some file.npz"
    assert changed.network.dropout == 0.25 and run.network.dropout == 0


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
def test_bad_settings_are_refused_with_one_sentence(run, settings, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        override(run, settings)
    assert not isinstance(caught.value, ValidationError) and "\n" not in str(caught.value)


def test_unknown_fields_are_refused(run):
    document = run.model_dump(mode="json")
    document["train"]["momentum"] = 0.9
    with pytest.raises(ValueError, match=r"train\.momentum"):
        parse(document)


def test_captions_say_every_choice():
    assert (
        PROTOCOLS["paper"].caption()
        == "protocol paper: trained variance, x_0 clipped, tanh decoder, one draw"
    )
    assert (
        PROTOCOLS["exact"].caption() == "protocol exact: trained variance, unclipped, exact decoder, one draw"
    )
    custom = Protocol(name="mine", variance="fixed-small", clip=False, decoder="tanh", draws=3)
    assert custom.caption() == "protocol mine: fixed-small variance, unclipped, tanh decoder, 3 draws"
    assert Protocol.model_validate_json(custom.model_dump_json()) == custom
