"""How much memory training takes, told before it starts.

Training holds its state (weights, gradients, Adam's two moments and the moving average: five float32 numbers
per parameter, six with several processes) and the activations that the backward pass needs, which grow with
the batch. The activations are counted, not modelled: the loss of a batch is formed on torch's meta device,
where tensors have shapes but no memory, and the tensors that autograd keeps are added up. On a CPU the sum is
within a tenth of the measured peak for the CIFAR-10 networks and up to a third below it for networks as small
as the digits'. Where a GPU trains in compiled bfloat16, less is kept than that, how much less being the
compiler's choice: there training is refused only if it cannot fit, whatever the compiler does. bytes are of
one process; 1 GB is 10^9 bytes.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.model.diffusion import ReverseProcess, make_schedule, training_loss
from ddpm_eval.model.unet import UNet
from ddpm_eval.runtime import Runtime
from ddpm_eval.spec import RunSpec

FLOAT_BYTES = 4
STATE_COPIES = 5  # weights, gradients, two moments, moving average
SAVING_COPIES = (
    8  # a checkpoint holds four of them, which are copied to be written; there are no gradients then
)
LIBRARIES_BYTES = 10**8  # what torch loads and keeps once it trains (measured on a CPU)
ERROR = 0.1  # by which the measured peak may be above the estimate
LEAST_SHARE = (
    1 / 6
)  # one of three tensors per layer in two of four bytes: the least that a compiled bfloat16 pass can keep
MEMINFO, CGROUPS, MEMBERSHIP = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Estimate:
    """What one process needs to train, in bytes beyond what it holds before.

    Attributes:
        fixed: whatever the batch: state, resident images, libraries.
        saving: while a checkpoint is written, when there are no activations.
        per_image: activations per image of the batch.
        images: of the batch, for this process.
        least_share: of the activations that are kept in any case.
    """

    fixed: int
    saving: int
    per_image: int
    images: int
    least_share: float = 1.0

    @property
    def needed(self) -> int:
        """The peak, if all activations are kept in float32."""
        return max(self.fixed + self.images * self.per_image, self.saving)

    @property
    def least(self) -> int:
        """The peak that cannot be undercut."""
        return max(self.fixed + round(self.images * self.per_image * self.least_share), self.saving)

    def largest_batch(self, available: int) -> int:
        """Return how many images per process surely fit into ``available`` bytes, 0 if none do."""
        safe = int(available * (1 - ERROR))
        return 0 if self.saving > safe else max(0, (safe - self.fixed) // self.per_image)


def estimate(spec: RunSpec, runtime: Runtime, images: ImageSet | None = None) -> Estimate:
    """Estimate the memory that training takes, without taking any.

    Args:
        spec: the run.
        runtime: where; under torchrun the estimate is of one process.
        images: the training split, which lies on a GPU if it is held in memory; None leaves it out.
    """
    share, on_gpu = -(-spec.train.batch_size // runtime.world_size), runtime.device.type == "cuda"
    (parameters, one), (_, two) = _kept_bytes(spec, 1), _kept_bytes(spec, 2)
    resident = images.array.nbytes if on_gpu and images is not None and images.in_memory else 0
    copies = STATE_COPIES + (runtime.world_size > 1)  # DistributedDataParallel's buckets
    return Estimate(
        fixed=copies * FLOAT_BYTES * parameters + (2 * one - two) + resident + LIBRARIES_BYTES,
        saving=0 if on_gpu else SAVING_COPIES * FLOAT_BYTES * parameters + LIBRARIES_BYTES,
        per_image=two - one,
        images=share,
        least_share=LEAST_SHARE if runtime.mixed_precision and runtime.compiled else 1.0,
    )


def _kept_bytes(spec: RunSpec, images: int) -> tuple[int, int]:
    """Return the number of parameters, and the bytes that autograd keeps for the backward pass of a batch."""
    with torch.device("meta"):
        network = UNet(spec.network, spec.data.channels, spec.data.side, spec.out_channels)
        x_0 = torch.empty(images, spec.data.channels, spec.data.side, spec.data.side)
        t = torch.empty(images, dtype=torch.int64)
    schedule = make_schedule(spec.diffusion).to("meta")
    process = ReverseProcess(
        network, schedule, spec.diffusion.prediction, schedule.variance(spec.diffusion.variance), clip=False
    )
    weights = {id(storage): storage for storage in (p.untyped_storage() for p in network.parameters())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in weights:
            kept[id(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        training_loss(process, spec.diffusion.objective, x_0, t, torch.empty_like(x_0))
    return sum(p.numel() for p in network.parameters()), sum(storage.nbytes() for storage in kept.values())


def available_bytes(runtime: Runtime) -> int | None:
    """Return how much memory this process can still take on its device, None where the system does not tell.

    On a CPU that is what the system counts as available, within the limits of the control groups (containers,
    batch systems) that hold this process, shared evenly by the processes that torchrun started on this
    machine.
    """
    if runtime.device.type == "cuda":
        cached = torch.cuda.memory_reserved(runtime.device) - torch.cuda.memory_allocated(runtime.device)
        return torch.cuda.mem_get_info(runtime.device)[0] + cached
    limits = [limit for limit in (_system_available(), *_group_limits()) if limit is not None]
    return min(limits) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if limits else None


def _system_available() -> int | None:
    found = _numbers(MEMINFO).get("MemAvailable:")
    return None if found is None else 1024 * found


def _group_limits() -> list[int]:
    """Return what is left in every control group above this process that has a limit."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return []
    left = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        old = "memory" in controllers.split(",")
        if not old and controllers:
            continue
        root = CGROUPS / "memory" if old else CGROUPS
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
        )
        group = root / path.strip("/")
        for folder in (group, *group.parents[: len(group.parts) - len(root.parts)]):
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None:
                cache = _numbers(folder / "memory.stat").get(
                    "inactive_file", 0
                )  # is given up when memory is needed
                left.append(max(0, limit - used + cache))
    return left


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _numbers(path: Path) -> dict[str, int]:
    """Read a file of lines that begin with a name and a number."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def check(spec: RunSpec, runtime: Runtime, images: ImageSet) -> None:
    """Raise ValueError if a run cannot be trained in the memory that is available, with the largest batch
    that can.
    """
    available = available_bytes(runtime)
    if available is None:
        return
    found = estimate(spec, runtime, images)
    if found.least > available:
        raise ValueError(shortage(spec, runtime, found, available))


def shortage(spec: RunSpec, runtime: Runtime, found: Estimate, available: int) -> str:
    """Say what training needs, what there is, and what to do."""
    largest = found.largest_batch(available) * runtime.world_size
    advice = (
        f"--set train.batch_size={largest} fits"
        if largest
        else "not even one image per batch fits (a smaller network?)"
    )
    who = "" if runtime.world_size == 1 else f" in each of {runtime.world_size} processes"
    return (
        f"training {spec.preset} with batches of {spec.train.batch_size} needs about {_readable(found.needed)}{who} "
        f"({_readable(found.per_image)} per image), but {_readable(available)} are available on the {runtime.device.type}: "
        f"{advice} (--ignore-memory tries all the same)"
    )


def _readable(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
