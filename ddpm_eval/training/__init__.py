"""Training: batches, updates, checkpoints, the memory that is needed, and callbacks."""
