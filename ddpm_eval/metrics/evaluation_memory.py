"""How much memory sampling and the bound of a U-Net take, and features, told before they start.

The tensors are counted, not modelled: each counts while it lives, and the peak is a line in the batch. The
network's pass is done on torch's meta device, where tensors have shapes but no memory; the arithmetic around
it is done with one and with two images, beside a stand-in for the network. What the kernels need within an
operation, and what the allocator cannot use again, is about as much again (measured on a CPU with networks of
CIFAR-10 and of the digits). On a GPU a compiler needs less: there work is refused only if it cannot fit. The
sum is of one process, beyond what it holds before; 1 GB is 10^9 bytes.
"""

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddpm_eval.host_memory import readable
from ddpm_eval.metrics.bound import evaluate_pairs
from ddpm_eval.metrics.measured_model import Model
from ddpm_eval.model.diffusion import make_schedule
from ddpm_eval.model.samplers import make_sampler
from ddpm_eval.protocol import Protocol
from ddpm_eval.runtime import Runtime
from ddpm_eval.spec import NamedNetwork, RunSpec
from ddpm_eval.training.build import build_network
from ddpm_eval.training.memory import FLOAT_BYTES, LEAST_SHARE, available_bytes

LIBRARIES_BYTES = 45 * 10**6
"""What torch loads and keeps once it computes (measured on a CPU)."""
KERNELS = 2
"""By how much the measured peak of a batch exceeds its live tensors."""
LOADING_COPIES = 2
"""Copies of the weights while they are read."""
RESULT_COPIES = 3
"""Copies of the results while they are joined, digested and stored."""
ERROR = 0.25
"""The share by which the measured peak may exceed the estimate."""
BATCHES = (16, 32)
"""Numbers of images of which the network's pass is counted: enough to outweigh products of the weights."""
MOST_LIVE = 40
"""No U-Net holds so many tensors of its widest level and first side at once."""


@dataclass(frozen=True)
class EvaluationMemory:
    """What one process needs to evaluate a network, in bytes beyond what it holds before.

    Attributes:
        loading: what is needed while the network is read.
        fixed: what does not depend on the batch: the weights, libraries.
        per_image: of each image of a batch.
        results: what the results need when all batches are done.
        least_share: the share of ``per_image`` that is needed in any case.
    """

    loading: int
    fixed: int
    per_image: int
    results: int = 0
    least_share: float = 1.0

    def needed(self, images: int) -> int:
        """Return the peak of batches of so many images."""
        return max(self.loading, self.fixed + max(images * self.per_image, self.results))

    def least(self, images: int) -> int:
        """Return the peak that no compiler can undercut."""
        of_batch = round(images * self.per_image * self.least_share)
        return max(self.loading, self.fixed + max(of_batch, self.results))

    def largest_batch(self, available: int) -> int:
        """Return how many images at once surely fit into ``available`` bytes, 0 if none do."""
        safe = int(available * (1 - ERROR))
        fits = max(self.loading, self.fixed + self.results) <= safe
        return max(0, (safe - self.fixed) // self.per_image) if fits else 0


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that are made in its block, while they live.

    Attributes:
        live: the bytes now.
        peak: the most so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operation, and count the tensors that it returns."""
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return found

    def leave_out(self, tensor: Tensor) -> None:
        """Count neither this tensor nor views of it."""
        self._known.add(tensor.untyped_storage()._cdata)

    def add_for_a_moment(self, count: int) -> None:
        """Count bytes that are taken and given back."""
        self.peak = max(self.peak, self.live + count)

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, storage._cdata, storage.nbytes())

    def _release(self, name: int, count: int) -> None:
        self._known.discard(name)
        self.live -= count


@dataclass(frozen=True)
class Evaluation:
    """Something that a U-Net is to be evaluated for.

    Attributes:
        work: what is done, such as ``sampling``.
        spec: the run.
        runtime: where it is done.
        results: bytes that the results need when all batches are done.
        peak: returns the bytes that are live at the peak of a batch, given its number of images and the
            bytes that the network's pass takes of each.
    """

    work: str
    spec: RunSpec
    runtime: Runtime
    results: int
    peak: Callable[[int, int], int]

    def memory(self) -> EvaluationMemory:
        """Estimate the memory that it takes, without taking any."""
        with torch.device("meta"):
            weights = FLOAT_BYTES * sum(p.numel() for p in build_network(self.spec).parameters())
        few, many = (_network_peak(self.spec, images) for images in BATCHES)
        of_network = (many - few) // (BATCHES[1] - BATCHES[0])
        of_weights = max(0, few - BATCHES[0] * of_network)
        per_image = self.peak(2, of_network) - self.peak(1, of_network)
        return EvaluationMemory(
            loading=LOADING_COPIES * weights,
            fixed=weights + of_weights + LIBRARIES_BYTES,
            per_image=round(KERNELS * per_image),
            results=self.results,
            least_share=LEAST_SHARE if self.runtime.compiled else 1.0,
        )

    def surely_fits(self, batch_size: int, available: int) -> bool:
        """Tell whether a generous bound, which is had at once, is far below what is available."""
        network = self.spec.unet
        widest = network.base_channels * max(network.multipliers)
        parameters = 72 * widest**2 * len(network.multipliers) * (network.blocks + 1)
        tensor = widest * self.spec.data.side**2
        needed = FLOAT_BYTES * (LOADING_COPIES * parameters + MOST_LIVE * tensor * batch_size) + self.results
        return needed + LIBRARIES_BYTES < available / 2


def sampling(spec: RunSpec, protocol: Protocol, samples: int, runtime: Runtime) -> Evaluation:
    """Return the drawing of so many samples under a protocol."""
    shape = (spec.data.channels, spec.data.side, spec.data.side)

    def peak(images: int, of_network: int) -> int:
        counted = LiveTensors()
        sampler = make_sampler(_stand_in(spec, of_network, counted).under(protocol).process, 0, "ancestral")
        with counted:
            ids = torch.arange(images)
            sampler.run(sampler.start(ids, shape), ids, first=2, last=1)
        return counted.peak

    return Evaluation("sampling", spec, runtime, RESULT_COPIES * samples * math.prod(shape), peak)


def bound(spec: RunSpec, protocols: Sequence[Protocol], terms: int, runtime: Runtime) -> Evaluation:
    """Return the evaluation of the bound under some protocols, of so many terms under each."""
    shape = (spec.data.channels, spec.data.side, spec.data.side)
    countable = [_countable(protocol) for protocol in protocols]

    def peak(images: int, of_network: int) -> int:
        counted = LiveTensors()
        model = _stand_in(spec, of_network, counted)
        with counted:
            evaluate_pairs(
                [model.under(protocol) for protocol in countable],
                lambda positions: torch.zeros(len(positions), *shape, dtype=torch.float64),
                np.arange(images),
                np.stack([np.arange(images), np.ones(images, dtype=np.int64)], axis=1),
                seed=0,
                draws=1,
                batch_size=images,
                progress=lambda done: None,
            )
        return counted.peak

    results = RESULT_COPIES * 2 * FLOAT_BYTES * terms * len(protocols)  # terms, and errors of x0_hat
    return Evaluation("the bound", spec, runtime, results, peak)


def check(evaluation: Evaluation, batch_size: int) -> None:
    """Check that a U-Net can be evaluated in the memory that is available.

    Of other networks nothing is known.

    Raises:
        ValueError: if it cannot; the largest batch that can is named.
    """
    available = available_bytes(evaluation.runtime)
    if available is None or isinstance(evaluation.spec.network, NamedNetwork):
        return
    if evaluation.surely_fits(batch_size, available):
        return
    found = evaluation.memory()
    if found.least(batch_size) > available:
        raise ValueError(shortage(evaluation, batch_size, found, available))


def shortage(evaluation: Evaluation, batch_size: int, found: EvaluationMemory, available: int) -> str:
    """Return a sentence: what an evaluation needs, what there is, and what to do."""
    largest = found.largest_batch(available)
    advice = f"--batch-size {largest} fits" if largest else "not even batches of one image fit"
    return (
        f"{evaluation.work} of {evaluation.spec.preset} in batches of {batch_size} needs about "
        f"{readable(found.needed(batch_size))} ({readable(found.per_image)} per image), but "
        f"{readable(available)} are available on the {evaluation.runtime.device.type}: {advice}"
    )


def check_features(name: str, batch_size: int, extract: Callable[[int], object], runtime: Runtime) -> None:
    """Check that features can be computed in batches, by counting the passes of one and of two images.

    Args:
        name: of the network.
        batch_size: images per pass.
        extract: computes the features of the first so many images.
        runtime: where they are computed.

    Raises:
        ValueError: if there is too little memory.
    """

    def peak(images: int) -> int:
        with LiveTensors() as counted:
            extract(images)
        return counted.peak

    available = available_bytes(runtime)
    if available is None:
        return
    one, two = peak(1), peak(2)
    needed = LIBRARIES_BYTES + one + round(KERNELS * (two - one)) * (batch_size - 1)
    if needed > available:
        raise ValueError(
            f"features of {name} in batches of {batch_size} need about {readable(needed)}, but "
            f"{readable(available)} are available on the {runtime.device.type} (end other programs?)"
        )


def _stand_in(spec: RunSpec, per_image: int, counted: LiveTensors) -> Model:
    """Return a model of the run whose network only counts what it would take."""

    def network(x_t: Tensor, timestep: Tensor) -> Tensor:
        counted.add_for_a_moment(len(x_t) * per_image)
        return torch.zeros(len(x_t), spec.out_channels, *x_t.shape[2:])

    diffusion = spec.diffusion
    return Model(network, make_schedule(diffusion), diffusion.prediction, diffusion.variance_name)


def _network_peak(spec: RunSpec, images: int) -> int:
    """Return the most bytes of live tensors in the network's pass over a batch, without the weights."""
    with torch.device("meta"):
        network = build_network(spec).eval()
        x = torch.empty(images, spec.data.channels, spec.data.side, spec.data.side)
        t = torch.empty(images, dtype=torch.int64)
    with torch.inference_mode(), LiveTensors() as counted:
        for tensor in (x, t, *network.parameters(), *network.buffers()):
            counted.leave_out(tensor)
        network(x, t)
    return counted.peak


def _countable(protocol: Protocol) -> Protocol:
    """Return a protocol of the same cost that needs no estimate of the model's errors."""
    return protocol.model_copy(update={"variance": "trained"}) if protocol.variance == "optimal" else protocol
