"""How many CPU threads train a network: small layers are computed by one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ddpm_eval.spec import RunSpec

SMALL_LAYER = 2**18
"""Elements of a layer up to which threads wait for each other longer than they compute.

On two idle cores an update of the photos' network (65,536 elements) takes 41 ms with one thread and 62 ms
with two, one of the digits' (131,072) 51 and 68 ms.
"""


@contextmanager
def fitting_threads(spec: RunSpec, world_size: int) -> Iterator[None]:
    """Let one thread compute in the block if the run's widest layer is small.

    Args:
        spec: the run.
        world_size: the processes that share a batch.
    """
    before = torch.get_num_threads()
    elements = spec.train.batch_size // world_size * spec.unet.base_channels * spec.data.side**2
    if elements <= SMALL_LAYER:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
