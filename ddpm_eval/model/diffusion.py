"""The paper's mathematics as pure functions on tensors.

The symbols are the paper's: ``x_0`` is an image in [-1, 1], ``x_t`` its noisy version, ``eps`` the noise,
``q_...`` the forward and ``p_...`` the reverse process. Times run from 1 to T. Tables are float64 and indexed
0..T with ``alpha_bar[0] = 1``, so that ``table[t]`` is the paper's symbol with subscript t. Images have the
shape ``[batch, channels, side, side]``; ``t`` is int64 of shape ``[batch]``, or ``[1]`` when all images share
it. Likelihood terms are in nats per image.

Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239. The
equation numbers refer to it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ddpm_eval.model.decoder import decoder_nll
from ddpm_eval.spec import Decoder, DiffusionSpec, Objective, Predicted, Variance

Network = Callable[..., Tensor]
"""A function of ``x_t``, of 0-based time steps and, if it is class-conditional, of classes; it returns the
prediction.

With a learned variance the output has twice the channels of ``x_t``; the second half is the variance's head.
"""

ReverseVariance = Literal["learned", "learned-range"] | Tensor
"""A learned variance is given by its name, a fixed one as a table of sigma_t^2 indexed 0..T."""


@dataclass(frozen=True)
class Schedule:
    """The noise schedule of a chain of T steps.

    All tables are on one device and indexed 0..T. They are float64, but for ``network_time``, which is int64.

    Attributes:
        beta: the variance that step t adds; ``beta[0] = 0``.
        alpha_bar: the product of ``1 - beta`` up to t; ``alpha_bar[0] = 1``.
        network_time: the 0-based time that the network is given at t. It is ``t - 1`` in a full chain; a
            respaced chain keeps the times of the full one.
    """

    beta: Tensor
    alpha_bar: Tensor
    network_time: Tensor

    @property
    def timesteps(self) -> int:
        """T, the number of steps of this chain."""
        return len(self.beta) - 1

    @cached_property
    def alpha_bar_previous(self) -> Tensor:
        """The table of ``alpha_bar[t - 1]``, with 1 at t = 0, where it is not used."""
        return torch.cat([self.alpha_bar[:1], self.alpha_bar[:-1]])

    @cached_property
    def beta_tilde(self) -> Tensor:
        """The variance of q(x_{t-1} | x_t, x_0), Eq. 7, which is zero at t = 1."""
        return _safe_ratio(self.beta * (1 - self.alpha_bar_previous), 1 - self.alpha_bar)

    @cached_property
    def mean_weight_x_0(self) -> Tensor:
        """The weight of x_0 in mu_tilde, Eq. 7."""
        return _safe_ratio(self.alpha_bar_previous.sqrt() * self.beta, 1 - self.alpha_bar)

    @cached_property
    def mean_weight_x_t(self) -> Tensor:
        """The weight of x_t in mu_tilde, Eq. 7."""
        return _safe_ratio((1 - self.beta).sqrt() * (1 - self.alpha_bar_previous), 1 - self.alpha_bar)

    def fixed_variance(self, name: Literal["fixed-large", "fixed-small"]) -> Tensor:
        """Return the table of sigma_t^2: beta_t for ``fixed-large``, beta_tilde_t for ``fixed-small``.

        At t = 1 both are beta_tilde_2, as in the authors' code.
        """
        sigma2 = {"fixed-large": self.beta, "fixed-small": self.beta_tilde}[name].clone()
        sigma2[1] = self.beta_tilde[2]
        sigma2[0] = torch.nan
        return sigma2

    def variance(self, name: Variance) -> ReverseVariance:
        """Return the reverse variance of this name in the form that `ReverseProcess` takes.

        A learned variance is returned as its name, a fixed one as its table.
        """
        return name if name == "learned" or name == "learned-range" else self.fixed_variance(name)

    def to(self, device: torch.device | str) -> "Schedule":
        """Return the schedule with its tables on ``device``."""
        return Schedule(self.beta.to(device), self.alpha_bar.to(device), self.network_time.to(device))

    def respaced(self, steps: Sequence[int]) -> "Schedule":
        """Return the chain that visits only ``steps`` of this one.

        Args:
            steps: at least two increasing times in 1..T. The last one should be T if samples are to start
                from pure noise.

        Raises:
            ValueError: if these are not two or more increasing times of this chain.
        """
        chosen = torch.tensor([0, *steps], device=self.beta.device)
        if len(steps) < 2 or (chosen.diff() <= 0).any() or chosen[-1] > self.timesteps:
            raise ValueError(
                f"steps must be two or more increasing times in 1..{self.timesteps}, not {list(steps)}"
            )
        alpha_bar = self.alpha_bar[chosen]
        beta = torch.cat([self.beta[:1], 1 - alpha_bar[1:] / alpha_bar[:-1]])
        return Schedule(beta, alpha_bar, self.network_time[chosen])


def make_schedule(spec: DiffusionSpec) -> Schedule:
    """Return the noise schedule of the forward process.

    ``linear`` is the paper's schedule; ``quadratic`` and ``constant`` are the other ones in the authors'
    code; ``cosine`` is that of Nichol and Dhariwal (2021), Eq. 17, with beta capped at 0.999.

    Raises:
        ValueError: if it is a table of a named network.
    """
    steps = spec.timesteps
    start, end = spec.beta_start, spec.beta_end
    match spec.schedule:
        case "linear":
            beta = torch.linspace(start, end, steps, dtype=torch.float64)
        case "quadratic":
            beta = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
        case "constant":
            beta = torch.full((steps,), end, dtype=torch.float64)
        case "cosine":
            time = torch.arange(steps + 1, dtype=torch.float64) / steps
            f = ((time + 0.008) / 1.008 * math.pi / 2).cos() ** 2
            beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
        case "table":
            raise ValueError("the schedule is a table that only the network's own model has")
    beta = torch.cat([torch.zeros(1, dtype=torch.float64), beta])
    return Schedule(beta, (1 - beta).cumprod(0), torch.arange(steps + 1) - 1)


def at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Return ``table[t]``, shaped ``[batch, 1, 1, 1]``, in the dtype and on the device of ``like``."""
    return table.to(like.device)[t].to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


# The forward process


def q_sample(schedule: Schedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Diffuse ``x_0`` to time t with the noise ``eps``, Eq. 4."""
    alpha_bar = schedule.alpha_bar
    return at(alpha_bar.sqrt(), t, x_0) * x_0 + at((1 - alpha_bar).sqrt(), t, x_0) * eps


def q_posterior_mean(schedule: Schedule, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Return mu_tilde, the mean of q(x_{t-1} | x_t, x_0), Eq. 7."""
    return at(schedule.mean_weight_x_0, t, x_t) * x_0 + at(schedule.mean_weight_x_t, t, x_t) * x_t


def prior_kl(schedule: Schedule, x_0: Tensor) -> Tensor:
    """Return L_T = KL(q(x_T | x_0) || N(0, I)) in nats per image, float64 of shape ``[batch]``."""
    alpha_bar = schedule.alpha_bar[-1]
    size = x_0[0].numel()
    square = x_0.double().square().flatten(1).sum(1)
    return 0.5 * (alpha_bar * square - size * alpha_bar - size * torch.log1p(-alpha_bar))


# The reverse process


def x_0_from_eps(schedule: Schedule, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Return the x_0 from which the noise ``eps`` leads to ``x_t``, Eq. 15."""
    alpha_bar = schedule.alpha_bar
    return at(alpha_bar.rsqrt(), t, x_t) * x_t - at((1 / alpha_bar - 1).sqrt(), t, x_t) * eps


def eps_from_x_0(schedule: Schedule, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
    """Return the noise that leads from ``x_0`` to ``x_t``, the inverse of `x_0_from_eps`."""
    alpha_bar = schedule.alpha_bar
    return (at(alpha_bar.rsqrt(), t, x_t) * x_t - x_0) / at((1 / alpha_bar - 1).sqrt(), t, x_t)


def x_0_from_mean(schedule: Schedule, x_t: Tensor, t: Tensor, mean: Tensor) -> Tensor:
    """Return the x_0 for which mu_tilde(x_t, x_0) is ``mean``, the inverse of `q_posterior_mean`."""
    return (mean - at(schedule.mean_weight_x_t, t, x_t) * x_t) / at(schedule.mean_weight_x_0, t, x_t)


def x_0_from_v(schedule: Schedule, x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """Return the x_0 for which ``v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0``.

    Source: Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022,
    appendix D.
    """
    alpha_bar = schedule.alpha_bar
    return at(alpha_bar.sqrt(), t, x_t) * x_t - at((1 - alpha_bar).sqrt(), t, x_t) * v


def x_0_from_score(schedule: Schedule, x_t: Tensor, t: Tensor, score: Tensor) -> Tensor:
    """Return E[x_0 | x_t] if ``score`` is the gradient of log q(x_t), by Tweedie's formula.

    Source: Efron, "Tweedie's Formula and Selection Bias", JASA 106 (2011), Eq. 1.4.
    """
    alpha_bar = schedule.alpha_bar
    return at(alpha_bar.rsqrt(), t, x_t) * (x_t + at(1 - alpha_bar, t, x_t) * score)


def x_0_from(prediction: Predicted, schedule: Schedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
    """Return the estimate of x_0 that a network's output stands for."""
    match prediction:
        case "eps":
            return x_0_from_eps(schedule, x_t, t, output)
        case "x0":
            return output
        case "mu":
            return x_0_from_mean(schedule, x_t, t, output)
        case "v":
            return x_0_from_v(schedule, x_t, t, output)
        case "score":
            return x_0_from_score(schedule, x_t, t, output)


def target(
    prediction: Predicted, schedule: Schedule, x_0: Tensor, x_t: Tensor, t: Tensor, eps: Tensor
) -> Tensor:
    """Return what a network is trained to output at ``x_t``, which the noise ``eps`` made of ``x_0``."""
    alpha_bar = schedule.alpha_bar
    match prediction:
        case "eps":
            return eps
        case "x0":
            return x_0
        case "mu":
            return q_posterior_mean(schedule, x_0, x_t, t)
        case "v":
            return at(alpha_bar.sqrt(), t, x_t) * eps - at((1 - alpha_bar).sqrt(), t, x_t) * x_0
        case "score":
            return -eps * at((1 - alpha_bar).rsqrt(), t, x_t)


@dataclass(frozen=True)
class ReverseStep:
    """One step p(x_{t-1} | x_t) of the reverse process, and the estimate of x_0 that it came from.

    Attributes:
        mean: the mean of the step, shaped like ``x_t``.
        log_variance: the logarithm of its variance, which broadcasts to ``x_t``.
        x_0_hat: the estimate of x_0, clipped if the process clips, shaped like ``x_t``.
        prediction: the network's output without the variance's head, shaped like ``x_t``.
    """

    mean: Tensor
    log_variance: Tensor
    x_0_hat: Tensor
    prediction: Tensor


@dataclass(frozen=True)
class ReverseProcess:
    """The reverse process p_theta, a Markov chain of Gaussians whose parameters a network predicts.

    Attributes:
        network: the network, see `Network`.
        schedule: the noise schedule of the chain, which may be respaced.
        prediction: what the network predicts, ``eps``, ``mu``, ``x0``, ``v`` or ``score``.
        variance: ``learned``, ``learned-range``, or a table of sigma_t^2 indexed 0..T.
        clip: whether estimates of x_0 are clipped to [-1, 1] before the mean is formed. With ``mu``
            prediction the mean is the network's output, and clipping changes only the reported estimate.
        classes: of a class-conditional network, the function from image ids to classes, both int64
            ``[batch]``.
    """

    network: Network
    schedule: Schedule
    prediction: Predicted
    variance: ReverseVariance
    clip: bool
    classes: Callable[[Tensor], Tensor] | None = None

    def __call__(self, x_t: Tensor, t: Tensor, ids: Tensor | None = None) -> ReverseStep:
        """Return p(x_{t-1} | x_t) for times ``t`` of shape ``[batch]`` or ``[1]``; see `evaluate`."""
        return self.p_mean_variance(self.evaluate(x_t, t, ids), x_t, t)

    def evaluate(self, x_t: Tensor, t: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return the network's output.

        Args:
            x_t: the images at time t, shape ``[batch, channels, side, side]``.
            t: int64 times of shape ``[batch]`` or ``[1]``.
            ids: int64 ids of the images, shape ``[batch]``, which a class-conditional network needs.
        """
        timestep = self.schedule.network_time.to(t.device)[t]
        if self.classes is None:
            return self.network(x_t, timestep)
        assert ids is not None, "a class-conditional network needs the images' ids"
        return self.network(x_t, timestep, self.classes(ids))

    def p_mean_variance(self, output: Tensor, x_t: Tensor, t: Tensor) -> ReverseStep:
        """Return p(x_{t-1} | x_t) from the network's output at ``x_t`` and ``t``.

        One evaluation of the network thus serves several processes that differ in variance or clipping.
        """
        channels = x_t.shape[1]
        output = output.to(x_t.dtype)
        prediction = output[:, :channels]
        x_0_hat = x_0_from(self.prediction, self.schedule, x_t, t, prediction)
        if self.clip:
            # an infinite estimate is an overflow, not an edge: it stays visible, as NaN
            x_0_hat = torch.where(x_0_hat.isfinite(), x_0_hat.clamp(-1, 1), torch.nan)
        mean = prediction if self.prediction == "mu" else q_posterior_mean(self.schedule, x_0_hat, x_t, t)
        return ReverseStep(mean, self._log_variance(output[:, channels:], x_t, t), x_0_hat, prediction)

    def _log_variance(self, head: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        if isinstance(self.variance, Tensor):
            return at(self.variance.log(), t, x_t)
        if self.variance == "learned":
            return head
        # Nichol and Dhariwal (2021), Eq. 15: interpolate between the logarithms of beta_tilde and beta
        low = at(self.schedule.fixed_variance("fixed-small").log(), t, x_t)
        high = at(self.schedule.beta.log(), t, x_t)
        return low + (head + 1) / 2 * (high - low)


# The variational bound


def gaussian_kl(error: Tensor, log_variance_q: Tensor, log_variance_p: Tensor, count: int = 1) -> Tensor:
    """Return KL(q || p) for ``count`` independent Gaussians of equal variances.

    Args:
        error: the squared differences of the means of q and p, summed over the Gaussians.
        log_variance_q: the logarithm of each variance of q.
        log_variance_p: the logarithm of each variance of p.
        count: the number of Gaussians.
    """
    ratio = log_variance_q - log_variance_p
    return 0.5 * (count * (torch.expm1(ratio) - ratio) + error * torch.exp(-log_variance_p))


def kl_term(schedule: Schedule, step: ReverseStep, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Return L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) of Eq. 5 for t > 1.

    Returns:
        Nats per image, shape ``[batch]``; a finite placeholder where t = 1.
    """
    error = (q_posterior_mean(schedule, x_0, x_t, t) - step.mean).square()
    return kl_from_error(schedule, error, step.log_variance, t)


def kl_from_error(schedule: Schedule, error: Tensor, log_variance: Tensor, t: Tensor) -> Tensor:
    """Return `kl_term` from the squared error of the mean, ``(mu_tilde - mu)^2``.

    Args:
        schedule: the noise schedule of the chain.
        error: the squared error of each element, shape ``[batch, channels, side, side]``.
        log_variance: the logarithm of p's variance, of each element or, if isotropic, of shape ``[batch]``.
        t: the times, of shape ``[batch]`` or ``[1]``.

    Returns:
        Nats per image, shape ``[batch]``.
    """
    beta_tilde = schedule.beta_tilde.clone()
    beta_tilde[:2] = 1.0  # q(x_0 | x_1, x_0) has no density
    log_beta_tilde = at(beta_tilde.log(), t, error)
    if log_variance.ndim == error.ndim:
        return gaussian_kl(error, log_beta_tilde, log_variance).flatten(1).sum(1)
    return gaussian_kl(error.flatten(1).sum(1), log_beta_tilde.flatten(), log_variance, error[0].numel())


def decoder_term(step: ReverseStep, x_0: Tensor, decoder: Decoder) -> Tensor:
    """Return L_0 of Eq. 5, the decoder's negative log likelihood, for steps at t = 1.

    Returns:
        Nats per image, shape ``[batch]``.
    """
    return decoder_nll(x_0, step.mean, step.log_variance, decoder).flatten(1).sum(1)


def bound_term(
    schedule: Schedule, step: ReverseStep, x_0: Tensor, x_t: Tensor, t: Tensor, decoder: Decoder = "exact"
) -> Tensor:
    """Return L_{t-1} of Eq. 5, which is `decoder_term` at t = 1 and `kl_term` elsewhere; differentiable.

    The decoder is computed for every image and then selected, which spares a device a synchronisation. Where
    it is not selected its arguments are replaced, so that its gradient is finite there.

    Returns:
        Nats per image, shape ``[batch]``.
    """
    last = (t == 1).reshape(-1, *[1] * (x_0.ndim - 1))
    mean, log_variance = torch.where(last, step.mean, x_0), torch.where(last, step.log_variance, -8.0)
    nll = decoder_nll(x_0, mean, log_variance, decoder).flatten(1).sum(1)
    return torch.where(t == 1, nll, kl_term(schedule, step, x_0, x_t, t))


def training_loss(
    process: ReverseProcess,
    objective: Objective,
    x_0: Tensor,
    t: Tensor,
    eps: Tensor,
    decoder: Decoder = "exact",
) -> Tensor:
    """Return the training loss per image, shape ``[batch]``.

    ``mse`` is the squared error of the prediction, averaged over elements; for ``eps`` this is L_simple,
    Eq. 14. ``vlb`` is one term of the bound in bits/dim; its mean over uniform t is the bound divided by T.
    The authors' code takes the decoder ``tanh`` in that term, see `decoder_nll`.
    """
    schedule = process.schedule
    x_t = q_sample(schedule, x_0, t, eps)
    step = process(x_t, t)
    if objective == "vlb":
        return bound_term(schedule, step, x_0, x_t, t, decoder) / (x_0[0].numel() * math.log(2))
    wanted = target(process.prediction, schedule, x_0, x_t, t, eps)
    return (step.prediction - wanted).square().flatten(1).mean(1)


def _safe_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the ratio, or 0 where the denominator is 0, which is at t = 0 only, where it is not used."""
    return torch.where(denominator == 0, 0, numerator / torch.where(denominator == 0, 1, denominator))
