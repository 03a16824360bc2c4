"""What `import ddpm_eval` offers: its ten lines, the docstrings' examples, bare imports."""

import doctest
import importlib
import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import digits
from torch import nn

import ddpm_eval
from ddpm_eval.metrics.features import Extractor

ROOT = Path(__file__).parents[1]


class Network(nn.Module):
    """A bare module: one convolution that knows the time."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)
        self.time = nn.Embedding(1000, 1)

    def forward(self, x_t, t):
        return self.convolution(x_t) + self.time(t)[..., None, None]


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network()


def test_the_ten_lines_run_on_digits_and_a_bare_module(network, capsys):
    model = ddpm_eval.Model(
        network, predicts="eps", variance="fixed-large", schedule="linear", timesteps=1000
    )
    other = ddpm_eval.Model(network, predicts="eps", variance="fixed-small", timesteps=1000)
    images = ddpm_eval.load_images("digits", "test", limit=70)
    bound = ddpm_eval.evaluate_bound(model, images, estimator="stratified", target_halfwidth=2.0)
    assert bound.halfwidth <= 2.0
    assert bound.split()["quantity"].tolist() == ["rate", "distortion", "prior", "total"]
    assert len(bound.rate_distortion()) == 1000
    samples = ddpm_eval.sample(model, 70, method="ddim", num_steps=5, seed=0)
    quality = ddpm_eval.evaluate_quality(samples, ddpm_eval.load_images("digits", "train"))
    assert quality.record.n_samples == 70
    compared = ddpm_eval.compare_bounds(bound, ddpm_eval.evaluate_bound(other, images))
    assert compared["quantity"].tolist() == ["rate", "distortion", "prior", "total"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "bound test" in err and "classifier" in err  # progress is shown unless it is told not to


@pytest.mark.parametrize("name", ddpm_eval.__all__)
def test_every_public_name_has_a_docstring(name):
    assert len(inspect.getdoc(getattr(ddpm_eval, name))) > 100
    assert name in dir(ddpm_eval)


def stand_ins(network):
    """Other projects' objects with what the adapters read of them; tests/adapters has the real ones."""
    bare = nn.Conv2d(3, 3, 1)
    bare.config = {"in_channels": 3, "out_channels": 3, "sample_size": 8}
    betas = torch.linspace(0.01, 0.4, 20)
    scheduler = SimpleNamespace(betas=betas, config={"beta_schedule": "linear"})
    named = SimpleNamespace(name="EPSILON"), SimpleNamespace(name="FIXED_LARGE")

    def continuous(x_t, t):
        return SimpleNamespace(mean=0.1 * x_t)

    continuous.schedule = lambda t: (torch.cos(1.5 * t), torch.sin(1.5 * t))
    return {
        "from_edm": {},
        "from_k_diffusion": {"denoiser": lambda x, sigma: x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)},
        "from_azula": {"denoiser": continuous},
        "from_diffusers": {"pipeline": SimpleNamespace(unet=bare, scheduler=scheduler)},
        "from_lucidrains": {
            "diffusion": SimpleNamespace(
                model=bare, objective="pred_v", betas=betas, channels=3, image_size=8
            )
        },
        "from_guided_diffusion": {
            "network": network,
            "diffusion": SimpleNamespace(
                betas=betas.numpy(),
                model_mean_type=named[0],
                model_var_type=named[1],
                rescale_timesteps=False,
            ),
        },
    }


@pytest.mark.parametrize("name", ddpm_eval.__all__)
def test_every_public_name_has_an_example_that_runs(name, network, digits_classifier, monkeypatch):
    home = importlib.import_module(ddpm_eval._HOMES[name])
    monkeypatch.chdir(ROOT)  # where models/ lies
    images = digits("test")
    model = ddpm_eval.Model(network, schedule="cosine", timesteps=20)
    known = {
        "ddpm_eval": ddpm_eval,
        "model": model,
        "images": images,
        "samples": images.array[:100],
        "bound": ddpm_eval.evaluate_bound(model, images, progress=False),
        **stand_ins(network).get(name, {}),
    }
    if home.__name__ == "ddpm_eval.api.measured_quality":  # the classifier is trained once per session
        monkeypatch.setattr(home, "load_or_train_classifier", lambda *_, **__: digits_classifier)
        assert isinstance(digits_classifier, Extractor)
    (found,) = [
        test
        for test in doctest.DocTestFinder(recurse=False).find(getattr(home, name), name, globs=known)
        if test.examples
    ]
    assert doctest.DocTestRunner().run(found).failed == 0


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Models'"):
        ddpm_eval.Models  # noqa: B018


def test_the_version_is_the_distributions():
    assert ddpm_eval.__version__ == version("ddpm_eval")


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, ddpm_eval\n"
        "print(sorted({'torch', 'pandas', 'numpy', 'pydantic'} & sys.modules.keys()), len(ddpm_eval.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[]")


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "ddpm_eval" / "py.typed").exists()
    assert "py.typed" in (ROOT / "pyproject.toml").read_text()
