"""Data whose denoiser, density and probability flow are known, a mixture of Gaussians, and samplers to try on it."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, stats

from genjax.processes.paths import Path, expand
from genjax.samplers import SAMPLERS

FIXED = [name for name in SAMPLERS if name != "adaptive"]


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Independent values from sum_k weights[k] N(means[k], scales[k]^2)."""

    weights: tuple[float, ...] = (0.3, 0.7)
    means: tuple[float, ...] = (-0.8, 0.6)
    scales: tuple[float, ...] = (0.3, 0.4)

    def denoiser(self, path: Path):
        """E[x_0 | x_t], exactly."""

        def denoise(x, t):
            weights, means, scales = (jnp.asarray(v, x.dtype) for v in (self.weights, self.means, self.scales))
            t = t.reshape(t.shape + (1,) * x.ndim)
            alpha, sigma, x = path.alpha(t), path.sigma(t), x[..., None]
            variance = jnp.square(alpha * scales) + jnp.square(sigma)
            score = jnp.log(weights) - 0.5 * jnp.square(x - alpha * means) / variance - 0.5 * jnp.log(variance)
            posterior = means + alpha * jnp.square(scales) * (x - alpha * means) / variance
            return jnp.sum(jax.nn.softmax(score, axis=-1) * posterior, axis=-1)

        return denoise

    def _parts(self, path: Path, t: float):
        alpha, sigma = float(path.alpha(t)), float(path.sigma(t))
        return stats.norm(alpha * np.array(self.means), np.hypot(alpha * np.array(self.scales), sigma))

    def log_density(self, path: Path, t: float, x):
        """log p_t(x) of ``[B, ...]``, ``[B]``."""
        x = np.asarray(x, np.float64).reshape(len(x), -1, 1)
        return np.log(np.sum(np.array(self.weights) * self._parts(path, t).pdf(x), axis=-1)).sum(-1)

    def flow(self, path: Path, t: float, s: float, x):
        """x_s of the probability-flow ODE from x_t: in one dimension it keeps the distribution function's value."""
        weights, start, end = np.array(self.weights), self._parts(path, t), self._parts(path, s)

        def one(value):
            level = np.sum(weights * start.cdf(value))
            return optimize.brentq(lambda y: np.sum(weights * end.cdf(y)) - level, -1e3, 1e3, xtol=1e-14, rtol=1e-14)

        return np.vectorize(one)(np.asarray(x, np.float64))

    def moments(self):
        """(mean, standard deviation) of the data."""
        weights, means, scales = (np.array(v) for v in (self.weights, self.means, self.scales))
        mean = np.sum(weights * means)
        return mean, np.sqrt(np.sum(weights * (scales**2 + means**2)) - mean**2)


def keys_of(num, seed=0):
    return jax.random.split(jax.random.key(seed), num)


def draw(sampler, function, path, t, x, keys, **options):
    """What the sampler gives, as one compiled program, which is far quicker to have than one for each operation."""
    return np.asarray(jax.jit(lambda t, x, keys: sampler(function, path, t, x, keys, **options))(t, x, keys))


def make(name, num_steps, **settings):
    """A sampler that takes ``num_steps`` points (the adaptive one wants two)."""
    return SAMPLERS[name](**({} if name == "adaptive" else {"num_steps": num_steps}), **settings)


def grid(path, start, end, num):
    """Karras et al.'s points between two t; equally spaced ones where the noise level is infinite."""
    high, low = (float(path.noise_level(t)) ** (1 / 7) for t in (start, end))
    if math.isinf(high):
        return np.linspace(start, end, num)
    return np.asarray(path.t_of_noise_level(jnp.asarray(np.linspace(high, low, num) ** 7)))


def function_for(sampler, path, data=Mixture()):
    """What the sampler takes, for Gaussian or mixed data; flow maps are those of a single Gaussian."""
    if sampler.takes == "denoiser":
        return data.denoiser(path)

    def flow_map(x, t, s):
        def deviation(t):
            return jnp.sqrt(jnp.square(0.4 * path.alpha(t)) + jnp.square(path.sigma(t)))

        centred = (x - expand(path.alpha(t), x) * 0.3) * expand(deviation(s) / deviation(t), x)
        return centred + expand(path.alpha(s), x) * 0.3

    return flow_map
