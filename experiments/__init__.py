"""Which runs answer which question of the paper, as code."""
