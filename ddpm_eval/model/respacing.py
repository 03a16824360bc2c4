"""Chains that visit fewer of the T steps: which times, and which networks serve them."""

from ddpm_eval.spec import Spacing


def evenly_spaced(timesteps: int, count: int, spacing: Spacing = "trailing") -> list[int]:
    """Return ``count`` evenly spaced, increasing times in 1..T.

    Of 10 times in 1..1000 ``trailing`` are 100, 200, ..., 1000; ``leading`` are 1, 101, ..., 901, so that x_T
    is taken for the image at a time before T (Song et al. 2021; ``ddim10`` of improved-diffusion);
    ``linspace`` are 1, 112, ..., 1000 (``10`` of improved-diffusion). The names are diffusers', whose 0-based
    times are one less.

    Raises:
        ValueError: unless ``2 <= count <= T``.
    """
    if not 2 <= count <= timesteps:
        raise ValueError(f"{count} steps asked for, but a chain of {timesteps} steps allows 2 to {timesteps}")
    match spacing:
        case "trailing":
            return [round(timesteps * (i + 1) / count) for i in range(count)]
        case "leading":
            return [1 + i * (timesteps // count) for i in range(count)]
        case "linspace":
            stride = (timesteps - 1) / (count - 1)
            return [1 + round(i * stride) for i in range(count)]


def no_fewer_steps(predicts: str, variance: str) -> str:
    """Return why a network does not serve chains of fewer steps, a sentence without its stop; "" if it does.

    Args:
        predicts: what the network predicts.
        variance: the name of its reverse variance; ``table`` stands for one given as numbers. The range of
            ``learned-range`` is that of the chain at hand, but ``learned`` is the variance of one step of the
            chain that was trained.
    """
    if predicts == "mu":
        known = "mean"
    elif variance in ("learned", "table"):
        known = "variance"
    else:
        return ""
    return f"the network knows the {known} of its own chain only: fewer steps are not possible"
