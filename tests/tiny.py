"""The smallest run that has every part of a real one: the embedded digits and a tiny network. Only tests use
it.
"""

from functools import cache

import torch

from ddpm_eval.data.datasets import load
from ddpm_eval.data.image_set import ImageSet
from ddpm_eval.runtime import Runtime
from ddpm_eval.spec import DataSpec, DiffusionSpec, EvaluationSpec, NetworkSpec, RunSpec, TrainSpec
from ddpm_eval.spec_text import override
from ddpm_eval.training.batches import Batch, Batches

HERE = Runtime(torch.device("cpu"))

TINY = RunSpec(
    preset="tiny",
    seed=3,
    data=DataSpec(name="digits", channels=1, side=8),
    network=NetworkSpec(base_channels=8, multipliers=(1, 2), blocks=1, attention_sides=(), norm_groups=4),
    diffusion=DiffusionSpec(timesteps=20, beta_start=1e-3, beta_end=0.5),  # alpha_bar at T is 0.005
    train=TrainSpec(
        steps=6, batch_size=8, learning_rate=1e-3, warmup_steps=3, ema_decay=0.9, checkpoint_steps=2
    ),
    evaluation=EvaluationSpec(n_samples=10, n_train_images=6, n_progressive=2, evaluations_per_image=4),
)

CELLS = [
    ("eps", "mse", "fixed-large"),
    ("mu", "mse", "fixed-large"),
    ("x0", "mse", "fixed-small"),
    ("eps", "vlb", "fixed-small"),
    ("eps", "vlb", "learned"),
    ("mu", "vlb", "fixed-large"),
    ("mu", "vlb", "learned"),
    ("x0", "vlb", "learned-range"),
]
"""Prediction, objective and variance: each value of each appears."""


def tiny(**settings: object) -> RunSpec:
    """Return the tiny run with fields replaced, dots written as two underscores: ``tiny(train__steps=3)``."""
    return override(TINY, {key.replace("__", "."): str(value) for key, value in settings.items()})


def cell(prediction: str, objective: str, variance: str, **settings: object) -> RunSpec:
    """Return the tiny run of one cell."""
    diffusion = {"prediction": prediction, "objective": objective, "variance": variance}
    document = TINY.model_copy(
        update={"diffusion": DiffusionSpec(**{**TINY.diffusion.model_dump(), **diffusion})}
    )
    return override(document, {key.replace("__", "."): str(value) for key, value in settings.items()})


@cache
def digits(split: str = "train") -> ImageSet:
    """Return the digits."""
    return load(TINY.data, split)


def batches(
    spec: RunSpec, first: int, last: int, images: ImageSet | None = None, runtime: Runtime = HERE
) -> list[Batch]:
    """Return the training batches ``first`` to ``last - 1``, of the digits unless images are given."""
    return list(Batches(spec, images or digits(), runtime).stream(first, last))
