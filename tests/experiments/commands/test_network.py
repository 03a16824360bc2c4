"""``--network`` in place of a RUN, ``--data`` beside one, ``--json``, ``--limit`` and ``--batch-size``."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from command_line import SETTINGS, call, refuse, runs_option
from two_processes import torchrun

import cli
from ddpm_eval.api.network_model import CheckedNetwork
from ddpm_eval.data.digits import read_digits
from ddpm_eval.results.store import Store

SOURCE = """
import torch, ddpm_eval
from torch import nn

class Small(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(value)))
    def forward(self, x_t, t):
        return self.weight * x_t

def load(value=0.5):
    return ddpm_eval.Model(Small(value), timesteps=10, schedule="cosine")
"""


@pytest.fixture
def network(module_here):
    """The options that name a network in the current folder and its data."""
    return ["--network", f"{module_here(SOURCE)}:load", "--data", "digits"]


def read(*arguments):
    """Return the document that a command prints, which is all that it prints on stdout."""
    result = CliRunner().invoke(cli.main, [str(a) for a in (*arguments, "--json")])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_network_is_measured_in_a_folder_like_any_other_run(network):
    found = read("likelihood", *network, "--limit", "12")
    folder = found["run"]["folder"]
    assert folder.startswith("runs/digits/load-")
    assert (found["n_images"], found["network_evaluations"], found["protocol"]) == (12, 120, "paper")
    total = found["values"]["total"]
    assert total["low"] < total["value"] < total["high"] and total["unit"] == "bits/dim"
    assert read("likelihood", folder, "--limit", "12") == found  # the folder names the network
    assert f"{total['value']:.6f}" in call("likelihood", folder, "--limit", "12")
    shown = read("show", *network)
    assert shown["run"]["Network"].endswith(":load()") and shown["run"]["folder"] == folder
    assert found["key"] in [each["key"] for each in shown["results"]]


def test_the_example_of_the_documentation_is_measured(module_here):
    page = Path(__file__).resolve().parents[3] / "docs" / "network.md"
    name = module_here(page.read_text().partition("```python")[2].partition("```")[0])
    torch.save(runpy.run_path(f"{name}.py")["Denoiser"](8).state_dict(), "net.pt")
    named = ["--network", f"{name}:load", "--network-args", "path=net.pt", "--data", "digits"]
    found = read("likelihood", *named, "--limit", "4")
    assert (found["num_steps"], found["n_images"]) == (50, 4)
    assert read("show", *named)["run"]["Network"] == f"153 parameters: {name}:load(path=net.pt)"


def test_networks_of_one_name_never_share_numbers(network):
    first = read("likelihood", *network, "--limit", "6")
    second = read("likelihood", *network, "--network-args", "value=0.25", "--limit", "6")
    assert first["run"]["folder"] != second["run"]["folder"] and first["key"] != second["key"]
    assert first["values"]["rate"] != second["values"]["rate"]


def test_results_under_other_limits_lie_side_by_side(network):
    keys = {read("likelihood", *network, "--limit", n)["key"] for n in (6, 8, 6)}
    assert len(keys) == 2
    folder = read("show", *network)["run"]["folder"]
    entries = [
        entry for entry in Store(Path(folder) / "results.h5").entries() if entry.name.startswith("bound")
    ]
    assert len(entries) == 2
    assert "leave one of them out" in refuse(
        "likelihood", *network, "--limit", "6", "--set", "evaluation.n_test_images=8"
    )


def test_the_batch_size_is_that_of_the_networks_calls(network, monkeypatch):
    sizes = []
    call_network = CheckedNetwork.__call__
    monkeypatch.setattr(
        CheckedNetwork,
        "__call__",
        lambda self, x, *rest: (sizes.append(len(x)), call_network(self, x, *rest))[1],
    )
    read("likelihood", *network, "--limit", "12", "--batch-size", "5")
    assert max(sizes[-20:]) == 5


def test_samples_are_described(network):
    found = read("sample", *network, "-n", "3", "--method", "ddim", "--steps", "5")
    assert (found["n_samples"], found["num_steps"], found["method"]) == (3, 5, "ddim")
    assert 0 <= found["values"]["out_of_range"]["value"] <= 1
    figure = read("interpolate", *network, "--pairs", "2", "--out", "figure")
    assert figure["figure"] == "figure.png" and figure["t"] == 5
    message = refuse("quality", *network, "--limit", "2")
    assert "holds no samples" in message


def test_an_experiment_prints_its_tables(network):
    found = read("rate-distortion", *network, "--limit", "6", "--batch-size", "4")
    assert found["report"].endswith("index.html") and len(found["runs"]) == 1
    (rate, *_) = found["tables"]["split"]
    assert rate["quantity"] == "rate" and rate["low"] <= rate["bits_per_dim"] <= rate["high"]
    assert rate["n_images"] == 6


def test_a_run_is_measured_on_other_images_without_naming_a_digest(trained_run, tmp_path):
    images = read_digits("test").array
    np.savez(tmp_path / "dark.npz", x_train=images[:20] // 2, x_test=images[20:36] // 2)
    dark = f"npz:{tmp_path / 'dark.npz'}"
    own, other = (read("likelihood", trained_run, *extra) for extra in ([], ["--data", dark]))
    assert other["run"]["folder"].startswith(str(tmp_path / "runs" / "npz-dark"))
    assert (other["run"]["data"], other["n_images"]) == (dark, 16)
    assert own["run"]["folder"] == str(trained_run) and other["values"] != own["values"]


def test_a_run_that_was_trained_on_other_images_is_found_by_their_name(tmp_path):
    np.savez(
        tmp_path / "few.npz", x_train=read_digits("train").array[:40], x_test=read_digits("test").array[:8]
    )
    same = ["--data", f"npz:{tmp_path / 'few.npz'}", *runs_option(tmp_path), *SETTINGS]
    same += ["--set", "evaluation.n_test_images=6", "--set", "evaluation.n_train_images=6"]
    call("train", *same, "--preview-steps", "0")
    found = read("likelihood", *same)
    folder = tmp_path / "runs" / "npz-few"
    assert found["run"]["folder"].startswith(str(folder / "eps-mse-fixed-large-"))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["npz-few"]
    assert found["n_images"] == 6


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(network, tmp_path):
    """Terms and samples of the same network bit by bit: the work items are the same."""
    arguments = ["likelihood", *network, "--limit", "40", "--device", "cpu", "--json"]
    both, alone = ([*arguments, "--runs", tmp_path / name] for name in ("both", "alone"))
    shared = json.loads(torchrun(*both, folder=tmp_path))
    own = read(*alone[:-3], *alone[-2:])
    assert shared["run"].pop("device").startswith("CPU, 2 processes")
    assert own["run"].pop("device").startswith("CPU, ")
    assert Path(shared["run"].pop("folder")).name == Path(own["run"].pop("folder")).name
    assert shared == own


@pytest.mark.slow
def test_processes_that_find_different_networks_say_so(module_here, tmp_path):
    random = module_here("import torch\nfrom torch import nn\ndef load(): return nn.Conv2d(1, 1, 1)")
    arguments = ["likelihood", "--network", f"{random}:load", "--data", "digits", "--device", "cpu"]
    with pytest.raises(AssertionError, match="the processes were given different networks"):
        torchrun(*arguments, folder=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--network", "networks:load"], "--network needs --data"),
        (["--network", "absent_module:f", "--data", "digits"], "absent_module cannot be imported"),
        (["--network", "x:f", "--data", "digits", "--preset", "digits"], "--network or --preset, not both"),
        (["runs/a", "--network", "x:f"], "name a RUN or --network, not both"),
        (["--network-args", "a=b"], "there is no --network"),
        (["--network-args", "a"], "--network-args takes KEY=VALUE, not 'a'"),
    ],
)
def test_what_names_no_network_is_refused(arguments, sentence):
    assert sentence in refuse("likelihood", *arguments)
