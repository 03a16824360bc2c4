"""Where and how the arithmetic runs: the device, the threads, the precision and the group of processes.

Nothing here changes what is computed beyond float rounding. Under torchrun every process calls `start` and
works on its shard; a single process runs the same code on the only shard.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
R = TypeVar("R")
N = TypeVar("N", bound=nn.Module)
Precision = Literal["fp32", "tf32", "bf16"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 2**29
LARGEST_KEPT_BLOCK_BYTES = 2**25  # glibc's own upper limit

WITHOUT_FLOAT64 = ("mps",)
"""The types of devices that have no float64."""

CHANNELS_LAST_WIDTH = 64
"""The number of base channels from which channels_last convolutions are faster on CPUs (measured)."""

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, the units done and their total."""


def silent(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class ProgressEvent:
    """How far one stage of a job is.

    Attributes:
        job: the name of the job.
        stage: the name of the stage.
        done: the units done.
        total: the units in all.
        stored: whether the stage's result is stored.
    """

    job: str
    stage: str
    done: int
    total: int
    stored: bool = False


@dataclass(frozen=True)
class Runtime:
    """One process, its device, and its place among the processes that share the work.

    Attributes:
        device: the device that holds the tensors.
        rank: the number of this process, 0 to ``world_size - 1``.
        world_size: the number of processes that share the work.
        mixed_precision: whether training runs in bf16 autocast, with float32 master weights.
        compiled: whether networks are compiled by torch.compile.
        precision: the precision of sampling and the bound, recorded with each result: ``fp32`` (IEEE, the
            default), ``tf32`` or ``bf16``.
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

    @property
    def arithmetic_device(self) -> torch.device:
        """The device of tables, images and noise; see the function `arithmetic_device`."""
        return arithmetic_device(self.device)

    def describe(self) -> str:
        """Return the device's name as it stands in reports."""
        if self.device.type == "mps":
            return "Apple GPU (mps)"
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
            return f"{self.world_size} x {name}" if self.world_size > 1 else name
        threads = f"{torch.get_num_threads()} threads"
        return f"CPU, {self.world_size} processes of {threads}" if self.world_size > 1 else f"CPU, {threads}"

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Return the items that this process works on: every ``world_size``-th, starting with its rank."""
        return items[self.rank :: self.world_size]

    def batch_size(self, side: int, width: int) -> int:
        """Return how many images to evaluate at once.

        They are enough to keep the device busy and few enough for its caches.

        Args:
            side: the side of the images in pixels.
            width: the number of base channels of the network.
        """
        activations = side**2 * width
        budget, most = (2**27, 1024) if self.device.type == "cuda" else (2**21, 256)
        return max(8, min(most, budget // activations))

    def barrier(self) -> None:
        """Wait until every process has called this."""
        if self.world_size > 1:
            dist.barrier()

    def mean(self, value: Tensor) -> Tensor:
        """Average a tensor over the processes, in place, and return it; all must call this."""
        if self.world_size > 1:
            dist.all_reduce(value)
            value /= self.world_size
        return value

    def any_process(self, value: bool) -> bool:
        """Return whether ``value`` is true on any process; all must call this."""
        if self.world_size == 1:
            return value
        flag = torch.tensor([float(value)], device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def agrees(self, value: str) -> bool:
        """Return whether ``value`` is the same on all processes; all must call this."""
        return len(set(self.all_gather(range(self.world_size), lambda rank: value))) == 1

    def all_gather(self, items: Sequence[T], compute: Callable[[T], R]) -> Iterator[R]:
        """Yield ``compute(item)`` of all items, in their order, on every process.

        Each is computed by one process. All processes must iterate to the end.
        """
        if self.world_size == 1:
            yield from map(compute, items)
            return
        for first in range(0, len(items), self.world_size):
            group = items[first : first + self.world_size]
            own = compute(group[self.rank]) if self.rank < len(group) else None
            gathered: list[R | None] = [None] * self.world_size
            dist.all_gather_object(gathered, own)
            yield from gathered[: len(group)]  # type: ignore[misc] # each of these was computed

    def place(self, network: N, width: int) -> N:
        """Move a network to the device, in the memory layout that is fastest there, and return it.

        It takes and returns tensors of the arithmetic's device.

        Args:
            network: any network of two-dimensional convolutions.
            width: its number of base channels.
        """
        channels_last = self.device.type == "cuda" or width >= CHANNELS_LAST_WIDTH
        layout = torch.channels_last if channels_last else torch.contiguous_format
        placed = network.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        if self.arithmetic_device != self.device:
            _exchange_tensors(placed, self.device, self.arithmetic_device)
        return placed

    def compile(self, function: nn.Module) -> nn.Module:
        """Return the module compiled where that is asked for; without a working compiler it runs as it is."""
        if not self.compiled:
            return function
        import torch._dynamo  # takes seconds, and nothing else needs it

        torch._dynamo.config.suppress_errors = True
        return torch.compile(function)  # type: ignore[return-value]

    def training_precision(self) -> AbstractContextManager[object]:
        """Return the autocast context of training."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.mixed_precision else nullcontext()

    def evaluation_precision(self) -> AbstractContextManager[object]:
        """Return the autocast context of sampling and the bound."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()


def arithmetic_device(device: torch.device) -> torch.device:
    """Return the device of the arithmetic around a network: its own, or the CPU if that has no float64."""
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def _exchange_tensors(network: nn.Module, inside: torch.device, outside: torch.device) -> None:
    """Let a network on the device ``inside`` take and return tensors of the device ``outside``."""

    def bring(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.to(inside) for tensor in inputs)

    def take_back(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.to(outside)

    network.register_forward_pre_hook(bring)
    network.register_forward_hook(take_back)


ALONE = Runtime(torch.device("cpu"))
"""The runtime of a single process on the CPU."""


def start(
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "fp32",
    mixed_precision: bool | None = None,
) -> Runtime:
    """Set up this process, which joins the process group if torchrun started it.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        threads: the number of CPU threads within an operation; None leaves torch's choice.
        precision: the precision of sampling and the bound, see `Runtime`.
        mixed_precision: whether training runs in bf16 autocast; None means on GPUs alone.

    Raises:
        ValueError: if this machine has no such device, or several processes are to share it.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
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
    mixed = cuda if mixed_precision is None else mixed_precision
    return Runtime(chosen, rank, world_size, mixed_precision=mixed, compiled=cuda, precision=precision)


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next ones; with another C library, do nothing.

    By default large blocks go back to the system when they are freed and are faulted in anew when the next
    tensor is made, which costs the digits network a tenth of its time. At most `KEPT_BYTES` stay with the
    process beyond what is in use.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK_BYTES)


def is_main_process() -> bool:
    """Tell whether this process is the first of those that torchrun started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def global_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators for a block, such as one with dropout, and restore them after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _device(name: str, local_rank: int) -> torch.device:
    if name == "cpu":
        return torch.device("cpu")
    available = torch.cuda.is_available()
    if name == "mps":
        return _mps_device()
    if name == "auto":
        return _cuda_device("cuda", local_rank) if available else torch.device("cpu")
    if name != "cuda" and not name.startswith("cuda:"):
        raise ValueError(_unknown_device(name))
    if not available:
        raise ValueError(
            f"device {name!r} asked for, but torch {torch.__version__} finds no CUDA device "
            "(use --device cpu)"
        )
    return _cuda_device(name, local_rank)


def _mps_device() -> torch.device:
    if not torch.backends.mps.is_available():
        raise ValueError(
            f"device 'mps' asked for, but torch {torch.__version__} finds no Apple GPU (use --device cpu)"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("device 'mps' is of one process, but torchrun started several (use --device cpu)")
    return torch.device("mps")


def _cuda_device(name: str, local_rank: int) -> torch.device:
    index = name.partition(":")[2] or str(local_rank)
    if not index.isdecimal():
        raise ValueError(_unknown_device(name))
    count = torch.cuda.device_count()
    if int(index) >= count:
        raise ValueError(f"device {name!r} asked for, but there are {count} CUDA devices")
    return torch.device("cuda", int(index))


def _unknown_device(name: str) -> str:
    return f"device {name!r} is unknown (auto, cpu, cuda, cuda:N, mps)"
