"""Import and export with real diffusers objects: same weights, same predictions, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from other_projects import (
    DIFFUSION,
    SHAPES,
    SHORT,
    assert_same_prediction,
    loaded_pipeline,
    pipeline,
    run_spec,
    saved_pipeline,
    saved_run,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.files import file_digest
from ddpm_eval.interchange import import_export
from ddpm_eval.interchange.import_export import export_checkpoint, import_checkpoint
from ddpm_eval.runtime import ALONE
from ddpm_eval.spec_text import override
from ddpm_eval.training.checkpoint import FILE_NAME, load, load_network, weights_digest
from ddpm_eval.training.loop import train, training_log


@pytest.mark.parametrize("shape", SHAPES)
def test_diffusers_loads_an_exported_run_and_predicts_the_same(shape: str, tmp_path: Path) -> None:
    spec = run_spec(shape)
    ours = saved_run(tmp_path / "run", spec)
    export_checkpoint(tmp_path / "run", tmp_path / "out")
    assert_same_prediction(ours, loaded_pipeline(tmp_path / "out").unet, spec)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_saved_by_diffusers_is_imported_and_predicts_the_same(shape: str, tmp_path: Path) -> None:
    spec, pipe = run_spec(shape), pipeline(run_spec(shape))
    pipe.save_pretrained(tmp_path / "theirs")
    imported = import_checkpoint(tmp_path / "theirs", tmp_path / "run", data="random")
    assert imported.data == spec.data
    assert imported.diffusion == spec.diffusion
    loaded_spec, ours = load_network(tmp_path / "run")
    assert loaded_spec == imported
    assert_same_prediction(ours, pipe.unet, spec)


def test_the_exported_pipeline_samples(tmp_path: Path) -> None:
    saved_run(tmp_path / "run", run_spec("digits", timesteps=10))
    export_checkpoint(tmp_path / "run", tmp_path / "out")
    pipe = loaded_pipeline(tmp_path / "out")
    images = pipe(
        batch_size=3, num_inference_steps=10, generator=torch.manual_seed(0), output_type="np"
    ).images
    assert images.shape == (3, 8, 8, 1)
    assert images.std() > 0.01


@pytest.mark.parametrize("choice", DIFFUSION)
def test_export_and_import_give_back_the_run(choice: str, tmp_path: Path) -> None:
    spec = run_spec("cifar10", **(SHORT | DIFFUSION[choice]))
    saved_run(tmp_path / "run", spec)
    export_checkpoint(tmp_path / "run", tmp_path / "out")
    back = import_checkpoint(tmp_path / "out", tmp_path / "back", data="random")
    assert back.network == spec.network
    assert weights_digest(tmp_path / "back") == weights_digest(tmp_path / "run")
    if choice == "constant":  # diffusers has no constant schedule, but a linear one between equal ends
        assert (back.diffusion.schedule, back.diffusion.beta_start, back.diffusion.beta_end) == (
            "linear",
            0.05,
            0.05,
        )
    else:
        assert back.diffusion == spec.diffusion


def test_an_imported_run_counts_as_trained_but_not_by_us(tmp_path: Path) -> None:
    theirs = saved_pipeline(tmp_path / "theirs")
    import_checkpoint(theirs, tmp_path / "run", data="cifar10")
    found = load(tmp_path / "run")
    log = training_log(found)
    assert (log.status, log.steps, log.images, len(log.loss)) == ("imported", 0, 0, 0)
    assert log.over and log.imported and not log.diverged
    digest = file_digest(theirs / "unet" / "diffusion_pytorch_model.safetensors")
    assert log.reason == f"imported from {theirs} (SHA-256 {digest})"
    assert found.part("model/").keys() == found.part("ema/").keys()
    assert all(
        torch.equal(value, found.tensors[f"model/{name}"]) for name, value in found.part("ema/").items()
    )


def test_an_imported_model_is_never_trained_further(tmp_path: Path) -> None:
    spec = import_checkpoint(saved_pipeline(tmp_path / "theirs"), tmp_path / "run", data="random")
    before = (tmp_path / "run" / FILE_NAME).read_bytes()
    longer = override(spec, {"train.steps": "5"})
    images = ImageSet(
        "random", "train", np.arange(1), None, np.arange(0), "", 3, 32, np.zeros((1, 3, 32, 32), np.uint8)
    )
    assert train(longer, images, ALONE, tmp_path / "run" / FILE_NAME).imported
    assert (tmp_path / "run" / FILE_NAME).read_bytes() == before


def test_results_of_another_model_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.h5").write_bytes(b"of a checkpoint that was deleted")
    with pytest.raises(ValueError, match=r"results\.h5 exists already"):
        import_checkpoint(saved_pipeline(tmp_path / "theirs"), tmp_path / "run", data="random")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_pipeline(tmp_path_factory.mktemp("theirs"))


def test_weights_that_differ_from_their_configuration_are_refused_with_the_field(
    theirs: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"network.base_channels is 16 in the weights, but 32 in the specification"
    ):
        import_checkpoint(theirs, tmp_path / "run", data="cifar10", settings={"network.base_channels": "32"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra.weight": torch.zeros(3)}, "does not have: extra.weight"),
        ({"conv_in.bias": None}, "lacks weights of this network: conv_in.bias"),
        ({"conv_in.bias": torch.full((16,), torch.inf)}, "conv_in.bias holds values that are not finite"),
    ],
)
def test_unknown_missing_and_infinite_weights_are_named(
    change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    file = saved_pipeline(tmp_path / "theirs") / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file) | change
    save_file({name: value for name, value in weights.items() if value is not None}, file)
    with pytest.raises(ValueError, match=message):
        import_checkpoint(tmp_path / "theirs", tmp_path / "run", data="cifar10")


def test_what_exists_is_not_overwritten(theirs: Path, tmp_path: Path) -> None:
    import_checkpoint(theirs, tmp_path / "run", data="cifar10")
    with pytest.raises(ValueError, match="exists already"):
        import_checkpoint(theirs, tmp_path / "run", data="cifar10")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes").touch()
    with pytest.raises(ValueError, match="not an empty folder"):
        export_checkpoint(tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize(
    ("diffusion", "message"),
    [
        ({"prediction": "mu"}, r"diffusion.prediction is mu, which diffusers does not have \(eps, x0\)"),
        (
            {"variance": "learned", "objective": "vlb"},
            r"diffusion.variance is learned, which diffusers does not have",
        ),
    ],
)
def test_what_diffusers_lacks_is_not_exported(
    diffusion: dict[str, str], message: str, tmp_path: Path
) -> None:
    saved_run(tmp_path / "run", run_spec("digits", **diffusion))
    with pytest.raises(ValueError, match=message):
        export_checkpoint(tmp_path / "run", tmp_path / "out")
    assert os.listdir(tmp_path) == ["run"]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no export format 'onnx'"):
        export_checkpoint(tmp_path / "run", tmp_path / "out", format="onnx")


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_run(tmp_path / "run", run_spec("digits"))

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(import_export, "write_tensors", full)
    with pytest.raises(ValueError, match=r"cannot write .*out .*No space left"):
        export_checkpoint(tmp_path / "run", tmp_path / "out")
    assert os.listdir(tmp_path) == ["run"]
