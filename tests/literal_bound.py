"""The paper's equations written as literally as possible, with floats, lists and loops, for the tests only.

Nothing here is shared with the package. Where the package simplifies, this does not: the posterior comes from
Bayes' rule on the precisions of densities, the decoder from numerical integration of the density, and the KL
divergence from its textbook form. Lists over t have the index 0..T; an image is a flat list of numbers in
[-1, 1].
"""

import math

from scipy.integrate import quad

ROOT_TWO_PI = math.sqrt(2 * math.pi)


def linear_beta(timesteps, start, end):
    return [0.0] + [start + (end - start) * i / (timesteps - 1) for i in range(timesteps)]


def cumulative_alpha(beta):
    alpha_bar = [1.0]
    for b in beta[1:]:
        alpha_bar.append(alpha_bar[-1] * (1 - b))
    return alpha_bar


def diffuse(beta, x_0, t, eps):
    """Eq. 4."""
    a = cumulative_alpha(beta)[t]
    return [math.sqrt(a) * x + math.sqrt(1 - a) * e for x, e in zip(x_0, eps, strict=True)]


def posterior(beta, x_0, x_t, t):
    """Return mean and variance of q(x_{t-1} | x_t, x_0) for one element: precisions add (Bayes' rule)."""
    a = cumulative_alpha(beta)[t - 1]
    if t == 1:
        return x_0, 0.0
    precision = (1 - beta[t]) / beta[t] + 1 / (1 - a)
    weighted = math.sqrt(1 - beta[t]) / beta[t] * x_t + math.sqrt(a) / (1 - a) * x_0
    return weighted / precision, 1 / precision


def reverse_variance(beta, t, name):
    """Return the fixed variance of this name; at t = 1 both are the posterior variance of t = 2."""
    if t == 1:
        return posterior(beta, 0.0, 0.0, 2)[1]
    return beta[t] if name == "fixed-large" else posterior(beta, 0.0, 0.0, t)[1]


def estimate_x_0(beta, x_t, t, prediction, output, clip):
    a = cumulative_alpha(beta)[t]
    if prediction == "eps":
        x = (x_t - math.sqrt(1 - a) * output) / math.sqrt(a)
    elif prediction == "x0":
        x = output
    elif prediction == "v":
        x = math.sqrt(a) * x_t - math.sqrt(1 - a) * output
    elif prediction == "score":
        x = (x_t + (1 - a) * output) / math.sqrt(a)
    else:  # the posterior mean is affine in x_0: solve for it
        at_0, at_1 = posterior(beta, 0.0, x_t, t)[0], posterior(beta, 1.0, x_t, t)[0]
        x = (output - at_0) / (at_1 - at_0)
    return min(1.0, max(-1.0, x)) if clip else x


def reverse_mean(beta, x_t, t, prediction, output, clip):
    if prediction == "mu":
        return output
    if prediction == "eps" and not clip:  # Eq. 11
        a = cumulative_alpha(beta)[t]
        return (x_t - beta[t] / math.sqrt(1 - a) * output) / math.sqrt(1 - beta[t])
    return posterior(beta, estimate_x_0(beta, x_t, t, prediction, output, clip), x_t, t)[0]


def kl(mean_q, variance_q, mean_p, variance_p):
    ratio = (variance_q + (mean_q - mean_p) ** 2) / (2 * variance_p)
    return math.log(math.sqrt(variance_p) / math.sqrt(variance_q)) + ratio - 0.5


def decoder_nll(level, mean, variance):
    """Return Eq. 13 by integrating the density over the bin of ``level`` (0..255).

    A tail is cut where it is negligible.
    """
    x, sigma = 2 * level / 255 - 1, math.sqrt(variance)
    lower = (x - 1 / 255 - mean) / sigma if level > 0 else -math.inf
    upper = (x + 1 / 255 - mean) / sigma if level < 255 else math.inf
    # where the density on the bin is largest; it is taken out, so that nothing underflows
    peak = min(max(0.0, lower), upper)
    reach = 40 / max(1.0, abs(peak))  # beyond it the integrand is below exp(-40)
    low, high = max(lower, peak - min(reach, 9)), min(upper, peak + min(reach, 9))
    integral, _ = quad(
        lambda u: math.exp((peak - u) * (peak + u) / 2), low, high, epsabs=0, epsrel=1e-12, limit=200
    )
    return peak**2 / 2 + math.log(ROOT_TWO_PI) - math.log(integral)


def tanh_decoder_nll(level, mean, variance):
    """Return the authors' version, with a tanh in place of the CDF and probabilities floored at 1e-12."""
    x, sigma = 2 * level / 255 - 1, math.sqrt(variance)

    def cdf(u):
        return 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u * u * u)))

    lower = cdf((x - 1 / 255 - mean) / sigma) if level > 0 else 0.0
    upper = cdf((x + 1 / 255 - mean) / sigma) if level < 255 else 1.0
    return -math.log(max(upper - lower, 1e-12))


def bound_term(beta, levels, eps, t, network, prediction, variance, clip, decoder="exact"):
    """Return L_{t-1} of one image (nats) and the mean squared error of its x0_hat.

    ``levels`` and ``eps`` are flat lists, ``network`` maps a flat list and t (from 1) to a flat list,
    ``variance`` is a name or a table over t.
    """
    x_0 = [2 * level / 255 - 1 for level in levels]
    x_t = diffuse(beta, x_0, t, eps)
    output = network(x_t, t)
    variance_p = reverse_variance(beta, t, variance) if isinstance(variance, str) else variance[t]
    total, error = 0.0, 0.0
    for i in range(len(levels)):
        mean_p = reverse_mean(beta, x_t[i], t, prediction, output[i], clip)
        error += (estimate_x_0(beta, x_t[i], t, prediction, output[i], clip) - x_0[i]) ** 2
        if t == 1:
            total += (decoder_nll if decoder == "exact" else tanh_decoder_nll)(levels[i], mean_p, variance_p)
        else:
            mean_q, variance_q = posterior(beta, x_0[i], x_t[i], t)
            total += kl(mean_q, variance_q, mean_p, variance_p)
    return total, error / len(levels)


def prior(beta, levels):
    """Return L_T of one image in nats."""
    a = cumulative_alpha(beta)[-1]
    return sum(kl(math.sqrt(a) * (2 * level / 255 - 1), 1 - a, 0.0, 1.0) for level in levels)
