"""How much memory training takes, told before it starts.

Training holds its state (weights, gradients, Adam's two moments and the moving average: five float32 numbers
per parameter, six under several processes) and the activations that the backward pass needs, which grow with
the batch. The activations are counted, not modelled: the loss of a batch is formed on torch's meta device,
where tensors have shapes but no memory, and the tensors that autograd keeps are added up. On a CPU the sum is
within a tenth of the measured peak for the CIFAR-10 networks, and up to a third below it for networks as
small as the digits'. Compiled bfloat16 training on a GPU keeps less, how much less being the compiler's
choice: there training is refused only if it cannot fit, whatever the compiler does. Bytes are those of one
process; 1 GB is 10^9 bytes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_eval import host_memory
from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.host_memory import readable
from ddpm_eval.model.diffusion import training_loss
from ddpm_eval.model.unet import UNet
from ddpm_eval.runtime import Runtime
from ddpm_eval.spec import RunSpec
from ddpm_eval.training.build import build_network, trained_process

FLOAT_BYTES = 4
STATE_COPIES = 5
"""Numbers per parameter in training: weight, gradient, two moments, moving average."""
SAVING_COPIES = 8
"""Numbers per parameter while a checkpoint is written: the state without gradients, and a copy of it."""
LIBRARIES_BYTES = 10**8
"""What torch loads and keeps once it trains (measured on a CPU)."""
ERROR = 0.1
"""The share by which the measured peak may exceed the estimate."""
LEAST_SHARE = 1 / 6
"""The least share of the activations that a compiled bfloat16 pass can keep.

That is one of three tensors per layer, in two of four bytes.
"""


@dataclass(frozen=True)
class MemoryEstimate:
    """What one process needs to train, in bytes beyond what it holds before.

    Attributes:
        fixed: what does not depend on the batch: state, resident images, libraries.
        saving: what is needed while a checkpoint is written, when there are no activations.
        per_image: the activations per image of the batch.
        images: the number of images in this process's shard of the batch.
        least_share: the share of the activations that is kept in any case.
    """

    fixed: int
    saving: int
    per_image: int
    images: int
    least_share: float = 1.0

    @property
    def needed(self) -> int:
        """The peak if all activations are kept in float32."""
        return max(self.fixed + self.images * self.per_image, self.saving)

    @property
    def least(self) -> int:
        """The peak that no compiler can undercut."""
        return max(self.fixed + round(self.images * self.per_image * self.least_share), self.saving)

    def largest_batch(self, available: int) -> int:
        """Return how many images per process surely fit into ``available`` bytes, 0 if none do."""
        safe = int(available * (1 - ERROR))
        return 0 if self.saving > safe else max(0, (safe - self.fixed) // self.per_image)


def estimate(spec: RunSpec, runtime: Runtime, images: ImageSet | None = None) -> MemoryEstimate:
    """Estimate the memory that training takes, without taking any.

    Args:
        spec: the run.
        runtime: where to train; under torchrun the estimate is of one process.
        images: the training split, which lies on the GPU if it is held in memory; None leaves it out.
    """
    on_gpu = runtime.device.type == "cuda"
    parameters = sum(p.numel() for p in _meta_network(spec).parameters())
    one = _kept_bytes(spec, 1)
    two = _kept_bytes(spec, 2)
    resident = images.array.nbytes if on_gpu and images is not None and images.in_memory else 0
    copies = STATE_COPIES + (runtime.world_size > 1)  # DistributedDataParallel's buckets
    return MemoryEstimate(
        fixed=copies * FLOAT_BYTES * parameters + (2 * one - two) + resident + LIBRARIES_BYTES,
        saving=0 if on_gpu else SAVING_COPIES * FLOAT_BYTES * parameters + LIBRARIES_BYTES,
        per_image=two - one,
        images=-(-spec.train.batch_size // runtime.world_size),
        least_share=LEAST_SHARE if runtime.mixed_precision and runtime.compiled else 1.0,
    )


def available_bytes(runtime: Runtime) -> int | None:
    """Return how much memory this process can still take on its device, None where the system does not tell.

    On a CPU see `host_memory.available_bytes`; on a GPU torch's own unused memory counts.
    """
    if runtime.device.type == "cuda":
        cached = torch.cuda.memory_reserved(runtime.device) - torch.cuda.memory_allocated(runtime.device)
        return torch.cuda.mem_get_info(runtime.device)[0] + cached
    return host_memory.available_bytes()


def check(spec: RunSpec, runtime: Runtime, images: ImageSet) -> None:
    """Check that a run can be trained in the memory that is available.

    Raises:
        ValueError: if it cannot; the largest batch that can is named.
    """
    available = available_bytes(runtime)
    if available is None:
        return
    found = estimate(spec, runtime, images)
    if found.least > available:
        raise ValueError(shortage(spec, runtime, found, available))


def shortage(spec: RunSpec, runtime: Runtime, found: MemoryEstimate, available: int) -> str:
    """Return a sentence: what training needs, what there is, and what to do."""
    largest = found.largest_batch(available) * runtime.world_size
    if largest:
        advice = f"--set train.batch_size={largest} fits"
    else:
        advice = "not even one image per batch fits (a smaller network?)"
    processes = "" if runtime.world_size == 1 else f" in each of {runtime.world_size} processes"
    return (
        f"training {spec.preset} with batches of {spec.train.batch_size} needs about "
        f"{readable(found.needed)}{processes} ({readable(found.per_image)} per image), but "
        f"{readable(available)} are available on the {runtime.device.type}: {advice} "
        "(--ignore-memory tries all the same)"
    )


def _meta_network(spec: RunSpec) -> UNet:
    with torch.device("meta"):
        return build_network(spec)


def _kept_bytes(spec: RunSpec, images: int) -> int:
    """Return the bytes that autograd keeps for the backward pass of a batch, without the weights."""
    network = _meta_network(spec)
    process = trained_process(spec, network, clip=False)
    x_0 = torch.empty(images, spec.data.channels, spec.data.side, spec.data.side, device="meta")
    t = torch.empty(images, dtype=torch.int64, device="meta")
    weights = {id(storage): storage for storage in (p.untyped_storage() for p in network.parameters())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in weights:
            kept[id(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        training_loss(
            process,
            spec.diffusion.objective,
            x_0,
            t,
            torch.empty_like(x_0),
            spec.diffusion.training_decoder,
        )
    return sum(storage.nbytes() for storage in kept.values())
