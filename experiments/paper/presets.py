"""The presets: one aligned table of what the paper published, and our own small ones.

A published preset differs from the paper in nothing but what `DEVIATIONS` says. Parameter counts are the
paper's; a test holds the networks to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ddpm_eval.spec import (
    DataSpec,
    DiffusionSpec,
    EvaluationSpec,
    NamedNetwork,
    NetworkSpec,
    Objective,
    Predicted,
    RunSpec,
    TimeSampling,
    TrainSpec,
    Variance,
)
from ddpm_eval.spec_text import differences, override


@dataclass(frozen=True)
class Cell:
    """One row of Table 2: what the network predicts and what it is trained on."""

    prediction: Predicted
    objective: Objective
    learned: bool


MAIN_CELL = Cell("eps", "mse", learned=False)
"""The paper's model: eps prediction, L_simple."""

OBJECTIVES: dict[Objective, str] = {"vlb": "L", "mse": "MSE"}
"""What Table 2 calls an objective."""
TABLE_2 = (
    Cell("mu", "vlb", learned=True),
    Cell("mu", "vlb", learned=False),
    Cell("mu", "mse", learned=False),
    Cell("eps", "vlb", learned=True),
    Cell("eps", "vlb", learned=False),
    MAIN_CELL,
)


class _Shape(NamedTuple):
    """The images of a preset and its network."""

    data: str
    channels: Literal[1, 3]
    side: int
    flips: bool
    base_channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention_sides: tuple[int, ...]
    norm_groups: int
    dropout: float


class _Effort(NamedTuple):
    """How long a preset is trained, and how much of it is measured."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    ema_decay: float
    checkpoint_steps: int
    variance: Variance
    n_samples: int
    n_train_images: int
    n_curve: int
    n_test_images: int | None = None
    n_full_images: int | None = None
    times_of_l: TimeSampling = "uniform"


# fmt: off
#  name                             data                   channels  side  flips  base  multipliers         blocks  attention  groups  dropout
_SHAPES = {
    "digits":                 _Shape("digits",              1,         8,  False,   16, (1, 2),             1,      (),         4,     0.0),
    "digits-long":            _Shape("digits",              1,         8,  False,   16, (1, 2),             1,      (),         4,     0.0),
    "photos":                 _Shape("photos",              3,         8,  False,   32, (1, 2),             1,      (),         8,     0.0),
    "mnist":                  _Shape("mnist",               1,        28,  False,   32, (1, 2, 2),          1,      (7,),       8,     0.0),
    "cifar10":                _Shape("cifar10",             3,        32,  True,   128, (1, 2, 2, 2),       2,      (16,),     32,     0.1),
    "cifar10-small":          _Shape("cifar10",             3,        32,  True,    64, (1, 2, 2, 2),       2,      (16,),     32,     0.1),
    "cifar10-tiny":           _Shape("cifar10",             3,        32,  True,    32, (1, 2, 2, 2),       1,      (16,),      8,     0.0),
    "celebahq256":            _Shape("folder:celebahq256",  3,       256,  True,   128, (1, 1, 2, 2, 4, 4), 2,      (16,),     32,     0.0),
    "lsun-bedroom256":        _Shape("lsun:bedroom",        3,       256,  False,  128, (1, 1, 2, 2, 4, 4), 2,      (16,),     32,     0.0),
    "lsun-church256":         _Shape("lsun:church_outdoor", 3,       256,  True,   128, (1, 1, 2, 2, 4, 4), 2,      (16,),     32,     0.0),
    "lsun-cat256":            _Shape("lsun:cat",            3,       256,  True,   128, (1, 1, 2, 2, 4, 4), 2,      (16,),     32,     0.0),
    "lsun-bedroom256-large":  _Shape("lsun:bedroom",        3,       256,  False,  192, (1, 1, 2, 2, 4, 4), 2,      (16,),     32,     0.0),
}

#  name                              steps  batch    rate  warm-up     EMA  checkpoint  variance        samples  train   curves  test  full  times of L
_TRAINING = {
    "digits":                 _Effort(    1_200, 128, 1e-3,   100, 0.995,    200, "fixed-large",    256,    360,   256,  None, 100),
    "digits-long":            _Effort(   20_000, 128, 1e-3,   100, 0.995,  1_000, "fixed-large",    256,    360,   256,  None, 100),
    "photos":                 _Effort(    5_500,  32, 2e-3,   200, 0.998,    500, "fixed-large",    128,     48,     0,  None, 128),
    "mnist":                  _Effort(   20_000, 128, 5e-4, 1_000, 0.999,  1_000, "fixed-large",  2_048,  1_000, 2_048),
    "cifar10":                _Effort(  800_000, 128, 2e-4, 5_000, 0.9999, 5_000, "fixed-large", 50_000, 10_000, 2_560),
    "cifar10-small":          _Effort(  200_000, 256, 4e-4, 1_000, 0.9995, 5_000, "fixed-large", 10_000, 10_000, 2_560),
    "cifar10-tiny":           _Effort(   20_000,  64, 1e-3,   500, 0.9995,   500, "fixed-large",    256,    250,   256,  None, 500, "importance"),
    "celebahq256":            _Effort(  500_000,  64, 2e-5, 5_000, 0.9999, 5_000, "fixed-small", 50_000,  1_000,     0),
    "lsun-bedroom256":        _Effort(2_400_000,  64, 2e-5, 5_000, 0.9999, 5_000, "fixed-small", 50_000,  1_000,     0),
    "lsun-church256":         _Effort(1_200_000,  64, 2e-5, 5_000, 0.9999, 5_000, "fixed-small", 50_000,  1_000,     0),
    "lsun-cat256":            _Effort(1_800_000,  64, 2e-5, 5_000, 0.9999, 5_000, "fixed-small", 50_000,  1_000,     0),
    "lsun-bedroom256-large":  _Effort(1_150_000,  64, 2e-5, 5_000, 0.9999, 5_000, "fixed-small", 50_000,  1_000,     0),
}
# fmt: on

DEVIATIONS = {
    "digits": "not in the paper: scikit-learn's 8x8 digits, a network of 0.16M parameters",
    "digits-long": "not in the paper: scikit-learn's 8x8 digits, a network of 0.16M parameters",
    "photos": "not in the paper: 8x8 patches of scikit-learn's two photographs, a network of 0.65M parameters",
    "mnist": "not in the paper",
    "cifar10": "",
    "cifar10-small": "not in the paper: half the width, larger batches and learning rate, shorter average",
    "cifar10-tiny": "not in the paper: a quarter of the width, one block per level, no dropout, smaller batches, larger "
    "learning rate, shorter average",
    "celebahq256": "flips as the paper's appendix says of all sets but LSUN Bedroom",
    "lsun-bedroom256": "",
    "lsun-church256": "",
    "lsun-cat256": "",
    "lsun-bedroom256-large": "width 192 gives 255.6M parameters; the paper says 'about 256M' and not how",
}

NAMES = tuple(_SHAPES)


def preset(
    name: str, cell: Cell = MAIN_CELL, settings: Mapping[str, str] | None = None, seed: int = 0
) -> RunSpec:
    """Return the run of a preset.

    Args:
        name: of the preset.
        cell: row of Table 2; the default is the paper's model.
        settings: fields to replace, see `ddpm_eval.spec_text.override`.
        seed: of everything.

    Raises:
        ValueError: if there is no such preset, field or value.
    """
    if name not in _SHAPES:
        raise ValueError(f"there is no preset {name!r} (there are {', '.join(NAMES)})")
    shape = _SHAPES[name]
    effort = _TRAINING[name]
    spec = RunSpec(
        preset=name,
        seed=seed,
        data=DataSpec(name=shape.data, channels=shape.channels, side=shape.side, flips=shape.flips),
        network=_network(shape),
        diffusion=DiffusionSpec(
            prediction=cell.prediction,
            objective=cell.objective,
            variance="learned" if cell.learned else effort.variance,
            training_decoder="tanh" if is_published(name) else "exact",
        ),
        train=_training(effort, cell),
        evaluation=EvaluationSpec(
            n_samples=effort.n_samples,
            n_train_images=effort.n_train_images,
            n_test_images=effort.n_test_images,
            n_full_images=effort.n_full_images,
            n_curve=effort.n_curve,
        ),
    )
    return override(spec, settings or {})


def is_published(name: str) -> bool:
    """Tell whether a preset is one of the paper's: these train on L with the authors' decoder."""
    return not DEVIATIONS[name].startswith("not in the paper")


def run_name(spec: RunSpec) -> str:
    """Name a run's folder: its cell, a digest where it is not exactly the preset's, and a seed that is not 0."""
    unseeded = spec.model_copy(update={"seed": 0}).training_digest()
    plain = preset(spec.preset, cell_of(spec)).training_digest() == unseeded
    name = spec.cell if plain else f"{spec.cell}-{unseeded}"
    return name if spec.seed == 0 else f"{name}-seed-{spec.seed}"


def against_the_paper(spec: RunSpec) -> str:
    """Say how a run departs from the paper: its preset's deviations, and what it changes in the preset."""
    if isinstance(spec.network, NamedNetwork):
        return "a network that is named by a function"
    if spec.preset not in DEVIATIONS:
        return "another project's model"
    plain = preset(spec.preset, cell_of(spec), seed=spec.seed)
    changed = differences(spec, plain)
    if spec.train.steps != plain.train.steps:
        changed.append(f"train.steps: {spec.train.steps}, not {plain.train.steps}")
    return "; ".join(filter(None, [DEVIATIONS[spec.preset], *changed])) or "as published"


def cell_of(spec: RunSpec) -> Cell:
    """Return the cell of Table 2 that a run would belong to."""
    return Cell(spec.diffusion.prediction, spec.diffusion.objective, spec.diffusion.learns_variance)


def cell_name(cell: Cell) -> str:
    """Name a cell as in Table 2: ``mu, L, learned``."""
    return f"{cell.prediction}, {OBJECTIVES[cell.objective]}, {'learned' if cell.learned else 'fixed'}"


def _network(shape: _Shape) -> NetworkSpec:
    return NetworkSpec(
        base_channels=shape.base_channels,
        multipliers=shape.multipliers,
        blocks=shape.blocks,
        attention_sides=shape.attention_sides,
        norm_groups=shape.norm_groups,
        dropout=shape.dropout,
    )


def _training(effort: _Effort, cell: Cell) -> TrainSpec:
    return TrainSpec(
        steps=effort.steps,
        batch_size=effort.batch_size,
        learning_rate=effort.learning_rate,
        warmup_steps=effort.warmup_steps,
        ema_decay=effort.ema_decay,
        checkpoint_steps=effort.checkpoint_steps,
        time_sampling=effort.times_of_l if cell.objective == "vlb" else "uniform",
    )
