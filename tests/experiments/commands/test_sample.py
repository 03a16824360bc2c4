"""``sample``: how many are drawn, on which chain, and the files that they are written to."""

import numpy as np
from command_line import TINY, call, refuse, runs_option, set_options

from ddpm_eval.results.records import Samples
from ddpm_eval.results.store import Store


def test_samples_are_written_as_png_and_npz(trained_run, tmp_path):
    files = ["--png", tmp_path / "png", "--npz", tmp_path / "samples.npz"]
    assert "5 samples in" in call("sample", trained_run, "-n", "5", *files)
    assert len(list((tmp_path / "png").glob("*.png"))) == 5
    images = np.load(tmp_path / "samples.npz")["arr_0"]
    assert images.shape == (5, 8, 8, 1)
    stored = Store(trained_run / "results.h5").get("samples", Samples).images
    assert len(stored) == 80 and np.array_equal(images.transpose(0, 3, 1, 2), stored[:5])


def test_samples_that_are_not_finite_are_never_exported(trained_run, tmp_path):
    store = Store(trained_run / "results.h5")
    (entry,) = [entry for entry in store.entries() if entry.name == "samples"]
    samples = store.get("samples", Samples)
    samples.out_of_range[3] = np.nan
    store.put("samples", samples, key=entry.key, provenance=entry.provenance)
    for files in (["--png", tmp_path / "png"], ["--npz", tmp_path / "samples.npz"]):
        said = refuse("sample", trained_run, "-n", "5", *files)
        assert "1 samples are not finite, the first is sample 3" in said
        assert not files[1].exists()
    assert call("sample", trained_run, "-n", "5").strip().endswith("results.h5, 1 of them not finite")
    assert "3 samples in" in call("sample", trained_run, "-n", "3", "--png", tmp_path / "png")
    assert len(list((tmp_path / "png").iterdir())) == 3


def test_samples_of_another_sampler_lie_beside_the_others(trained_run):
    call("sample", trained_run, "-n", "4", "--steps", "5", "--method", "ddim")
    store = Store(trained_run / "results.h5")
    assert len(store.get("samples-ddim-5", Samples).images) == 4
    assert len(store.get("samples", Samples).images) == 80


def test_the_spacing_of_fewer_steps_can_be_chosen(trained_run):
    call("sample", trained_run, "-n", "4", "--steps", "5", "--method", "ddim", "--spacing", "leading")
    store = Store(trained_run / "results.h5")
    assert len(store.get("samples-ddim-5-leading", Samples).images) == 4
    assert "name their number by --steps" in refuse("sample", trained_run, "--spacing", "leading")


def test_a_network_that_predicts_mu_visits_every_step(tmp_path):
    one_update = set_options({**TINY, "train.steps": "1", "diffusion.prediction": "mu"})
    call("train", *runs_option(tmp_path), *one_update, "--preview-steps", "0")
    run = next((tmp_path / "runs" / "digits").iterdir())
    assert "fewer steps are not possible" in refuse("sample", run, "-n", "1", "--steps", "5")
    assert "1 samples in" in call("sample", run, "-n", "1", "--steps", "20")


def test_samples_of_a_young_average_come_with_a_warning(trained_run, caplog):
    call("sample", trained_run, "-n", "4")
    (message,) = caplog.messages
    assert message.startswith(f"{trained_run}: after 12 updates 94% of the averaged weights")
