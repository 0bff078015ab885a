"""Terms of the evidence lower bound, one value per example, in nats.

ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z)), with q a diagonal Gaussian and p(z) = N(0, I) (Kingma & Welling 2014).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from genjax.types import Array


def gaussian_kl(mean: Array, logvar: Array) -> Array:
    """KL(N(mean, exp(logvar)) || N(0, I)), ``[B]``, of ``[B, D]`` (Kingma & Welling 2014, appendix B)."""
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar, axis=-1)


def gaussian_log_prob(x: Array, mean: Array, logvar: Array) -> Array:
    """log N(x; mean, exp(logvar)), elementwise."""
    return -0.5 * (math.log(2 * math.pi) + logvar + jnp.square(x - mean) * jnp.exp(-logvar))


def bernoulli_log_prob(x: Array, logits: Array) -> Array:
    """log p(x) of x in [0, 1] under Bernoulli(sigmoid(logits)), elementwise."""
    return x * logits - jax.nn.softplus(logits)


def discretized_logistic_log_prob(x: Array, mean: Array, log_scale: Array) -> Array:
    """log-probability of an 8-bit value under a logistic cut into 256 bins, elementwise.

    Args:
      x: the value on the grid ``-1 + 2 k / 255``, k = 0..255.
      mean, log_scale: of the logistic on the same axis.

    The outermost bins take the tails (Kingma et al. 2016, appendix; Salimans et al. 2017, eq. 2).
    """
    inverse_scale = jnp.exp(-log_scale)
    half = 1.0 / 255.0
    upper = inverse_scale * (x - mean + half)
    lower = inverse_scale * (x - mean - half)
    # log(sigmoid(u) - sigmoid(l)) = log(1 - e^(l-u)) - softplus(-u) - softplus(l), with u - l = 2 half / scale
    width = 2.0 * half * inverse_scale
    middle = jnp.log(-jnp.expm1(-width)) - jax.nn.softplus(-upper) - jax.nn.softplus(lower)
    return jnp.where(x < -0.999, -jax.nn.softplus(-upper), jnp.where(x > 0.999, -jax.nn.softplus(lower), middle))


def importance_bound(log_weights: Array) -> Array:
    """log (1/K) sum_k w_k, ``[B]``, of log-weights ``[K, B]`` (Burda et al. 2016, eq. 8)."""
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])
