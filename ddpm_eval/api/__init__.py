"""Measure and sample any diffusion model from Python: what `import ddpm_eval` offers."""
