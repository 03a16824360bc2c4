"""Progress on the terminal: one bar over all jobs of an experiment, or one for each stage of a single command."""

from ddpm_eval.runtime import Progress


def stage_bars() -> Progress:
    """Return a progress callback that shows a bar for each stage, on the main process only."""
    raise NotImplementedError
