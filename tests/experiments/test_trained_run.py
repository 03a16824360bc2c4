"""What a checkpoint says of its run."""

import pytest
from tiny import TINY
from untrained import save_untrained

from ddpm_eval.training import checkpoint
from experiments.study import measured_spec, resolve_run
from experiments.trained_run import trained_log, trained_spec


def test_a_run_is_measured_as_far_as_it_is_trained(tmp_path):
    spec = trained_spec(save_untrained(tmp_path, step=4))
    found = resolve_run(tmp_path, spec, {"evaluation.n_samples": "7"}).main.spec
    assert found.train.steps == 4 < TINY.train.steps
    assert found.evaluation.n_samples == 7
    assert found.training_digest() == TINY.training_digest()


def test_the_log_is_that_of_the_checkpoint(tmp_path):
    spec, log = trained_log(save_untrained(tmp_path, step=4))
    assert spec == TINY
    assert (log.steps, log.status, log.images) == (4, "stopped", 4 * TINY.train.batch_size)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none holds no checkpoint\.safetensors \(train the run first"):
        trained_spec(tmp_path / "none")
    with pytest.raises(ValueError, match="there is no checkpoint"):
        trained_log(tmp_path / "none")


def test_a_file_where_a_folder_is_meant_is_refused(tmp_path):
    save_untrained(tmp_path / "run")
    with pytest.raises(ValueError, match=r"safetensors holds no checkpoint\.safetensors"):
        trained_spec(tmp_path / "run" / checkpoint.FILE_NAME)


def test_a_run_that_is_trained_but_not_measured_has_nothing_to_report(tmp_path):
    with pytest.raises(ValueError, match="holds no results to report"):
        measured_spec(save_untrained(tmp_path))
