"""Whether what a checkpoint holds is a state that training can go on from.

A digest tells a damaged file, but an earlier version's has none, and a whole file may still not fit. So
shapes, types and values are checked before any of them is taken over.
"""

import torch

from ddpm_eval.training.build import build_network
from ddpm_eval.training.checkpoint import Checkpoint
from ddpm_eval.training.tensor_files import damaged
from ddpm_eval.training.weights import check_weights

LOGGED = ("log/loss", "log/gradient_norm")
WEIGHTS = ("model/", "ema/")
MOMENTS = ("adam/exp_avg/", "adam/exp_avg_sq/")


def check_log(saved: Checkpoint) -> None:
    """Check that a checkpoint holds a value of each log for each update, and how its training came about.

    Raises:
        ValueError: if it does not.
    """
    for name in LOGGED:
        values = saved.tensors.get(name)
        if values is None:
            raise damaged(saved.source, f"it lacks {name}")
        if values.shape != (saved.step,) or not values.is_floating_point():
            found = f"{values.dtype} of shape {list(values.shape)}"
            raise damaged(saved.source, f"{name} is {found}, but there were {saved.step} updates")
    for name, kind in (("status", str), ("reason", str), ("seconds", (int, float))):
        if not isinstance(saved.metadata.get(name), kind):
            raise damaged(saved.source, f"its header does not tell the {name} of the training")


def check_state(saved: Checkpoint) -> None:
    """Check that weights, averages, moments and log are those of the checkpoint's network, and finite.

    Raises:
        ValueError: if they are not; the tensor is named.
    """
    with torch.device("meta"):
        network = build_network(saved.spec)
    for prefix in WEIGHTS if saved.step == 0 else (*WEIGHTS, *MOMENTS):  # Adam has no moments before it steps
        check_weights(saved.part(prefix), network, f"{saved.source}, {prefix.rstrip('/')}")
    for name, value in saved.part(MOMENTS[1]).items():
        if bool((value < 0).any()):
            raise damaged(saved.source, f"{MOMENTS[1]}{name} holds negative squares")
    for name in LOGGED:
        if not bool(saved.tensors[name].isfinite().all()):
            raise damaged(saved.source, f"{name} holds values that are not finite")
