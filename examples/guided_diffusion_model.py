"""Bits/dim of a model of improved-diffusion or guided-diffusion, by its own package, respaced or not.

    pip install -e guided-diffusion    # or improved-diffusion, a clone of the repository
    python examples/guided_diffusion_model.py 64x64_diffusion.pt

Under protocol ``paper`` the terms are those of their own ``calc_bpd_loop``.
"""

import sys

from torch import nn

import ddpm_eval
from ddpm_eval.adapters.guided_diffusion import Diffusion


def measure(network: nn.Module, diffusion: Diffusion, images: ddpm_eval.ImageSet) -> ddpm_eval.Bound:
    """Print the split of the bound; a class-conditional network is given the images' labels."""
    model = ddpm_eval.from_guided_diffusion(network, diffusion)
    bound = ddpm_eval.evaluate_bound(model, images)
    print(bound.split().to_string(index=False))
    return bound


if __name__ == "__main__":
    import torch
    from guided_diffusion.script_util import create_model_and_diffusion, model_and_diffusion_defaults

    # the README of the weights says their settings; these are only some
    settings = model_and_diffusion_defaults() | {
        "image_size": 64,
        "learn_sigma": True,
        "noise_schedule": "cosine",
        "timestep_respacing": "250",
    }
    network, diffusion = create_model_and_diffusion(**settings)
    network.load_state_dict(torch.load(sys.argv[1], weights_only=True))
    measure(network, diffusion, ddpm_eval.load_images("folder@64:photographs", "all", limit=100))
