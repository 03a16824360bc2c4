"""What is said of a run, and of the paper's columns beside it."""

import pytest
from stored_results import make_log, store_results
from tiny import TINY, tiny
from untrained import save_untrained

from ddpm_eval.spec_text import override
from experiments.describe import describe, describe_data, describe_run, paper_columns
from experiments.paper.presets import preset
from experiments.study import StudyRun, resolve_preset, resolve_run


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cifar10", "after 800,000 updates"),
        ("cifar100", "another data set"),
        ("digits", "another data set"),
        ("lsun:bedroom", "another data set"),
        ("npz:cifar10.npz", "only if npz:cifar10.npz is that"),
        ("folder:train", "only if folder:train is that"),
    ],
)
def test_what_the_papers_columns_mean_is_said_as_far_as_it_is_known(name, sentence, tmp_path):
    said = paper_columns(resolve_run(tmp_path, tiny(data__name=name)))
    assert sentence in said
    assert said.count("CIFAR-10") == 1


def test_beside_the_papers_preset_its_columns_are_its_results(tmp_path):
    assert "its CIFAR-10 results after" in paper_columns(resolve_preset("cifar10"))
    given = resolve_run(tmp_path, preset("cifar10"))
    assert "those of its eps / L_simple model of CIFAR-10 after" in paper_columns(given)


def test_nothing_is_claimed_of_an_imported_models_training():
    log = make_log(status="imported", reason="imported from owner/name", steps=0, images=0, seconds=0.0)
    text = describe(override(TINY, {"preset": "imported"}), log)
    assert text["Training"] == "imported from owner/name; how it was trained is not recorded"
    assert "1,234 parameters" in text["Network"]
    assert text["Predicts"] == "eps, variance fixed-large"
    assert not {"batch", "updates", "squared error"} & set(" ".join(text.values()).split())


def test_a_trained_run_is_described_by_what_it_is_and_how_far_it_is():
    text = describe(preset("digits"), make_log(steps=900, status="stopped", reason="out of time"))
    assert text == {
        "Data": "digits, 1 x 8 x 8",
        "Network": "1,234 parameters: 16 channels times (1, 2), blocks per level: 1, "
        "attention in the middle only",
        "Predicts": "eps, variance fixed-large, trained on the unweighted squared error",
        "Chain": "T = 1000, linear schedule",
        "Training": "preset digits, 900 updates of batch 128 (stopped, out of time)",
        "Seed": "0",
        "Against the paper": "not in the paper: scikit-learn's 8x8 digits, a network of 0.16M parameters; "
        "train.steps: 900, not 1200",
    }
    assert "attention at 7x7" in describe(preset("mnist"), make_log())["Network"]
    assert describe_data(preset("cifar10")) == "cifar10, 3 x 32 x 32"


def test_a_young_average_is_a_caution():
    text = describe(preset("digits"), make_log(steps=30))
    assert text["Caution"].endswith("samples will be noise until about update 460")


def test_a_run_is_described_by_its_results_and_without_any_by_its_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="there is no checkpoint"):
        describe_run(tmp_path / "none" / "results.h5")
    save_untrained(tmp_path, step=4)
    results = tmp_path / "results.h5"
    assert "4 updates of batch 8 (stopped)" in describe_run(results)["Training"]
    store_results(StudyRun(tmp_path, TINY, "tiny"), {"training": make_log(steps=6)})
    assert "6 updates of batch 8 (ok)" in describe_run(results)["Training"]
