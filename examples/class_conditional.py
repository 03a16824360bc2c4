"""Bits/dim of a class-conditional network given each image's class, and samples of one class.

    python examples/class_conditional.py

The network is called as ``network(x_t, t, y)`` with the images' labels.
"""

import numpy as np
import torch
from torch import Tensor, nn

import ddpm_eval


class Network(nn.Module):
    """An untrained network that knows time and class: yours comes here."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.shift = nn.Embedding(classes, channels)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Return the predicted noise."""
        return self.convolution(x_t) + 0.01 * self.shift(y)[..., None, None]


def measure(network: nn.Module, images: ddpm_eval.ImageSet) -> tuple[ddpm_eval.Bound, np.ndarray]:
    """Print bits/dim, and return the bound and four samples of class 3."""
    model = ddpm_eval.Model(network, predicts="eps", schedule="cosine", timesteps=100, conditional=True)
    bound = ddpm_eval.evaluate_bound(model, images)
    print(bound)
    return bound, ddpm_eval.sample(model, 4, labels=3, num_steps=10).images


if __name__ == "__main__":
    torch.manual_seed(0)
    measure(Network(1, 10), ddpm_eval.load_images("digits", "test"))
