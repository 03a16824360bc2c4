"""States to resume from: whatever is missing, of another shape or type, or not finite is refused by name."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import TINY, digits, tiny

from ddpm_eval.runtime import ALONE
from ddpm_eval.training import checkpoint, loop
from ddpm_eval.training.checkpoint import Checkpoint
from ddpm_eval.training.saved_state import check_log, check_state
from ddpm_eval.training.trainer import Trainer

BIAS = "conv_in.bias"
Change = Callable[[dict[str, torch.Tensor]], object]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("run") / checkpoint.FILE_NAME
    loop.train(tiny(train__steps=2), digits(), ALONE, path)
    return checkpoint.load(path)


def changed(saved: Checkpoint, change: Change) -> Checkpoint:
    tensors = {name: value.clone() for name, value in saved.tensors.items()}
    change(tensors)
    return Checkpoint(saved.spec, saved.step, tensors, dict(saved.metadata), "FILE")


def put(name: str, value: torch.Tensor) -> Change:
    return lambda tensors: tensors.__setitem__(name, value)


def fill(name: str, value: float) -> Change:
    return lambda tensors: tensors[name].view(-1)[-1:].fill_(value)


CHANGES = {
    "FILE, model: conv_in.bias has shape": put(f"model/{BIAS}", torch.ones(1)),
    "FILE, ema: conv_in.bias has shape": put(f"ema/{BIAS}", torch.ones(1)),
    "FILE, adam/exp_avg: conv_in.bias has shape": put(f"adam/exp_avg/{BIAS}", torch.ones(1)),
    "FILE, model: weight conv_in.bias holds values": fill(f"model/{BIAS}", math.nan),
    "FILE, ema: weight conv_in.bias holds values": fill(f"ema/{BIAS}", math.inf),
    "FILE, adam/exp_avg_sq: weight conv_in.bias holds values": fill(f"adam/exp_avg_sq/{BIAS}", math.nan),
    "FILE is damaged: adam/exp_avg_sq/conv_in.bias holds negative": fill(f"adam/exp_avg_sq/{BIAS}", -1e-9),
    "FILE, ema: weight conv_in.bias holds numbers of type": put(
        f"ema/{BIAS}", torch.ones(8, dtype=torch.int64)
    ),
    "FILE, ema lacks weights of this network: conv_in.bias": lambda tensors: tensors.pop(f"ema/{BIAS}"),
    "FILE, adam/exp_avg lacks weights": lambda tensors: tensors.pop(f"adam/exp_avg/{BIAS}"),
    "FILE, model holds weights that this network does not have: x": put("model/x", torch.ones(1)),
    "FILE is damaged: log/loss holds values that are not finite": fill("log/loss", math.nan),
}


@pytest.mark.parametrize("sentence", CHANGES)
def test_a_state_that_does_not_fit_is_refused_by_name(trained: Checkpoint, sentence: str) -> None:
    check_state(changed(trained, lambda tensors: None))
    with pytest.raises(ValueError, match=sentence):
        check_state(changed(trained, CHANGES[sentence]))


@pytest.mark.parametrize("sentence", [s for s in CHANGES if "bias" in s])
def test_training_does_not_go_on_from_such_a_state(
    trained: Checkpoint, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / checkpoint.FILE_NAME
    checkpoint.save(path, changed(trained, CHANGES[sentence]))
    content = path.read_bytes()
    monkeypatch.setattr(Trainer, "update", lambda *arguments: pytest.fail("it was trained on"))
    with pytest.raises(ValueError, match=sentence.replace("FILE", str(path))):
        loop.train(TINY, digits(), ALONE, path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensors: tensors.pop("log/loss"), "it lacks log/loss"),
        (
            put("log/loss", torch.ones(3)),
            r"log/loss is torch.float32 of shape \[3\], but there were 2 updates",
        ),
        (put("log/gradient_norm", torch.ones(2, dtype=torch.int32)), "log/gradient_norm is torch.int32"),
    ],
)
def test_a_log_that_does_not_fit_is_refused(trained: Checkpoint, change: Change, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"FILE is damaged: {sentence}"):
        check_log(changed(trained, change))


@pytest.mark.parametrize("name", ["status", "reason", "seconds"])
def test_a_header_without_the_course_of_the_training_is_refused(trained: Checkpoint, name: str) -> None:
    saved = changed(trained, lambda tensors: None)
    check_log(saved)
    del saved.metadata[name]
    with pytest.raises(ValueError, match=f"FILE is damaged: its header does not tell the {name}"):
        check_log(saved)


def test_a_training_stopped_before_its_first_update_has_no_moments(trained: Checkpoint) -> None:
    saved = changed(trained, lambda tensors: None)
    kept = {name: value for name, value in saved.tensors.items() if name.startswith(("model/", "ema/"))}
    logs = {"log/loss": torch.zeros(0), "log/gradient_norm": torch.zeros(0)}
    start = Checkpoint(saved.spec, 0, kept | logs, saved.metadata)
    check_log(start)
    check_state(start)
