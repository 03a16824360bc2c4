"""A run that counts its network evaluations and can be killed in the middle of them."""

from functools import cached_property

from ddpm_eval.spec_text import override
from ddpm_eval.stages.base import ensure
from ddpm_eval.stages.bound_stage import BoundStage
from ddpm_eval.stages.run import Run

UNLIMITED = 10**9


class Killed(Exception):
    """Stands for a kill: nothing that was not written is left."""


class CountedRun(Run):
    """A run of small batches, killed when its network evaluations would exceed ``limit``."""

    evaluations = 0
    limit = UNLIMITED
    size = 8

    @property
    def network(self):
        """The network, with every evaluation counted."""
        return self.respond

    @property
    def batch_size(self):
        return self.size

    @cached_property
    def trained_network(self):
        return Run.network.func(self)

    def respond(self, x_t, timestep):
        """Return the network's output; tests of bad outputs replace this."""
        trained_network = self.trained_network
        if self.evaluations + len(x_t) > self.limit:
            raise Killed
        self.evaluations += len(x_t)
        return trained_network(x_t, timestep)

    def forget_weights(self):
        super().forget_weights()
        self.__dict__.pop("trained_network", None)


def again(run, limit=UNLIMITED, **settings):
    """Return what a new process would see of a run, with other settings: ``train__steps=8``."""
    changes = {key.replace("__", "."): str(value) for key, value in settings.items()}
    fresh = CountedRun(run.folder, override(run.spec, changes), run.runtime)
    fresh.limit = limit
    return fresh


def bring_about(run, stage):
    """Make sure that a stage's result is stored, and return the stage."""
    ensure(stage, run)
    return stage


def measure_bound(run, *protocols, split="test", **choices):
    """Measure the bound under some protocols, and return their terms."""
    stage = bring_about(run, BoundStage(split, protocols, **choices))
    return [stage.read(run, protocol) for protocol in protocols]


def names(run):
    """Return the names of all stored results."""
    return {entry.name for entry in run.results.store.entries()}


def delete_results(run):
    """Delete all but the checkpoint and the work in progress."""
    run.results.store.path.unlink()


def partial_files(run):
    """Return the files of the work in progress."""
    return list((run.folder / "partial").rglob("*.h5"))
