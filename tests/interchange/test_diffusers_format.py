"""The format of diffusers: the same chains from the same noise, old layouts, and what is refused."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from other_projects import (
    DIFFUSION,
    SHORT,
    diffusers,
    loaded_pipeline,
    old_layout,
    run_spec,
    saved_pipeline,
    saved_run,
)
from torch import Tensor, nn

from ddpm_eval.interchange.diffusers_format import scheduler_config
from ddpm_eval.interchange.import_export import export_checkpoint, import_checkpoint
from ddpm_eval.model.samplers import AncestralSampler
from ddpm_eval.spec import RunSpec
from ddpm_eval.training.build import trained_process
from ddpm_eval.training.checkpoint import weights_digest


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@torch.inference_mode()
def trajectories(
    ours: nn.Module, theirs: nn.Module, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, Tensor]:
    """Run both ancestral samplers, each with its network, from the same noise."""
    scheduler = diffusers.DDPMScheduler.from_config(scheduler_config(spec.diffusion))
    module = sys.modules[type(scheduler).__module__]
    sampler = AncestralSampler(trained_process(spec, ours, clip=True), seed=4)
    ids, shape = torch.arange(2), (spec.data.channels, spec.data.side, spec.data.side)
    x = start = sampler.start(ids, shape)
    scheduler.set_timesteps(spec.diffusion.timesteps)
    for t in scheduler.timesteps:
        monkeypatch.setattr(
            module, "randn_tensor", lambda *_, t=t, **__: sampler.noise(ids, t.reshape(1) + 1, start)
        )
        x = scheduler.step(theirs(x, t).sample, t, x).prev_sample
    return sampler.run(start, ids), x


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


def test_the_first_versions_layout_is_read(tmp_path: Path) -> None:
    spec = run_spec("cifar10")
    weights = old_layout(tmp_path / "old", spec)
    assert "mid_block.attentions.0.query.weight" in weights
    imported = import_checkpoint(tmp_path / "old", tmp_path / "a", data="cifar10")
    import_checkpoint(tmp_path / "old" / "new", tmp_path / "b", data="cifar10")
    assert weights_digest(tmp_path / "a") == weights_digest(tmp_path / "b")
    assert imported.diffusion == spec.diffusion  # schedule, range and prediction by diffusers' defaults


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
