"""Bits/dim of a denoiser of k-diffusion.

    pip install k-diffusion
    python examples/k_diffusion_denoiser.py config.json model.pth

The levels are those of the denoiser's own chain, or EDM's where it has none. ``sample_euler_ancestral`` is
the ancestral sampler here, and ``sample_euler`` is DDIM.
"""

import sys

from torch import nn

import ddpm_eval


def measure(denoiser: nn.Module, shape: tuple[int, int, int], images: ddpm_eval.ImageSet) -> ddpm_eval.Bound:
    """Print the split of the bound, and draw samples."""
    model = ddpm_eval.from_k_diffusion(denoiser, shape=shape)
    bound = ddpm_eval.evaluate_bound(model, images)
    print(bound.split().to_string(index=False))
    print(ddpm_eval.sample(model, 4, method="ddim", num_steps=10).images.shape)
    return bound


if __name__ == "__main__":
    import k_diffusion
    import torch

    config = k_diffusion.config.load_config(sys.argv[1])
    denoiser = k_diffusion.config.make_denoiser_wrapper(config)(k_diffusion.config.make_model(config))
    denoiser.inner_model.load_state_dict(torch.load(sys.argv[2], weights_only=True)["model_ema"])
    measure(denoiser, (3, 32, 32), ddpm_eval.load_images("cifar10", "test", limit=1000))
