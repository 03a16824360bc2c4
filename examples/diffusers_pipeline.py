"""Bits/dim, rate-distortion and samples of a pipeline of diffusers.

    python examples/diffusers_pipeline.py google/ddpm-cifar10-32

Any pipeline of pixels will do, whatever its network, its prediction (epsilon, sample, v) and its variance.
"""

import sys

import ddpm_eval


def measure(pipeline: object, images: ddpm_eval.ImageSet) -> ddpm_eval.Bound:
    """Print the split of the bound and Table 4, and draw samples with the pipeline's network."""
    model = ddpm_eval.from_diffusers(pipeline)
    bound = ddpm_eval.evaluate_bound(model, images)
    print(bound.split().to_string(index=False))
    print(bound.table4().to_string(index=False))
    samples = ddpm_eval.sample(model, 16, method="ddim", num_steps=10)
    print(f"{len(samples.images)} samples in {samples.num_steps} steps each")
    return bound


if __name__ == "__main__":
    from diffusers import DDPMPipeline

    measure(DDPMPipeline.from_pretrained(sys.argv[1]), ddpm_eval.load_images("cifar10", "test", limit=1000))
