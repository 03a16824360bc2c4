"""Train, sample and measure denoising diffusion probabilistic models (Ho, Jain, Abbeel, 2020)."""
