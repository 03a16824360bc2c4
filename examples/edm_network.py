"""Bits/dim of an EDM network D(x; sigma), unconditional or class-conditional.

    git clone https://github.com/NVlabs/edm
    PYTHONPATH=edm python examples/edm_network.py edm-cifar10-32x32-uncond-vp.pkl

The chain is made of EDM's noise levels: x_0_hat = D(x_t / sqrt(alpha_bar_t); sigma_t).
"""

import sys

import ddpm_eval
from ddpm_eval.adapters.edm import Denoiser, edm_levels


def measure(network: Denoiser, images: ddpm_eval.ImageSet, timesteps: int = 1000) -> ddpm_eval.Bound:
    """Print the split of the bound on a chain of so many levels, and draw samples in fewer steps."""
    model = ddpm_eval.from_edm(network, sigma=edm_levels(timesteps))
    bound = ddpm_eval.evaluate_bound(model, images)
    print(bound.split().to_string(index=False))
    labels = 0 if model.conditional else None
    print(ddpm_eval.sample(model, 4, method="ddim", num_steps=18, labels=labels).images.shape)
    return bound


if __name__ == "__main__":
    import pickle

    with open(sys.argv[1], "rb") as file:  # EDM's files hold code: open only what you trust
        network = pickle.load(file)["ema"]
    measure(network, ddpm_eval.load_images("cifar10", "test", limit=1000))
