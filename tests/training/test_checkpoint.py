"""Checkpoints: exact round trips, and what is said of files that are damaged or none."""

import json
from pathlib import Path

import pytest
import torch
from damage import CASES, outcomes
from other_projects import network, run_spec
from safetensors import safe_open
from safetensors.torch import save_file

from ddpm_eval.model.unet import UNet
from ddpm_eval.spec import RunSpec
from ddpm_eval.training import checkpoint
from ddpm_eval.training.checkpoint import FILE_NAME, Checkpoint, load, load_network, save, weights_digest

METADATA = {"status": "ok", "reason": "", "seconds": 1.5, "threads": 2}


def saved(folder: Path, spec: RunSpec | None = None) -> tuple[Checkpoint, UNet]:
    spec = spec or run_spec("digits")
    net = network(spec)
    tensors = {
        f"{part}/{name}": value for part in ("model", "ema") for name, value in net.state_dict().items()
    }
    tensors |= {"log/loss": torch.tensor([1.0, float("nan")]), "log/gradient_norm": torch.zeros(0)}
    state = Checkpoint(spec, 2, tensors, METADATA)
    save(folder / FILE_NAME, state)
    return state, net


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    state, _ = saved(tmp_path)
    state.tensors["adam/exp_avg/x"] = torch.randn(3, 2, 4, 4).to(memory_format=torch.channels_last)
    state.tensors["step"] = torch.tensor(2**40)
    state.tensors["half"] = torch.randn(5).half()
    save(tmp_path / FILE_NAME, state)
    found = load(tmp_path / FILE_NAME)
    assert (found.spec, found.step, found.metadata) == (state.spec, state.step, state.metadata)
    assert found.tensors.keys() == state.tensors.keys()
    for name, value in state.tensors.items():
        assert found.tensors[name].dtype == value.dtype
        torch.testing.assert_close(found.tensors[name], value, atol=0, rtol=0, equal_nan=True)


def test_only_the_wanted_tensors_are_read(tmp_path: Path) -> None:
    saved(tmp_path)
    assert set(load(tmp_path, prefixes=("log/",)).tensors) == {"log/loss", "log/gradient_norm"}
    assert load(tmp_path, prefixes=()).tensors == {}


def test_part_strips_its_prefix(tmp_path: Path) -> None:
    state, net = saved(tmp_path)
    assert state.part("ema/").keys() == net.state_dict().keys()


def test_the_network_that_was_saved_is_loaded_in_evaluation_mode(tmp_path: Path) -> None:
    state, net = saved(tmp_path)
    spec, loaded = load_network(tmp_path)
    assert spec == state.spec
    assert not loaded.training
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3])
    assert torch.equal(loaded(x, t), net.eval()(x, t))


def test_the_averaged_weights_are_loaded_not_the_last_ones(tmp_path: Path) -> None:
    state, _ = saved(tmp_path)
    state.tensors["ema/conv_in.bias"] = torch.full((16,), 7.0)
    save(tmp_path / FILE_NAME, state)
    assert load_network(tmp_path)[1].conv_in.bias.eq(7).all()


def test_the_digest_is_of_the_averaged_weights_content(tmp_path: Path) -> None:
    state, _ = saved(tmp_path)
    digest = weights_digest(tmp_path)
    assert digest == weights_digest(state.tensors) == weights_digest(tmp_path / FILE_NAME)
    assert len(digest) == 12
    other = {**state.tensors, "model/conv_in.bias": torch.ones(16), "log/loss": torch.zeros(3)}
    assert weights_digest(other) == digest
    last_bit = state.tensors["ema/conv_in.bias"].clone()
    last_bit[3] = torch.nextafter(last_bit[3], torch.tensor(9.0))
    assert weights_digest({**state.tensors, "ema/conv_in.bias": last_bit}) != digest
    reordered = dict(reversed(state.tensors.items()))
    assert weights_digest(reordered) == digest


def test_the_digest_of_given_weights_never_changes() -> None:
    """Stored results carry digests of the weights that they were measured with."""
    weights = {
        "ema/b": torch.tensor([1, 2]),
        "ema/a": torch.arange(6.0).reshape(2, 3),
        "log/loss": torch.zeros(1),
    }
    assert weights_digest(weights) == "3a235d8be105"


def test_the_metadata_are_in_the_header_under_their_first_name(tmp_path: Path) -> None:
    """Checkpoints that exist call them facts, and stay readable."""
    saved(tmp_path)
    with safe_open(tmp_path / FILE_NAME, framework="pt") as file:
        assert json.loads(file.metadata()["facts"]) == METADATA


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    state, _ = saved(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write .*file/run/checkpoint.safetensors"):
        save(tmp_path / "file" / "run" / FILE_NAME, state)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no checkpoint .*run/checkpoint.safetensors.*trained"):
        load(tmp_path / "run" / FILE_NAME)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    saved(tmp_path)
    content = (tmp_path / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"not a readable checkpoint .truncated"):
        load(tmp_path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("{}" * 100)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load(tmp_path / "text")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="import-checkpoint"):
        load(tmp_path / "other.safetensors")


def test_a_damaged_specification_is_refused(tmp_path: Path) -> None:
    spec = json.loads(run_spec("digits").model_dump_json())
    spec["network"]["base_channels"] = 15
    header = {"format": checkpoint.FORMAT, "spec": json.dumps(spec), "step": "1", "facts": "{}"}
    save_file({"ema/x": torch.zeros(3)}, tmp_path / FILE_NAME, header)
    with pytest.raises(ValueError, match="base_channels is 15"):
        load(tmp_path)


def test_weights_of_another_architecture_are_refused_with_file_and_field(tmp_path: Path) -> None:
    spec = run_spec("digits")
    other = spec.model_copy(update={"network": spec.network.model_copy(update={"base_channels": 24})})
    weights = {f"ema/{name}": value for name, value in network(other).state_dict().items()}
    save(tmp_path / FILE_NAME, Checkpoint(spec, 1, weights))
    with pytest.raises(ValueError, match=r"safetensors: network.base_channels is 24 in the weights, but 16"):
        load_network(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state, _ = saved(tmp_path)
    state.tensors["ema/norm_out.bias"] = torch.full((16,), float("nan"))
    save(tmp_path / FILE_NAME, state)
    with pytest.raises(ValueError, match=r"norm_out.bias holds values that are not finite"):
        load_network(tmp_path)


def foreign(path: Path, **fields: object) -> None:
    """Write a checkpoint as another program might: without digests, and with any header."""
    state, _ = saved(path.parent)
    header = {
        "format": checkpoint.FORMAT,
        "spec": state.spec.model_dump_json(),
        "step": "2",
        "facts": json.dumps(METADATA),
    }
    kept = {name: str(value) for name, value in (header | fields).items() if value is not None}
    save_file({name: value.clone() for name, value in state.tensors.items()}, path, kept)


def test_a_checkpoint_of_an_earlier_version_has_no_digests_and_is_read(tmp_path: Path) -> None:
    foreign(tmp_path / FILE_NAME)
    found = load(tmp_path)
    assert (found.step, found.metadata, found.source) == (2, METADATA, str(tmp_path / FILE_NAME))
    assert load_network(tmp_path)[0] == found.spec


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("spec", None, "its header lacks spec"),
        ("step", None, "its header lacks step"),
        ("facts", None, "its header lacks facts"),
        ("spec", "{", "is no JSON"),
        ("spec", "[" * 100_000, "is nested too deeply"),
        ("spec", "[1]", "valid dictionary"),
        ("step", "", "the number of updates is ''"),
        ("step", "-1", "the number of updates is '-1'"),
        ("step", "1.5", "the number of updates is '1.5'"),
        ("step", "9" * 5000, "the number of updates is '9+'"),
        ("facts", "{", "is no JSON"),
        ("facts", "[" * 100_000, "is nested too deeply"),
        ("facts", "[]", "metadata are not texts and finite numbers"),
        ("facts", '{"seconds": NaN}', "metadata are not texts and finite numbers"),
        ("facts", '{"seconds": %s}' % (10**400), "metadata are not texts and finite numbers"),
        ("facts", '{"status": ["ok"]}', "metadata are not texts and finite numbers"),
        ("more", "1", "its header has the unknown fields 'more'"),
    ],
)
def test_hostile_headers_are_refused_with_one_sentence(
    field: str, value: str | None, sentence: str, tmp_path: Path
) -> None:
    foreign(tmp_path / FILE_NAME, **{field: value})
    for prefixes in ((), None):
        with pytest.raises(ValueError, match=rf"{FILE_NAME} is damaged: .*{sentence}") as caught:
            load(tmp_path, prefixes=prefixes)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_damaged_copies_are_refused_or_equal(tmp_path: Path) -> None:
    other = run_spec("digits").model_copy(update={"seed": 9})
    saved(tmp_path / "other", other)
    state, net = saved(tmp_path)

    def assert_whole(path: Path) -> None:
        header = load(path, prefixes=())
        assert (header.spec, header.step, header.metadata) == (state.spec, 2, METADATA)
        weights = load_network(path)[1].state_dict()
        assert all(torch.equal(weights[name], value) for name, value in net.state_dict().items())
        found = load(path)
        assert found.tensors.keys() == state.tensors.keys()
        for name, value in state.tensors.items():
            torch.testing.assert_close(found.tensors[name], value, atol=0, rtol=0, equal_nan=True)

    content = (tmp_path / FILE_NAME).read_bytes()
    others = (tmp_path / "other" / FILE_NAME).read_bytes()
    counts = outcomes(tmp_path / "damaged.safetensors", content, others, assert_whole)
    assert counts["refused"] > 0.5 * CASES
