"""Bits/dim of a model of denoising-diffusion-pytorch, as it was trained.

    pip install denoising-diffusion-pytorch
    python examples/lucidrains_diffusion.py results/model-10.pt

A ``GaussianDiffusion`` of any objective will do, a ``LearnedGaussianDiffusion``, and that with classes.
"""

import sys

import ddpm_eval
from ddpm_eval.adapters.lucidrains import Diffusion


def measure(diffusion: Diffusion, images: ddpm_eval.ImageSet) -> ddpm_eval.Bound:
    """Print the split of the bound."""
    bound = ddpm_eval.evaluate_bound(ddpm_eval.from_lucidrains(diffusion), images)
    print(bound.split().to_string(index=False))
    return bound


if __name__ == "__main__":
    import torch
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    diffusion = GaussianDiffusion(Unet(dim=64, dim_mults=(1, 2, 4, 8)), image_size=32)
    state = torch.load(sys.argv[1], weights_only=True)["ema"]  # as its Trainer saves it
    averaged = {name.removeprefix("ema_model."): value for name, value in state.items()}
    diffusion.load_state_dict({name: averaged[name] for name in diffusion.state_dict()})
    measure(diffusion, ddpm_eval.load_images("cifar10", "test", limit=1000))
