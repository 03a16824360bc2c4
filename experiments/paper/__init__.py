"""What the paper published: its presets and its numbers."""
