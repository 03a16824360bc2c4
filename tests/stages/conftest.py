"""The tiny run on few images, trained once for all tests of stages; each test gets a copy."""

import shutil

import numpy as np
import pytest
from counted_run import CountedRun
from tiny import HERE, TINY, digits

from ddpm_eval.metrics import bound
from ddpm_eval.spec_text import override
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.training_stage import TrainingStage, stored_log

N_TRAIN, N_TEST, INEXACT = 40, 20, (3, 7)


@pytest.fixture(autouse=True)
def small_items(monkeypatch):
    """Cut the bound of the few images into several work items."""
    monkeypatch.setattr(bound, "ITEM_IMAGES", 4)


@pytest.fixture(scope="session")
def spec(tmp_path_factory):
    """The tiny run on 60 real digits, two of whose test images are declared inexact."""
    path = tmp_path_factory.mktemp("data") / "few.npz"
    labels = {"y_train": digits().labels[:N_TRAIN], "y_test": digits("test").labels[:N_TEST]}
    images = {"x_train": digits().array[:N_TRAIN], "x_test": digits("test").array[:N_TEST]}
    np.savez(path, **images, **labels, inexact_test=np.array(INEXACT))
    return override(TINY, {"data.name": f"npz:{path}"})


@pytest.fixture(scope="session")
def trained(spec, tmp_path_factory):
    """A folder with the tiny run, trained."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run = Run(folder, spec, HERE)
    ensure(TrainingStage(), run)
    assert stored_log(run).status == "ok"
    return folder


@pytest.fixture
def run(trained, spec, tmp_path):
    """A fresh copy of the trained run."""
    shutil.copytree(trained, tmp_path / "run")
    return CountedRun(tmp_path / "run", spec, HERE)
