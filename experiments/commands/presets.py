"""The command ``presets``."""

import click

from ddpm_eval.model.unet import parameter_count
from experiments.paper.presets import DEVIATIONS, NAMES, preset


@click.command()
def command() -> None:
    """One row per preset with its parameter count.

    Example: python cli.py presets
    """
    click.echo(
        f"{'preset':<23}{'data':<22}{'image':<12}{'parameters':>12}{'updates':>11}  {'batch':<7}"
        "against the paper"
    )
    for name in NAMES:
        click.echo(row(name))


def row(name: str) -> str:
    """Return what a preset is, on one line."""
    spec = preset(name)
    side = spec.data.side
    count = parameter_count(spec.unet, spec.data.channels, side, spec.out_channels)
    image = f"{spec.data.channels}x{side}x{side}"
    return (
        f"{name:<23}{spec.data.name:<22}{image:<12}{count:>12,}{spec.train.steps:>11,}  "
        f"{spec.train.batch_size:<7}{DEVIATIONS[name] or 'as published'}"
    )
