"""Where a preset's or a given run's report lies, what it may be asked, and what is said of it."""

from pathlib import Path

import pytest
import torch
from tiny import TINY, tiny

from ddpm_eval.model.unet import UNet
from ddpm_eval.results.records import TrainingLog
from ddpm_eval.spec_text import override
from ddpm_eval.training import checkpoint
from experiments import ablation
from experiments.description import describe
from experiments.paper.presets import MAIN_CELL, TABLE_2, against_the_paper, preset
from experiments.workspace import GivenRun, Workspace, given_run


def saved(folder, spec=TINY, step=4, **facts):
    """Write an untrained run that claims so many updates."""
    weights = UNet(spec.network, spec.data.channels, spec.data.side, spec.out_channels).state_dict()
    tensors = {f"{part}/{name}": value for part in ("model", "ema") for name, value in weights.items()}
    tensors |= {"log/loss": torch.zeros(step), "log/gradient_norm": torch.zeros(step)}
    known = {"status": "stopped", "reason": "", "seconds": 0.0, "threads": 1, **facts}
    checkpoint.save(folder / checkpoint.FILE_NAME, checkpoint.Checkpoint(spec, step, tensors, known))
    return folder


def given(folder, spec=TINY, **options):
    return Workspace(spec.preset, given=GivenRun(folder, spec), **options)


def test_the_only_cell_of_a_given_run_is_that_run(tmp_path):
    spec = tiny(diffusion__prediction="mu", seed=5)
    workspace = given(tmp_path / "any", spec)
    assert workspace.cells == (MAIN_CELL,) and Workspace("digits").cells == TABLE_2
    assert workspace.spec() == spec and workspace.folder() == tmp_path / "any" and workspace.label() == "any"
    with pytest.raises(ValueError, match="is one model: rate-distortion and reproduce measure it"):
        ablation.jobs(workspace)


def test_reports_of_given_runs_do_not_collide_with_each_other_or_with_a_presets(tmp_path, monkeypatch):
    folders = [tmp_path / "digits" / "eps", tmp_path / "mnist" / "eps", tmp_path / "digits"]
    reports = [given(folder, reports=tmp_path).report for folder in folders]
    reports.append(Workspace("digits", reports=tmp_path).report)
    assert reports[0] == tmp_path / "digits-eps" and len(set(reports)) == len(reports)
    folders[0].mkdir(parents=True)
    monkeypatch.chdir(folders[0])
    assert given(Path("."), reports=tmp_path).report == reports[0]  # the same run, however it is named


def test_a_given_run_is_measured_as_far_as_it_is_trained(tmp_path):
    found = given_run(saved(tmp_path), {"evaluation.n_samples": "7"})
    assert found.spec.train.steps == 4 < TINY.train.steps and found.spec.evaluation.n_samples == 7
    assert found.spec.training_digest() == TINY.training_digest()


def test_what_cannot_be_asked_of_a_given_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no checkpoint"):
        given_run(tmp_path / "none", {})
    with pytest.raises(
        ValueError, match=r"there is no checkpoint .*safetensors/checkpoint\.safetensors"
    ):  # not a folder
        given_run(saved(tmp_path / "run") / checkpoint.FILE_NAME, {})
    with pytest.raises(ValueError, match="holds no results to report"):
        given_run(saved(tmp_path), {}, measured=True)
    for key, value in [("train.steps", "9"), ("diffusion.timesteps", "9"), ("seed", "1")]:
        with pytest.raises(ValueError, match=f"--set {key} would make another run"):
            given_run(tmp_path, {key: value})
    with pytest.raises(
        ValueError, match=r"there is no option 'evaluation\.n_sample' \(did you mean evaluation\.n_samples"
    ):
        given_run(tmp_path, {"evaluation.n_sample": "9"})


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
    said = given(tmp_path, tiny(data__name=name)).beside_paper()
    assert sentence in said and said.count("CIFAR-10") == 1


def test_departures_from_the_paper_are_named():
    assert against_the_paper(preset("cifar10", seed=3)) == "as published"
    changed = {"train.steps": "300", "network.base_channels": "64"}
    assert against_the_paper(preset("cifar10", settings=changed)) == (
        "network.base_channels: 64, not 128; train.steps: 300, not 800000"
    )
    assert "0.16M parameters; train.steps: 5, not 1200" in against_the_paper(
        preset("digits", settings={"train.steps": "5"})
    )
    assert against_the_paper(override(TINY, {"preset": "imported"})) == "another project's model"


def test_nothing_is_claimed_of_an_imported_models_training():
    log = TrainingLog(
        loss=torch.zeros(0).numpy(),
        gradient_norm=torch.zeros(0).numpy(),
        status="imported",
        reason="imported from owner/name",
        steps=0,
        images=0,
        seconds=0.0,
        parameters=1234,
    )
    text = describe(override(TINY, {"preset": "imported"}), log)
    assert text["Training"] == "imported from owner/name; how it was trained is not recorded"
    assert "1,234 parameters" in text["Network"] and text["Predicts"] == "eps, variance fixed-large"
    assert not {"batch", "updates", "squared error"} & set(" ".join(text.values()).split())
