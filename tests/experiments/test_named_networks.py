"""Folders of named networks, and of a run's network on other data."""

import numpy as np
import pytest
from tiny import HERE, TINY, digits
from untrained import save_untrained

from ddpm_eval.spec_text import override
from ddpm_eval.stages.named_run import named_spec
from ddpm_eval.stages.run_folders import open_run
from experiments.named_networks import OF_A_RUN, named_run, on_other_data


@pytest.fixture
def trained(tmp_path):
    """The folder of a run that claims to be trained."""
    return save_untrained(tmp_path / "runs" / "tiny" / "first")


@pytest.fixture
def few(tmp_path):
    """Another data set of the same shape."""
    np.savez(tmp_path / "few images.npz", x_train=digits().array[:30], x_test=digits("test").array[:12])
    return f"npz:{tmp_path / 'few images.npz'}"


def test_a_run_on_other_data_has_a_folder_named_after_these(trained, few, tmp_path):
    folder = on_other_data(trained, few)
    assert folder.parent == tmp_path / "runs" / "npz-few-images"
    assert folder.name.startswith("first-") and folder == on_other_data(trained, few)
    found = open_run(folder, HERE)
    assert (found.spec.data.name, found.spec.seed) == (few, TINY.seed)
    assert found.spec.evaluation == TINY.evaluation
    assert found.spec.diffusion.timesteps == TINY.diffusion.timesteps
    expected = open_run(trained, HERE).schedule()
    np.testing.assert_array_equal(found.schedule().alpha_bar, expected.alpha_bar)


def test_on_its_own_data_a_run_is_itself(trained):
    assert on_other_data(trained, "digits") == trained


def test_other_weights_are_another_folder(trained, few, tmp_path):
    other = save_untrained(
        tmp_path / "other" / "first", override(TINY, {"diffusion.variance": "fixed-small"})
    )
    assert on_other_data(trained, few).name != on_other_data(other, few).name


def test_a_named_network_can_be_given_other_data(trained, few, tmp_path):
    first = named_run(OF_A_RUN, {"folder": str(trained)}, "digits", tmp_path / "runs")
    assert first.parent == tmp_path / "runs" / "digits" and first.name.startswith("load_run-")
    second = on_other_data(first, few)
    assert second.parent == tmp_path / "runs" / "npz-few-images"
    assert named_spec(second).network == named_spec(first).network


def test_images_of_another_shape_are_refused(trained):
    with pytest.raises(ValueError, match="the model is of images of 1x8x8, but these have 3x8x8"):
        on_other_data(trained, "photos")
