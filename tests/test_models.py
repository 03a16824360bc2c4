"""The models that the repository holds: their weights are those of their cards, and finite."""

from pathlib import Path

import pytest
import torch

from ddpm_eval.interchange.published_run import check_card
from ddpm_eval.training.checkpoint import load, load_network

MODELS = sorted((Path(__file__).resolve().parents[1] / "models").iterdir())


@pytest.mark.parametrize("folder", MODELS, ids=[folder.name for folder in MODELS])
def test_a_model_is_that_of_its_card(folder):
    check_card(folder)
    spec, network = load_network(folder)
    assert load(folder, prefixes=()).metadata["status"] == "averaged"
    card = (folder / "README.md").read_text()
    assert f"# {spec.preset}: averaged weights" in card
    assert f"{sum(weight.numel() for weight in network.parameters()):,} parameters" in card
    assert all(torch.isfinite(weight).all() for weight in network.parameters())
