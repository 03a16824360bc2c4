"""``rate-distortion`` of runs that are not what their place says, or not trained to their end."""

import pytest
from command_line import SETTINGS, call, folders, refuse, runs_option

from experiments.paper.presets import preset, run_name


def test_a_run_of_another_preset_is_refused(trained_run, tmp_path):
    spec = preset("digits")
    target = tmp_path / "other" / "runs" / "digits" / run_name(spec)
    target.mkdir(parents=True)
    for file in ("results.h5", "checkpoint.safetensors"):
        (target / file).write_bytes((trained_run / file).read_bytes())
    message = refuse("rate-distortion", "--preset", "digits", *folders(tmp_path / "other"))
    assert "belongs to another run" in message and "network.base_channels" in message


@pytest.mark.parametrize("command", ["rate-distortion", "progressive"])
def test_it_is_of_the_photos_unless_another_preset_or_other_images_are_named(command, tmp_path):
    dry = [command, "--dry-run", *folders(tmp_path)]
    assert f"{tmp_path / 'runs' / 'photos'}/eps-mse-fixed-large: to do: train" in call(*dry)
    assert f"{tmp_path / 'runs' / 'digits'}/" in call(*dry, "--preset", "digits")
    assert f"{tmp_path / 'runs' / 'digits'}/" in call(*dry, "--data", "digits")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("passive")
def test_a_run_that_was_stopped_is_measured_as_it_is_and_trained_on_when_asked(tmp_path):
    call("train", *runs_option(tmp_path), *SETTINGS, "--max-minutes", "1e-9")
    run = next((tmp_path / "runs" / "digits").iterdir())
    checkpoint = (run / "checkpoint.safetensors").read_bytes()
    output = call("rate-distortion", run, "--reports", tmp_path / "reports")
    report = (tmp_path / "reports" / f"digits-{run.name}" / "report.md").read_text()
    assert "Report:" in output and "preset digits, 4 updates of batch 16" in report
    assert "train.steps: 4, not 1200" in report  # not as published
    assert (run / "checkpoint.safetensors").read_bytes() == checkpoint
    assert "ok after 12 updates" in call("train", run)
    assert "name a RUN or --objective, not both" in refuse("train", run, "--objective", "vlb")
    assert "belongs to another run" in refuse("train", run, "--set", "train.batch_size=8")
