"""Networks that a function returns: how they are found and refused, and what tells one from another."""

import pytest
import torch
from torch import nn

from ddpm_eval.api.named_network import describe_named, load_named, model_digest
from ddpm_eval.api.network_model import Model

SOURCE = """
import torch, ddpm_eval
from torch import nn

class Scaled(nn.Module):
    def __init__(self, scale, value, text):
        super().__init__()
        self.scale, self.text = scale, text
        self.weight = nn.Parameter(torch.full((2,), float(value)))
        self.register_buffer("table", torch.zeros(3), persistent=False)

    def forward(self, x_t, t):
        return self.scale * self.weight[0] * x_t

def bare(scale=1, value=0.5, text="", buffer=0.0):
    network = Scaled(scale, value, text)
    network.table[0] = buffer
    return network

def model(**arguments):
    tables = {"schedule": torch.linspace(0.9, 0.1, 5), "variance": torch.ones(5)}
    return ddpm_eval.Model(bare(), predicts="v", clip_samples=False, **tables)

def nothing():
    return ddpm_eval.Model(lambda x_t, t: x_t)

def other():
    return {"weights": 1}

def broken(path):
    raise KeyError(path)

here = 3
"""


@pytest.fixture
def networks(module_here):
    """The name of a module of networks in the current folder."""
    return module_here(SOURCE)


def digest(name, function="bare", **arguments):
    texts = {key: str(value) for key, value in arguments.items()}
    return model_digest(function, texts, load_named(f"{name}:{function}", texts))


def test_a_module_in_the_current_folder_is_called_with_its_arguments(networks):
    model = load_named(f"{networks}:bare", {"scale": "3", "value": "0.25", "text": "plain"})
    assert isinstance(model, Model) and (model.predicts, model.timesteps) == ("eps", 1000)
    assert (model.network.scale, model.network.text) == (3, "plain")
    assert model.network(torch.ones(1), torch.zeros(1)).item() == 0.75


def test_what_a_model_says_of_itself_is_described(networks):
    network, diffusion = describe_named(f"{networks}:model", {}, model := load_named(f"{networks}:model", {}))
    assert (network.parameters, network.clip_samples, network.conditional) == (2, False, False)
    assert network.weights == model_digest(f"{networks}:model", {}, model)
    assert (diffusion.prediction, diffusion.schedule, diffusion.variance) == ("v", "table", "table")
    assert diffusion.timesteps == 5
    _, plain = describe_named("bare", {}, load_named(f"{networks}:bare", {}))
    assert (plain.prediction, plain.schedule, plain.variance) == ("eps", "linear", "fixed-large")


def test_networks_under_one_name_are_told_apart(networks, tmp_path):
    """By parameters, buffers that are not saved, attributes, texts, arguments, and the source."""
    changes = [{}, {"value": 0.25}, {"buffer": 1.0}, {"scale": 2}, {"text": "other"}, {"scale": 1}]
    found = [digest(networks, **change) for change in changes]
    assert len(set(found)) == len(changes)
    assert digest(networks) == found[0]
    same_arguments = load_named(f"{networks}:bare", {})
    for name, value in (("scale", 2), ("note", torch.ones(1)), ("text", "x")):
        setattr(same_arguments.network, name, value)
        assert model_digest("bare", {}, same_arguments) not in found
        delattr(same_arguments.network, name)
    path = tmp_path / f"{networks}.py"
    path.write_text(SOURCE.replace("self.scale * self", "2 * self.scale * self"))
    assert digest(networks) != found[0]


def test_the_chain_and_its_use_tell_models_apart():
    network = nn.Linear(1, 1)
    table = torch.linspace(0.1, 0.2, 4)
    models = [
        Model(network, timesteps=4),
        Model(network, timesteps=5),
        Model(network, timesteps=4, schedule="cosine"),
        Model(network, timesteps=4, predicts="v"),
        Model(network, timesteps=4, variance="fixed-small"),
        Model(network, timesteps=4, variance=table),
        Model(network, timesteps=4, variance=2 * table),
        Model(network, timesteps=4, conditional=True),
        Model(network, timesteps=4, clip_samples=False),
        Model(network, timesteps=4, dtype=torch.float64),
    ]
    assert len({model_digest("f", {}, model) for model in models}) == len(models)


@pytest.mark.parametrize(
    ("reference", "arguments", "sentence"),
    [
        ("networks", {}, "'networks' names no function .write MODULE:FUNCTION"),
        ("absent_module:load", {}, "the module absent_module cannot be imported from .*ModuleNotFoundError"),
        ("{}:absent", {}, "has no function absent .nothing has this name there"),
        ("{}:here", {}, "has no function here .a int has this name there"),
        (
            "{}:bare",
            {"width": "3"},
            "unexpected keyword argument 'width' .arguments are given by --network-args",
        ),
        ("{}:broken", {}, "missing a required argument: 'path'"),
        ("{}:broken", {"path": "x"}, "broken fails: KeyError: 'x'"),
        ("{}:other", {}, "other returns a dict, not a torch.nn.Module or a ddpm_eval.Model"),
        ("{}:nothing", {}, "returns a network without parameters and buffers"),
    ],
)
def test_whatever_is_no_network_is_refused_in_one_sentence(networks, reference, arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        load_named(reference.format(networks), arguments)
    assert "\n" not in str(caught.value)


def test_a_module_that_fails_is_named(networks, tmp_path):
    (tmp_path / f"{networks}.py").write_text("import absent_package")
    with pytest.raises(
        ValueError, match=f"{networks} cannot be imported .* No module named 'absent_package'"
    ):
        load_named(f"{networks}:bare", {})
