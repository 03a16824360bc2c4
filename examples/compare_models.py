"""The difference of two models, paired by image: far more precise than that of their totals.

    python examples/compare_models.py

Both models are measured on the same images with the same noise.
"""

import torch
from torch import Tensor, nn

import ddpm_eval


class Network(nn.Module):
    """An untrained network: yours comes here."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the predicted noise."""
        return self.weight * x_t


def compare(
    first: nn.Module, second: nn.Module, images: ddpm_eval.ImageSet
) -> tuple[ddpm_eval.Bound, ddpm_eval.Bound]:
    """Print both bounds and their paired difference."""
    bounds = [
        ddpm_eval.evaluate_bound(ddpm_eval.Model(network, schedule="cosine", timesteps=100), images)
        for network in (first, second)
    ]
    print(*bounds, sep="\n")
    print(ddpm_eval.compare_bounds(*bounds, names=("first", "second")).to_string(index=False))
    return bounds[0], bounds[1]


if __name__ == "__main__":
    compare(Network(0.95), Network(0.96), ddpm_eval.load_images("digits", "test"))
