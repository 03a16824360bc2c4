"""Chains from tables of numbers: what other projects keep of a noise schedule, as a `Schedule`.

Tables have the index 0 for t = 1, as they have everywhere but in `Schedule`, whose index 0 is t = 0.
"""

import torch
from torch import Tensor

from ddpm_eval.model.diffusion import Schedule


def chain_of_beta(beta: Tensor) -> Schedule:
    """Return the chain whose step t adds the variance ``beta[t - 1]``.

    Args:
        beta: two or more numbers in (0, 1], of which only the last may be 1; shape ``[T]``.

    Raises:
        ValueError: if they are no such numbers.
    """
    inside = bool(((beta > 0) & (beta <= 1)).all()) and not bool((beta[:-1] == 1).any())
    if beta.ndim != 1 or len(beta) < 2 or not inside:
        raise ValueError(
            "beta must be a list of two or more numbers in (0, 1], of which only the last may be 1"
        )
    table = torch.cat([torch.zeros_like(beta[:1]), beta]).double()
    return Schedule(table, (1 - table).cumprod(0), _full_times(table))


def chain_of_alpha_bar(alpha_bar: Tensor) -> Schedule:
    """Return the chain with q(x_t | x_0) = N(sqrt(alpha_bar[t - 1]) x_0, 1 - alpha_bar[t - 1]).

    Args:
        alpha_bar: two or more numbers that decrease from below 1 to 0 or more; shape ``[T]``.

    Raises:
        ValueError: if they are no such numbers.
    """
    table = torch.cat([torch.ones_like(alpha_bar[:1]), alpha_bar]).double()
    if alpha_bar.ndim != 1 or len(alpha_bar) < 2 or not (table.diff() < 0).all() or table[-1] < 0:
        raise ValueError(
            "alpha_bar must be a list of two or more numbers that decrease from below 1 to 0 or more"
        )
    beta = torch.cat([torch.zeros_like(table[:1]), 1 - table[1:] / table[:-1]])
    return Schedule(beta, table, _full_times(table))


def chain_of_sigma(sigma: Tensor) -> Schedule:
    """Return the chain whose x_t is ``sqrt(alpha_bar_t)`` times x_0 with noise of deviation ``sigma[t - 1]``.

    Args:
        sigma: two or more positive, increasing numbers; shape ``[T]``.

    Raises:
        ValueError: if they are no such numbers.
    """
    if sigma.ndim != 1 or len(sigma) < 2 or not (sigma > 0).all() or not (sigma.diff() > 0).all():
        raise ValueError("sigma must be a list of two or more positive numbers that increase")
    return chain_of_alpha_bar(1 / (1 + sigma.double().square()))


def chain_of_table(table: Tensor) -> Schedule:
    """Return the chain of a table of alpha_bar, which decreases strictly, or of beta, which does not.

    Raises:
        ValueError: if it is neither.
    """
    decreasing = table.ndim == 1 and len(table) > 1 and bool((table.diff() < 0).all())
    return chain_of_alpha_bar(table) if decreasing else chain_of_beta(table)


def _full_times(table: Tensor) -> Tensor:
    return torch.arange(len(table), device=table.device) - 1
