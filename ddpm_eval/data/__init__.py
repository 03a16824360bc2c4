"""Data sets as 8-bit images with stable ids, and the only mapping between pixels and the model's range."""
