"""The diffusion model: its mathematics, network and samplers, and Gaussian data with closed forms."""
