"""Every page of examples/ runs, with tiny networks: those of the other projects where they are installed."""

import ast
import importlib
import importlib.util
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from same_noise import other_package, without_init
from tiny import digits
from torch import nn

import ddpm_eval

FOLDER = Path(__file__).parents[1] / "examples"
PAGES = sorted(path.stem for path in FOLDER.glob("*.py"))
MOST_LINES = 60


def page(name):
    """Import an example as a module."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def colours():
    """A few coloured images of 8x8 pixels with labels."""
    array = np.random.default_rng(0).integers(0, 256, (8, 3, 8, 8)).astype(np.uint8)
    return ddpm_eval.load_images(array, labels=np.arange(8) % 3)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def assert_measured(bound):
    assert math.isfinite(bound.total.value) and bound.total.low < bound.total.value < bound.total.high


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_one_page_and_is_tested(name):
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= MOST_LINES
    assert f"test_{name}" in globals()


def test_bare_network(capsys):
    statements = ast.parse((FOLDER / "bare_network.py").read_text()).body[1:]
    lines = {node.lineno for part in statements for node in ast.walk(part) if isinstance(node, ast.stmt)}
    assert len(lines) <= 10
    found = runpy.run_path(str(FOLDER / "bare_network.py"))
    assert_measured(found["bound"])
    assert "bits/dim, 64 images, T = 1000, stratified" in capsys.readouterr().out


def test_class_conditional(capsys):
    example = page("class_conditional")
    bound, samples = example.measure(example.Network(1, 10), digits("test").subset(np.arange(40)))
    assert_measured(bound)
    assert samples.shape == (4, 1, 8, 8)


def test_compare_models(capsys):
    example = page("compare_models")
    images = digits("test").subset(np.arange(40))
    first, second = example.compare(example.Network(0.95), example.Network(0.96), images)
    assert_measured(first)
    out = capsys.readouterr().out
    assert "difference_low" in out
    assert second.terms.protocol == first.terms.protocol


def test_sample_quality(digits_classifier, monkeypatch, capsys):
    """With the classifier that is trained once per session."""
    home = importlib.import_module("ddpm_eval.api.measured_quality")
    monkeypatch.setattr(home, "load_or_train_classifier", lambda *_, **__: digits_classifier)
    found = page("sample_quality").measure(digits("test"), digits("train"))
    assert found.record.frechet_distance.known
    assert "precision" in capsys.readouterr().out


def test_diffusers_pipeline(colours, capsys):
    diffusers = other_package("diffusers", "diffusers")
    network = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    pipeline = diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"))
    assert_measured(page("diffusers_pipeline").measure(pipeline, colours))
    assert "16 samples in 10 steps each" in capsys.readouterr().out


def test_lucidrains_diffusion(colours, capsys):
    package = other_package("denoising_diffusion_pytorch", "denoising-diffusion-pytorch")
    diffusion = package.GaussianDiffusion(package.Unet(dim=8, dim_mults=(1, 2)), image_size=8)
    assert_measured(page("lucidrains_diffusion").measure(diffusion, colours))


def test_k_diffusion_denoiser(colours, capsys):
    external = without_init(
        "k_diffusion", "external", "--no-deps k-diffusion torchdiffeq torchsde trampoline"
    )
    alpha_bar = ddpm_eval.Model(nn.Identity(), timesteps=100, schedule="cosine").chain.alpha_bar[1:]
    denoiser = external.DiscreteEpsDDPMDenoiser(_Convolution(), alpha_bar.float(), quantize=True)
    assert_measured(page("k_diffusion_denoiser").measure(denoiser, (3, 8, 8), colours))


def test_azula_denoiser(colours, capsys):
    denoise = other_package("azula.denoise", "azula")
    noise = other_package("azula.noise", "azula")
    denoiser = denoise.KarrasDenoiser(_Convolution(), noise.VPSchedule())
    assert_measured(page("azula_denoiser").measure(denoiser, colours, timesteps=50))


def test_edm_network(colours, capsys):
    class Network(_Convolution):
        """With EDM's attributes, and classes."""

        img_channels, img_resolution, label_dim = 3, 8, 3

        def forward(self, x, sigma, class_labels):
            square = sigma.reshape(-1, 1, 1, 1) ** 2
            shift = class_labels.argmax(1).reshape(-1, 1, 1, 1)
            return x / (1 + square) + square / (1 + square) * 0.01 * (self.convolution(x) + shift)

    assert_measured(page("edm_network").measure(Network(), colours, timesteps=50))


def test_guided_diffusion_model(colours, capsys):
    script_util = other_package("guided_diffusion.script_util", "guided-diffusion-sdk")
    unet = other_package("guided_diffusion.unet", "guided-diffusion-sdk")
    network = unet.UNetModel(
        image_size=8,
        in_channels=3,
        model_channels=32,
        out_channels=6,
        num_res_blocks=1,
        attention_resolutions=(),
        channel_mult=(1, 2),
    )
    diffusion = script_util.create_gaussian_diffusion(
        steps=1000, learn_sigma=True, noise_schedule="cosine", timestep_respacing="25"
    )
    assert_measured(page("guided_diffusion_model").measure(network, diffusion, colours))


class _Convolution(nn.Module):
    """The smallest network of images and times."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, t):
        return self.convolution(x)
