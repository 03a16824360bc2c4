"""Training as a stage: its log and the chain's tables are stored together, and of the present weights."""

import numpy as np
import pytest
from counted_run import CountedRun, again, bring_about, delete_results, names
from tiny import HERE, TINY

from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.results import hdf5
from ddpm_eval.results.records import ScheduleTables, TrainingLog
from ddpm_eval.runtime import ALONE
from ddpm_eval.stages.base import is_done
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.run_folders import open_run
from ddpm_eval.stages.sampling_stages import SamplesStage
from ddpm_eval.stages.training_stage import (
    TrainingStage,
    record_divergence,
    record_training,
    stored_log,
)
from ddpm_eval.training import checkpoint, loop
from ddpm_eval.training.loop import TrainingOptions

T = TINY.diffusion.timesteps
STOP_AT_ONCE = TrainingStage(TrainingOptions(max_minutes=1e-9))


def is_trained(run):
    return is_done(TrainingStage(), run)


def test_training_stores_its_log_and_the_chains_tables(run):
    log = run.results.get("training", TrainingLog)
    assert (log.status, log.steps) == ("ok", TINY.train.steps) and names(run) == {"training", "schedule"}
    entry = run.results.entry("training", run.weights)
    assert entry.provenance["spec"] == run.spec.model_dump(mode="json")
    assert entry.provenance["run"] == run.spec.training_digest()
    assert entry.provenance["device"].startswith("CPU") and entry.provenance["precision"] == "fp32"
    assert entry.provenance["weights"] == run.weights == run.results.entry("schedule").key
    tables, schedule = run.results.get("schedule", ScheduleTables), make_schedule(run.spec.diffusion)
    for name in ("beta", "alpha_bar", "beta_tilde"):
        np.testing.assert_array_equal(getattr(tables, name), getattr(schedule, name).numpy()[1:])
    np.testing.assert_array_equal(tables.fixed_large, schedule.fixed_variance("fixed-large").numpy()[1:])
    np.testing.assert_array_equal(tables.fixed_small, schedule.fixed_variance("fixed-small").numpy()[1:])


def test_a_published_run_has_no_training_left(run):
    stage = TrainingStage()
    assert stage.network_evaluations(run) == 3 * TINY.train.steps * TINY.train.batch_size
    published = checkpoint.averaged(checkpoint.load(run.checkpoint, prefixes=("ema/", "log/")))
    checkpoint.save(run.checkpoint, published)
    assert stage.network_evaluations(again(run)) == 0


def test_log_and_tables_are_stored_in_one_step(run, monkeypatch):
    """A training whose tables cannot be written has no log either, and is not trained again for them."""
    delete_results(run)
    with monkeypatch.context() as patch:
        write = hdf5.write_dataset

        def fail(group, name, value):
            if name == "alpha_bar":
                raise OSError("no space left")
            return write(group, name, value)

        patch.setattr(hdf5, "write_dataset", fail)
        with pytest.raises(ValueError, match="no space left"):
            bring_about(again(run), TrainingStage())
    assert names(run) == set() and not is_trained(run)
    monkeypatch.setattr(loop, "_train", lambda *arguments: pytest.fail("trained again"))
    bring_about(again(run), TrainingStage())
    assert names(run) == {"training", "schedule"}


def test_a_checkpoint_that_its_log_does_not_know_is_not_called_trained(run):
    """Killed between a checkpoint and the log: what the log says is of other weights."""
    before = run.results.store.path.read_bytes()
    longer = again(run, train__steps=9)
    bring_about(longer, TrainingStage())
    run.results.store.path.unlink()
    run.results.store.path.write_bytes(before)
    assert not is_trained(again(run, train__steps=9)) and not is_trained(again(run))
    record_training(again(run, train__steps=9))
    assert is_trained(again(run, train__steps=9))


def test_training_is_done_once(run, monkeypatch):
    assert is_trained(run)
    monkeypatch.setattr(loop, "train", lambda *arguments, **options: pytest.fail("trained again"))
    bring_about(run, TrainingStage())
    assert stored_log(run).steps == TINY.train.steps


def test_a_longer_training_makes_new_weights_and_measures_anew(run):
    bring_about(run, SamplesStage(4))
    longer = again(run, train__steps=8)
    assert not is_trained(longer) and longer.weights == run.weights
    bring_about(longer, TrainingStage())
    assert stored_log(longer).steps == 8 and is_trained(longer)
    assert longer.weights != run.weights
    bring_about(longer, SamplesStage(4))
    assert longer.evaluations == 4 * T


def test_a_stopped_training_is_not_done_and_goes_on(spec, tmp_path):
    first = Run(tmp_path, spec, HERE)
    bring_about(first, STOP_AT_ONCE)
    stopped = stored_log(first)
    assert stopped.status == "stopped" and 0 < stopped.steps < TINY.train.steps and not is_trained(first)
    second = Run(tmp_path, spec, HERE)
    bring_about(second, TrainingStage())
    log = stored_log(second)
    assert log.status == "ok" and is_trained(second)
    np.testing.assert_array_equal(log.loss[: stopped.steps], stopped.loss)
    # its wall time is that of both parts together
    assert second.results.entry("training").provenance["wall_seconds"] == round(log.seconds, 3)
    assert log.seconds > stopped.seconds


def test_the_training_of_a_checkpoint_is_recorded_as_it_is(spec, tmp_path):
    """A stopped run is not trained on the way, and its results are known to be of its present weights."""
    bring_about(Run(tmp_path, spec, HERE), STOP_AT_ONCE)
    run = open_run(tmp_path, HERE)
    delete_results(run)
    content = run.checkpoint.read_bytes()
    record_training(run)
    log = run.results.get("training", TrainingLog)
    assert log.status == "stopped" and 0 < log.steps < TINY.train.steps
    assert names(run) == {"training", "schedule"}
    assert run.checkpoint.read_bytes() == content and not is_trained(run)
    before = run.results.store.path.stat().st_mtime_ns
    record_training(run)
    assert run.results.store.path.stat().st_mtime_ns == before


def test_divergence_of_samples_is_recorded_in_the_log_and_ends_training(run):
    record_divergence(run, "all samples are grey")
    log = stored_log(run)
    assert log.diverged and log.reason == "all samples are grey"
    assert run.results.entry("schedule", run.weights)
    longer = again(run, train__steps=99)
    assert is_trained(longer)  # it can never go on
    record_training(run)
    assert stored_log(run).diverged  # what the checkpoint says does not replace it


def test_without_a_checkpoint_nothing_is_known(spec, tmp_path):
    run = CountedRun(tmp_path, spec, ALONE)
    assert stored_log(run) is None and not is_trained(run)
    record_divergence(run, "nobody asked")
    assert names(run) == set()


def test_the_cost_of_training_is_that_of_all_its_images(run):
    assert TrainingStage().network_evaluations(run) == 3 * TINY.train.steps * TINY.train.batch_size
