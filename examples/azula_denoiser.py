"""Bits/dim of a denoiser of azula, on a chain of its own continuous schedule.

    pip install azula
    python examples/azula_denoiser.py imagenet_256x256

Its ``DDPMSampler`` is the ancestral sampler here, and its ``DDIMSampler`` DDIM.
"""

import sys

import ddpm_eval
from ddpm_eval.adapters.azula import Denoiser


def measure(denoiser: Denoiser, images: ddpm_eval.ImageSet, timesteps: int = 1000) -> ddpm_eval.Bound:
    """Print the split of the bound on a chain of so many steps."""
    model = ddpm_eval.from_azula(denoiser, timesteps=timesteps)
    bound = ddpm_eval.evaluate_bound(model, images)
    print(bound.split().to_string(index=False))
    return bound


if __name__ == "__main__":
    from azula.plugins import adm

    photographs = ddpm_eval.load_images("folder@256:photographs", "all", limit=100)
    measure(adm.load_model(sys.argv[1]), photographs)
