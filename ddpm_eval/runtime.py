"""Where and how the arithmetic runs: device, threads, precision, compilation, process group.

Nothing here changes what is computed beyond float rounding. Under torchrun every process calls `start` and
works on its share; alone, the same code runs with one share.
"""

import ctypes
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ddpm_eval.model.unet import UNet
from ddpm_eval.spec import RunSpec

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")
Precision = Literal["fp32", "tf32", "bf16"]
Progress = Callable[[str, int, int], None]
"""Called with a stage's name, the units done and their total."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 2**29
LARGEST_KEPT_BLOCK_BYTES = 2**25  # glibc's own upper limit

CHANNELS_LAST_WIDTH = (
    64  # base channels from which channels_last convolutions are the faster ones on CPUs (measured)
)


def silent(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class Runtime:
    """One process's share of the machine.

    Attributes:
        device: where tensors live.
        rank: of this process among ``world_size``.
        world_size: number of processes that share the work.
        mixed_precision: bf16 autocast in training, with float32 master weights.
        compiled: torch.compile networks.
        precision: of sampling and the bound, recorded with each result: ``fp32`` (IEEE, the default),
            ``tf32`` or ``bf16``.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    mixed_precision: bool = False
    compiled: bool = False
    precision: Precision = "fp32"

    @property
    def main(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def describe(self) -> str:
        """Name the device as reports do."""
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
            return f"{self.world_size} x {name}" if self.world_size > 1 else name
        threads = f"{torch.get_num_threads()} threads"
        return f"CPU, {self.world_size} processes of {threads}" if self.world_size > 1 else f"CPU, {threads}"

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's share of ``items``."""
        return items[self.rank :: self.world_size]

    def batch_size(self, spec: RunSpec) -> int:
        """Return how many images to evaluate at once: enough to keep the device busy, few enough to fit its
        caches.
        """
        activations = spec.data.side**2 * spec.network.base_channels
        budget, most = (2**27, 1024) if self.device.type == "cuda" else (2**21, 256)
        return max(8, min(most, budget // activations))

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            dist.barrier()

    def mean(self, value: Tensor) -> Tensor:
        """Average a tensor over the processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(value)
            value /= self.world_size
        return value

    def any_process(self, value: bool) -> bool:
        """Return whether ``value`` holds on any process; all must call it."""
        if self.world_size == 1:
            return value
        flag = torch.tensor([float(value)], device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def all_gather(self, items: Sequence[T], compute: Callable[[T], R]) -> Iterator[R]:
        """Yield ``compute(item)`` of all items in order on every process, each computed by one; all must
        iterate to the end.
        """
        for first in range(0, len(items), self.world_size):
            group = items[first : first + self.world_size]
            mine = compute(group[self.rank]) if self.rank < len(group) else None
            if self.world_size == 1:
                yield mine  # type: ignore[misc] # a group of one
                continue
            every: list[R | None] = [None] * self.world_size
            dist.all_gather_object(every, mine)
            yield from every[: len(group)]  # type: ignore[misc] # each of these was computed

    def place(self, network: UNet) -> UNet:
        """Move a network to the device in its fastest memory layout."""
        channels_last = self.device.type == "cuda" or network.network.base_channels >= CHANNELS_LAST_WIDTH
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return network.to(self.device, memory_format=layout)  # type: ignore[call-overload]

    def compile(self, function: nn.Module) -> nn.Module:
        """Compile a module where that is on; without a working compiler say so once and stay eager."""
        if not self.compiled:
            return function
        import torch._dynamo

        torch._dynamo.config.suppress_errors = True
        return torch.compile(function)  # type: ignore[return-value]

    def training_precision(self) -> AbstractContextManager[object]:
        """Return the autocast context of training."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.mixed_precision else nullcontext()

    def evaluation_precision(self) -> AbstractContextManager[object]:
        """Return the autocast context of sampling and the bound."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()


ALONE = Runtime(torch.device("cpu"))
"""One process on the CPU."""


def start(device: str = "auto", threads: int | None = None, precision: Precision = "fp32") -> Runtime:
    """Set up this process, joining the process group if torchrun started it.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: intra-operation CPU threads; None leaves torch's choice.
        precision: see `Runtime`.

    Raises:
        ValueError: if the device does not exist here.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if threads is not None:
        torch.set_num_threads(threads)
    cuda = chosen.type == "cuda"
    keep_freed_memory()
    if cuda:
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return Runtime(chosen, rank, world_size, mixed_precision=cuda, compiled=cuda, precision=precision)


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next ones; elsewhere nothing happens.

    By default large blocks go back to the system when they are freed and are faulted in anew when the next
    tensor is made, which costs the digits network a tenth of its time. At most `KEPT_BYTES` stay with the
    process beyond what is in use.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK_BYTES)


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def global_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block (dropout has no generator argument) from a seed and restore the global generators after
    it.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _device(name: str, local_rank: int) -> torch.device:
    available, unknown = torch.cuda.is_available(), f"device {name!r} is unknown (auto, cpu, cuda, cuda:N)"
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if name == "cuda" or name.startswith("cuda:"):
        if not available:
            raise ValueError(
                f"device {name!r} asked for, but torch {torch.__version__} finds no CUDA device (use --device cpu)"
            )
        index = name.partition(":")[2] or str(local_rank)
        if not index.isdecimal():
            raise ValueError(unknown)
        device = torch.device("cuda", int(index))
        if int(index) >= torch.cuda.device_count():
            raise ValueError(
                f"device {name!r} asked for, but there are {torch.cuda.device_count()} CUDA devices"
            )
        return device
    raise ValueError(unknown)
