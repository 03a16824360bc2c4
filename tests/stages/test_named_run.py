"""Runs of named networks: what they share with the runs of checkpoints, and when they are refused."""

import numpy as np
import pytest
import torch
from tiny import HERE, TINY

from ddpm_eval.api import named_network
from ddpm_eval.api.named_network import describe_named, load_named
from ddpm_eval.protocol import PROTOCOLS
from ddpm_eval.results.bound_terms import FullBoundTerms
from ddpm_eval.spec_text import override
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.bound_stage import BoundStage
from ddpm_eval.stages.named_run import FILE_NAME, NamedRun, named_spec, save_named
from ddpm_eval.stages.run import Run
from ddpm_eval.stages.run_folders import open_run
from ddpm_eval.stages.sampling_stages import InterpolationStage, SamplesStage
from ddpm_eval.stages.shared_latents_stage import SharedLatentsStage
from ddpm_eval.stages.training_stage import TrainingStage, record_training, stored_log

SOURCE = """
import torch, ddpm_eval
from torch import nn
from ddpm_eval.data.pixels import to_model_range
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.model.gaussian import Gaussian
from ddpm_eval.spec import DiffusionSpec
from ddpm_eval.training.checkpoint import load_network

CHAIN = make_schedule(DiffusionSpec(timesteps=20, beta_start=1e-3, beta_end=0.5))

class Denoiser(nn.Module):
    # Exact for normal images that resemble the digits; it counts times from `first`.
    def __init__(self, chain, first):
        super().__init__()
        images = to_model_range(torch.from_numpy(ddpm_eval.load_images("digits", "train").array))
        self.exact = Gaussian.fit([images]).network(chain, "eps")
        self.register_buffer("first", torch.tensor(first))
    def forward(self, x_t, t):
        return self.exact(x_t.double(), (t - self.first).clamp(min=0))

class Classes(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0, 0.1, 10))
    def forward(self, x_t, t, y):
        return self.weight[y].reshape(-1, 1, 1, 1) * x_t

class Broken(nn.Module):
    def __init__(self, value, channels):
        super().__init__()
        self.weight, self.channels = nn.Parameter(torch.tensor(value)), channels
    def forward(self, x_t, t):
        return (self.weight * x_t).repeat(1, self.channels, 1, 1)

def same(run):
    _, network = load_network(__import__("pathlib").Path(run))
    return ddpm_eval.Model(network, schedule=CHAIN)

def denoiser(first, verify=True):
    chain = make_schedule(DiffusionSpec(schedule="cosine", timesteps=50))
    return ddpm_eval.Model(Denoiser(chain, first), schedule=chain, verify_times=verify)

def classes():
    return ddpm_eval.Model(Classes(), schedule=CHAIN, conditional=True)

def broken(value=1.0, channels=1):
    return ddpm_eval.Model(Broken(float(value), channels), schedule=CHAIN, verify_times=False)

def random():
    return ddpm_eval.Model(nn.Conv2d(1, 1, 1), schedule=CHAIN)
"""


@pytest.fixture
def networks(module_here):
    """The name of a module of networks in the current folder."""
    return module_here(SOURCE)


@pytest.fixture
def named(networks, spec, tmp_path):
    """A function that makes the run of a named network on the few images."""

    def make(function, data=None, **arguments):
        reference, texts = f"{networks}:{function}", {key: str(value) for key, value in arguments.items()}
        network, diffusion = describe_named(reference, texts, load_named(reference, texts))
        changes = {"network": network, "diffusion": diffusion, "data": data or spec.data}
        found = spec.model_copy(update=changes)
        folder = tmp_path / f"{function}-{found.training_digest()}"
        save_named(folder, found)
        return open_run(folder, HERE)

    return make


def bound(run):
    stage = BoundStage("test", (PROTOCOLS["paper"],))
    ensure(stage, run)
    return stage.read(run, stage.protocols[0])


def test_the_network_of_a_checkpoint_has_the_same_bound_and_samples_by_its_name(run, named):
    other = named("same", run=run.folder)
    assert isinstance(other, NamedRun) and isinstance(other.model().schedule, type(run.schedule()))
    expected, found = bound(run), bound(other)
    assert isinstance(found, FullBoundTerms) and len(found.terms)
    np.testing.assert_allclose(found.terms, expected.terms, rtol=1e-5)
    for each in (run, other):
        ensure(SamplesStage(4), each)
    drawn, again = (SamplesStage(4).read(each).images[:4].astype(int) for each in (run, other))
    assert np.abs(drawn - again).max() <= 1


def test_its_training_is_over_and_unknown(run, named):
    other = named("same", run=run.folder)
    ensure(TrainingStage(), other)
    log = stored_log(other)
    assert (log.status, log.steps, log.over) == ("imported", 0, True)
    assert log.reason.startswith("returned by module_of_") and TrainingStage().is_stored(other)
    assert TrainingStage().network_evaluations(other) == 0
    assert (other.folder / FILE_NAME).exists() and not other.checkpoint.exists()


def test_a_network_that_counts_times_otherwise_is_refused(named, monkeypatch):
    monkeypatch.setattr("ddpm_eval.metrics.time_convention.STANDARD_ERRORS", 3.0)  # there are few images
    record_training(named("denoiser", first=0))
    with pytest.raises(ValueError, match=r"time after .* count of times off by one"):
        record_training(named("denoiser", first=1))
    record_training(named("denoiser", first=1, verify="false"))
    assert stored_log(named("denoiser", first=1)) is None


def test_another_network_than_that_of_the_folder_is_refused(named):
    run = named("random")
    named_network._loaded.cache_clear()  # as in another process
    with pytest.raises(ValueError, match=r"holds the results of the network \w+, but .*:random returns"):
        _ = run.model()


def test_classes_come_from_the_images_labels(named, spec, tmp_path):
    run = named("classes")
    assert np.isfinite(bound(run).terms).all()
    labels = torch.from_numpy(run.train_images.labels)
    assert run.process().classes(torch.tensor([0, 1, 41])).tolist() == labels[[0, 1, 1]].tolist()
    key = SamplesStage().key(run)
    with pytest.raises(ValueError, match=r"a mixture of two images has no class of its own"):
        InterpolationStage().check(run)
    assert not InterpolationStage().applies(run) and not SharedLatentsStage().applies(run)
    np.savez(tmp_path / "bare.npz", x_train=run.train_images.array, x_test=run.test_images.array)
    bare = named("classes", data=spec.data.model_copy(update={"name": f"npz:{tmp_path / 'bare.npz'}"}))
    assert SamplesStage().key(bare) != key
    for use in (lambda: bound(bare), bare.process):
        with pytest.raises(ValueError, match=r"class-conditional, but the images have no labels"):
            use()


def test_outputs_that_are_no_predictions_are_refused(named):
    with pytest.raises(ValueError, match=r"not finite"):
        bound(named("broken", value="NaN"))
    with pytest.raises(ValueError, match=r"output has shape .* .does it learn its variance"):
        bound(named("broken", channels=2))


def test_what_is_no_named_run_is_said(tmp_path):
    assert named_spec(tmp_path) is None
    (tmp_path / FILE_NAME).write_text("{")
    with pytest.raises(ValueError, match=f"{FILE_NAME} is damaged"):
        named_spec(tmp_path)
    (tmp_path / FILE_NAME).write_text(TINY.model_dump_json())
    with pytest.raises(ValueError, match=r"names no network"):
        named_spec(tmp_path)


def test_images_are_evaluated_in_batches_of_the_asked_size(named):
    run = named("broken")
    assert run.batch_size == 64
    run.asked_batch_size = 5
    assert run.batch_size == 5
    assert override(run.spec, {"evaluation.n_samples": "4"}).network == run.spec.network
    assert isinstance(run, Run)
