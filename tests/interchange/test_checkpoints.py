"""Interchange with real diffusers objects: same weights, same predictions, same trajectories, both ways; what
is refused.
"""

import json
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from other_projects import SHAPES, diffusers, inputs, network, perturbed, run_spec
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.interchange import checkpoints
from ddpm_eval.interchange.checkpoints import (
    export_checkpoint,
    import_checkpoint,
    network_config,
    scheduler_config,
)
from ddpm_eval.model.samplers import Chain
from ddpm_eval.model.unet import UNet
from ddpm_eval.runtime import Runtime
from ddpm_eval.spec import RunSpec
from ddpm_eval.spec_text import override
from ddpm_eval.training.checkpoint import FILE_NAME, Checkpoint, load, load_network, save, weights_digest
from ddpm_eval.training.loop import train, trained_process, training_log

DIFFUSION = {  # what maps both ways; beta is large enough that float32 differences 1 - alpha_bar keep five digits
    "paper": {},
    "fixed-small": {"variance": "fixed-small"},
    "x0": {"prediction": "x0"},
    "learned-range": {"variance": "learned-range", "objective": "vlb"},
    "quadratic": {"schedule": "quadratic"},
    "constant": {"schedule": "constant", "beta_end": 0.05},
    "cosine": {"schedule": "cosine"},
}
SHORT = {"timesteps": 30, "beta_start": 0.01, "beta_end": 0.2}


def saved_run(folder: Path, spec: RunSpec) -> UNet:
    net = network(spec)
    weights = {
        f"{part}/{name}": value for part in ("model", "ema") for name, value in net.state_dict().items()
    }
    logs = {"log/loss": torch.zeros(1), "log/gradient_norm": torch.zeros(1)}
    facts = {"status": "ok", "reason": "", "seconds": 0.0, "threads": 1}
    save(folder / FILE_NAME, Checkpoint(spec, 1, weights | logs, facts))
    return net.eval()


def pipeline(spec: RunSpec) -> Any:
    model = perturbed(diffusers.UNet2DModel.from_config(network_config(spec)))
    return diffusers.DDPMPipeline(
        model.eval(), diffusers.DDPMScheduler.from_config(scheduler_config(spec.diffusion))
    )


def saved_pipeline(folder: Path, spec: RunSpec | None = None) -> Path:
    pipeline(spec or run_spec("cifar10")).save_pretrained(folder)
    return folder


def loaded_pipeline(folder: Path) -> Any:
    pipe = diffusers.DDPMPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.inference_mode()
def assert_same_prediction(ours: nn.Module, theirs: nn.Module, spec: RunSpec) -> None:
    x, t = inputs(spec)
    # outputs are of order 1 and pass some 50 layers, each with float32 roundings of order 1e-7
    torch.testing.assert_close(ours(x, t), theirs.eval()(x, t).sample, atol=1e-5, rtol=1e-5)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("shape", SHAPES)
def test_diffusers_loads_an_exported_run_and_predicts_the_same(shape: str, tmp_path: Path) -> None:
    spec = run_spec(shape)
    ours = saved_run(tmp_path / "run", spec)
    export_checkpoint(tmp_path / "run", tmp_path / "out")
    assert_same_prediction(ours, loaded_pipeline(tmp_path / "out").unet, spec)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_saved_by_diffusers_is_imported_and_predicts_the_same(shape: str, tmp_path: Path) -> None:
    spec, pipe = run_spec(shape), pipeline(run_spec(shape))
    pipe.save_pretrained(tmp_path / "theirs")
    imported = import_checkpoint(tmp_path / "theirs", tmp_path / "run", data="random")
    assert imported.data == spec.data
    assert imported.diffusion == spec.diffusion
    loaded_spec, ours = load_network(tmp_path / "run")
    assert loaded_spec == imported
    assert_same_prediction(ours, pipe.unet, spec)


@torch.inference_mode()
def trajectories(
    ours: nn.Module, theirs: nn.Module, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, Tensor]:
    """Run both ancestral samplers, each with its network, from the same noise."""
    scheduler = diffusers.DDPMScheduler.from_config(scheduler_config(spec.diffusion))
    module = sys.modules[type(scheduler).__module__]
    chain = Chain(trained_process(spec, ours, clip=True), seed=4)
    ids, shape = torch.arange(2), (spec.data.channels, spec.data.side, spec.data.side)
    x = start = chain.start(ids, shape)
    scheduler.set_timesteps(spec.diffusion.timesteps)
    for t in scheduler.timesteps:
        monkeypatch.setattr(
            module, "randn_tensor", lambda *_, t=t, **__: chain._noise(ids, t.reshape(1) + 1, start)
        )
        x = scheduler.step(theirs(x, t).sample, t, x).prev_sample
    return chain.run(start, ids), x


@pytest.mark.parametrize("choice", DIFFUSION)
def test_ancestral_trajectories_from_the_same_noise_are_the_same(
    choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = run_spec("digits", **(SHORT | DIFFUSION[choice]))
    ours = saved_run(tmp_path / "run", spec)
    export_checkpoint(tmp_path / "run", tmp_path / "out")
    a, b = trajectories(ours, loaded_pipeline(tmp_path / "out").unet, spec, monkeypatch)
    # diffusers' tables are float32: 1 - alpha_bar has a relative error of 6e-8 / 0.01 = 6e-6 at most, over 30
    # steps
    torch.testing.assert_close(a, b, atol=2e-4, rtol=0)


class Contraction(nn.Module):
    """A network cheap enough for 1000 steps: eps = 0.9 x_t."""

    def __init__(self, *, wrapped: bool) -> None:
        super().__init__()
        self.weight, self.wrapped = nn.Parameter(torch.tensor(0.9)), wrapped

    def forward(self, x: Tensor, _: Tensor) -> Any:
        return SimpleNamespace(sample=self.weight * x) if self.wrapped else self.weight * x


@pytest.mark.parametrize("variance", ["fixed-large", "fixed-small"])
def test_the_papers_chain_of_1000_steps_is_the_same(variance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = run_spec("digits", variance=variance)
    a, b = trajectories(Contraction(wrapped=False), Contraction(wrapped=True), spec, monkeypatch)
    # beta_1 = 1e-4 leaves diffusers' 1 - alpha_bar with a relative error of 6e-8 / 1e-4 = 6e-4 at the last
    # steps
    torch.testing.assert_close(a, b, atol=2e-3, rtol=0)
    assert a.std() > 0.1


def test_the_exported_pipeline_samples(tmp_path: Path) -> None:
    saved_run(tmp_path / "run", run_spec("digits", timesteps=10))
    export_checkpoint(tmp_path / "run", tmp_path / "out")
    pipe = loaded_pipeline(tmp_path / "out")
    images = pipe(
        batch_size=3, num_inference_steps=10, generator=torch.manual_seed(0), output_type="np"
    ).images
    assert images.shape == (3, 8, 8, 1)
    assert images.std() > 0.01


@pytest.mark.parametrize("choice", DIFFUSION)
def test_export_and_import_give_back_the_run(choice: str, tmp_path: Path) -> None:
    spec = run_spec("cifar10", **(SHORT | DIFFUSION[choice]))
    saved_run(tmp_path / "run", spec)
    export_checkpoint(tmp_path / "run", tmp_path / "out")
    back = import_checkpoint(tmp_path / "out", tmp_path / "back", data="random")
    assert back.network == spec.network
    assert weights_digest(tmp_path / "back") == weights_digest(tmp_path / "run")
    if choice == "constant":  # diffusers has no constant schedule, but a linear one between equal ends
        assert (back.diffusion.schedule, back.diffusion.beta_start, back.diffusion.beta_end) == (
            "linear",
            0.05,
            0.05,
        )
    else:
        assert back.diffusion == spec.diffusion


def test_an_imported_run_counts_as_trained_but_not_by_us(tmp_path: Path) -> None:
    import_checkpoint(saved_pipeline(tmp_path / "theirs"), tmp_path / "run", data="cifar10")
    found = load(tmp_path / "run")
    log = training_log(found)
    assert (log.status, log.steps, log.images, len(log.loss)) == ("imported", 0, 0, 0)
    assert log.over and log.imported and not log.diverged and "imported from" in log.reason
    assert found.part("model/").keys() == found.part("ema/").keys()
    assert all(
        torch.equal(value, found.tensors[f"model/{name}"]) for name, value in found.part("ema/").items()
    )


def test_an_imported_model_is_never_trained_further(tmp_path: Path) -> None:
    spec = import_checkpoint(saved_pipeline(tmp_path / "theirs"), tmp_path / "run", data="random")
    before = (tmp_path / "run" / FILE_NAME).read_bytes()
    longer = override(spec, {"train.steps": "5"})
    images = ImageSet(
        "random", "train", np.arange(1), None, np.arange(0), "", 3, 32, np.zeros((1, 3, 32, 32), np.uint8)
    )
    assert train(longer, images, Runtime(torch.device("cpu")), tmp_path / "run" / FILE_NAME).imported
    assert (tmp_path / "run" / FILE_NAME).read_bytes() == before


def test_results_of_another_model_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.h5").write_bytes(b"of a checkpoint that was deleted")
    with pytest.raises(ValueError, match=r"results\.h5 exists already"):
        import_checkpoint(saved_pipeline(tmp_path / "theirs"), tmp_path / "run", data="random")


def old_layout(folder: Path, spec: RunSpec) -> dict[str, Tensor]:
    """Write a folder as diffusers' first versions did: flat, .bin, old names of attention, fewer fields."""
    saved_pipeline(folder / "new", spec)
    weights = load_file(folder / "new" / "unet" / "diffusion_pytorch_model.safetensors")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, name in old.items():
        weights = {key.replace(f".{new}.", f".{name}."): value for key, value in weights.items()}
    config = json.loads((folder / "new" / "unet" / "config.json").read_text())
    since = {
        "attention_head_dim",
        "add_attention",
        "dropout",
        "downsample_type",
        "upsample_type",
        "resnet_time_scale_shift",
    }
    (folder / "config.json").write_text(
        json.dumps({key: value for key, value in config.items() if key not in since})
    )
    scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "variance_type": "fixed_large"}
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    torch.save(weights, folder / "diffusion_pytorch_model.bin")
    return weights


def test_the_first_versions_layout_is_read(tmp_path: Path) -> None:
    spec = run_spec("cifar10")
    weights = old_layout(tmp_path / "old", spec)
    assert "mid_block.attentions.0.query.weight" in weights
    imported = import_checkpoint(tmp_path / "old", tmp_path / "a", data="cifar10")
    import_checkpoint(tmp_path / "old" / "new", tmp_path / "b", data="cifar10")
    assert weights_digest(tmp_path / "a") == weights_digest(tmp_path / "b")
    assert imported.diffusion == spec.diffusion  # schedule, range and prediction by diffusers' defaults


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_is_refused_and_never_executed(writer: str, tmp_path: Path) -> None:
    old_layout(tmp_path / "old", run_spec("digits"))
    marker, file = tmp_path / "executed", tmp_path / "old" / "diffusion_pytorch_model.bin"
    content = {"conv_in.weight": torch.zeros(3), "payload": Bomb(marker)}
    torch.save(content, file) if writer == "torch" else file.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(
        ValueError, match=r"diffusion_pytorch_model.bin holds other things than tensors.*never executed"
    ):
        import_checkpoint(tmp_path / "old", tmp_path / "run", data="digits")
    assert not marker.exists()
    assert not (tmp_path / "run").exists()
    if writer == "pickle":  # the bomb works: the test can fail
        pickle.loads(file.read_bytes())
        assert marker.exists()


NETWORK_FIELDS = {
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "downsample_padding": 1,
    "norm_eps": 1e-5,
    "act_fn": "gelu",
    "resnet_time_scale_shift": "scale_shift",
    "time_embedding_type": "fourier",
    "attention_head_dim": 8,
    "mid_block_type": None,
    "num_class_embeds": 10,
    "block_out_channels": [16, 24, 32, 32],
    "up_block_types": ["UpBlock2D"] * 4,
    "sample_size": None,
    "_class_name": "UNet2DConditionModel",
}
SCHEDULER_FIELDS = {
    "beta_schedule": "sigmoid",
    "variance_type": "learned",
    "prediction_type": "v_prediction",
    "trained_betas": [0.1, 0.2],
    "clip_sample": False,
    "thresholding": True,
    "_class_name": "PNDMScheduler",
}
FIELDS = [("unet/config.json", *item) for item in NETWORK_FIELDS.items()]
FIELDS += [("scheduler/scheduler_config.json", *item) for item in SCHEDULER_FIELDS.items()]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_pipeline(tmp_path_factory.mktemp("theirs"))


@pytest.mark.parametrize(("file", "field", "value"), FIELDS)
def test_another_network_or_chain_is_refused_with_the_field(
    file: str, field: str, value: object, theirs: Path, tmp_path: Path
) -> None:
    original = (theirs / file).read_text()
    edit(theirs / file, **{field: value})
    try:
        with pytest.raises(ValueError, match=rf"{file}: {field} is ") as refusal:
            import_checkpoint(theirs, tmp_path / "run", data="cifar10")
    finally:
        (theirs / file).write_text(original)
    assert str(value) in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_weights_that_differ_from_their_configuration_are_refused_with_the_field(
    theirs: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"network.base_channels is 16 in the weights, but 32 in the specification"
    ):
        import_checkpoint(theirs, tmp_path / "run", data="cifar10", settings={"network.base_channels": "32"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra.weight": torch.zeros(3)}, "does not have: extra.weight"),
        ({"conv_in.bias": None}, "lacks weights of this network: conv_in.bias"),
        ({"conv_in.bias": torch.full((16,), torch.inf)}, "conv_in.bias holds values that are not finite"),
    ],
)
def test_unknown_missing_and_infinite_weights_are_named(
    change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    file = saved_pipeline(tmp_path / "theirs") / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file) | change
    save_file({name: value for name, value in weights.items() if value is not None}, file)
    with pytest.raises(ValueError, match=message):
        import_checkpoint(tmp_path / "theirs", tmp_path / "run", data="cifar10")


def test_incomplete_folders_are_described(tmp_path: Path) -> None:
    folder = saved_pipeline(tmp_path / "theirs")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    content = file.read_bytes()

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            import_checkpoint(folder, tmp_path / "run", data="cifar10")

    file.write_bytes(content[:-5])
    refused("not a readable file of weights .truncated")
    file.unlink()
    refused("holds neither diffusion_pytorch_model.safetensors nor")
    file.write_bytes(content)
    config = folder / "unet" / "config.json"
    text = config.read_text()
    config.write_text(text[:50])
    refused(r"config.json is missing or not JSON")
    config.write_text("[]")
    refused("holds a list, not a configuration")
    config.write_text(text)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    refused("no scheduler_config.json")


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_bare_weights_in_the_authors_converted_layout_are_read(suffix: str, tmp_path: Path) -> None:
    spec = run_spec("cifar10")
    net, file = network(spec), tmp_path / f"model{suffix}"
    torch.save(net.state_dict(), file) if suffix == ".ckpt" else save_file(net.state_dict(), file)
    imported = import_checkpoint(
        file, tmp_path / "run", data="cifar10", settings={"network.norm_groups": "4"}
    )
    assert imported.network == spec.network
    assert imported.data.side == 32
    assert imported.diffusion == spec.diffusion
    x, t = inputs(spec)
    assert torch.equal(load_network(tmp_path / "run")[1](x, t), net.eval()(x, t))


def test_bare_weights_of_256x256_have_the_small_variance(tmp_path: Path) -> None:
    torch.save(network(run_spec("256x256")).state_dict(), tmp_path / "model.ckpt")
    imported = import_checkpoint(
        tmp_path / "model.ckpt",
        tmp_path / "run",
        data="lsun:church_outdoor",
        settings={"network.norm_groups": "4"},
    )
    assert (imported.data.side, imported.network.attention_sides) == (256, (16,))
    assert imported.diffusion.variance == "fixed-small"


def test_bare_weights_without_attention_need_the_side(tmp_path: Path) -> None:
    torch.save(network(run_spec("digits")).state_dict(), tmp_path / "model.ckpt")
    settings = {"network.norm_groups": "4"}
    with pytest.raises(ValueError, match=r"set data.side"):
        import_checkpoint(tmp_path / "model.ckpt", tmp_path / "run", data="digits", settings=settings)
    spec = import_checkpoint(
        tmp_path / "model.ckpt", tmp_path / "run", data="digits", settings=settings | {"data.side": "8"}
    )
    assert spec.data.side == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"time_embed.0.weight": torch.zeros(3)}, "improved-diffusion.*cannot be imported"),
        ({"layer.weight": torch.zeros(3)}, r"not named as pesser/pytorch_diffusion's weights"),
        ({"state_dict": {"layer.weight": torch.zeros(3)}}, "other things than tensors by name"),
        (torch.zeros(3), "holds a Tensor"),
    ],
)
def test_other_files_of_weights_are_refused(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message):
        import_checkpoint(tmp_path / "model.pt", tmp_path / "run", data="cifar10")


def test_the_hub_is_asked_for_what_is_not_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_layout(tmp_path / "old", run_spec("digits"))
    (tmp_path / "old" / "new" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns[1]))
        return str(tmp_path / "old")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    import_checkpoint("someone/ddpm", tmp_path / "run", data="digits")
    # the pickled weights only where there are no others
    assert asked == [("someone/ddpm", f"*{name}") for name in checkpoints._WEIGHTS]


def test_an_unreachable_hub_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(
        ValueError, match=r"hub could not deliver google/ddpm-cifar10-32 .offline.*no route to host$"
    ):
        import_checkpoint("google/ddpm-cifar10-32", tmp_path / "run", data="cifar10")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        import_checkpoint("google/ddpm-cifar10-32", tmp_path / "run", data="cifar10")


def test_a_source_that_is_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file or folder .*nowhere"):
        import_checkpoint(tmp_path / "nowhere", tmp_path / "run", data="cifar10")


def test_what_exists_is_not_overwritten(theirs: Path, tmp_path: Path) -> None:
    import_checkpoint(theirs, tmp_path / "run", data="cifar10")
    with pytest.raises(ValueError, match="exists already"):
        import_checkpoint(theirs, tmp_path / "run", data="cifar10")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes").touch()
    with pytest.raises(ValueError, match="not an empty folder"):
        export_checkpoint(tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize(
    ("diffusion", "message"),
    [
        ({"prediction": "mu"}, r"diffusion.prediction is mu, which diffusers does not have \(eps, x0\)"),
        (
            {"variance": "learned", "objective": "vlb"},
            r"diffusion.variance is learned, which diffusers does not have",
        ),
    ],
)
def test_what_diffusers_lacks_is_not_exported(
    diffusion: dict[str, str], message: str, tmp_path: Path
) -> None:
    saved_run(tmp_path / "run", run_spec("digits", **diffusion))
    with pytest.raises(ValueError, match=message):
        export_checkpoint(tmp_path / "run", tmp_path / "out")
    assert os.listdir(tmp_path) == ["run"]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no export format 'onnx'"):
        export_checkpoint(tmp_path / "run", tmp_path / "out", format="onnx")


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_run(tmp_path / "run", run_spec("digits"))

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoints, "write_tensors", full)
    with pytest.raises(ValueError, match=r"cannot write .*out .*No space left"):
        export_checkpoint(tmp_path / "run", tmp_path / "out")
    assert os.listdir(tmp_path) == ["run"]
