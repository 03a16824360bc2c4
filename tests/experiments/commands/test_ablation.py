"""``ablation``: what is planned, and what is refused before anything is trained."""

import pytest
from command_line import SETTINGS, call, folders, refuse

from experiments.paper.presets import TABLE_2


def test_dry_run_prints_and_makes_nothing(tmp_path):
    output = call("ablation", "--dry-run", *folders(tmp_path), "--set", "train.steps=7")
    assert output.count("to do: train") == len(TABLE_2) and '"steps": 7' in output
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("classifier")
def test_too_few_samples_are_refused_before_anything_is_trained(tmp_path):
    few = [*SETTINGS, "--set", "evaluation.n_samples=20"]
    assert "20" in refuse("ablation", *folders(tmp_path), *few)
    assert not list(tmp_path.rglob("checkpoint.safetensors"))
