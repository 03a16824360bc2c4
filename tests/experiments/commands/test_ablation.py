"""``ablation``: what is planned, and what is refused before anything is trained."""

import json

import pytest
from command_line import SETTINGS, call, folders, refuse

from experiments.paper.presets import TABLE_2


def test_dry_run_prints_and_makes_nothing(tmp_path):
    dry = ["ablation", "--dry-run", *folders(tmp_path), "--set", "train.steps=7"]
    output = call(*dry)
    assert output.startswith("To do: 36 of 36 stages of 6 runs, about ")
    assert output.count("to do: train") == len(TABLE_2)
    document = json.loads(call(*dry, "--json"))
    assert [run["specification"]["train"]["steps"] for run in document["runs"]] == [7] * len(TABLE_2)
    assert not list(tmp_path.iterdir())


def test_each_seed_has_folders_of_its_own(tmp_path):
    output = call("ablation", "--dry-run", "--seeds", "2", *folders(tmp_path))
    planned = [line.partition(":")[0] for line in output.splitlines() if ": to do: train" in line]
    of_first = [path for path in planned if not path.endswith("-seed-1")]
    assert len(of_first) == len(TABLE_2)
    assert planned == of_first + [f"{path}-seed-1" for path in of_first]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seeds", "0"], "0 is not in the range x>=1"),
        (["--seeds", "three"], "'three' is not a valid integer"),
        (["some/run", "--seeds", "2"], "name a RUN or --seeds, not both: some/run says what it is"),
    ],
)
@pytest.mark.parametrize("command", ["ablation", "reproduce", "report"])
def test_bad_numbers_of_seeds_are_refused(command, words, said):
    assert said in refuse(command, *words)


@pytest.mark.usefixtures("classifier")
def test_too_few_samples_are_refused_before_anything_is_trained(tmp_path):
    few = [*SETTINGS, "--set", "evaluation.n_samples=20"]
    assert "20" in refuse("ablation", *folders(tmp_path), *few)
    assert not list(tmp_path.rglob("checkpoint.safetensors"))
