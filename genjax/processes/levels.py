"""Which t a training step draws, and how much the error at each t counts.

A ``Levels`` draws t. A ``Weighting`` gives w(t) of the loss w |D - x_0|^2: always of the denoised image, whatever the
network predicts; divided by ``Prediction.output_weight`` it is the weight of the network's own error.
"""

from __future__ import annotations

import abc
import dataclasses
import math

import jax
import jax.numpy as jnp

from genjax.processes.paths import Path
from genjax.processes.ranges import check_noise_range, noise_range
from genjax.types import Array, Key


class Levels(abc.ABC):
    """A distribution of t. Subclasses are frozen dataclasses whose fields are its settings."""

    @abc.abstractmethod
    def sample(self, path: Path, key: Key, shape: tuple[int, ...]) -> Array:
        """Independent draws of t in [``path.t_min``, ``path.t_max``], of ``shape``, in the default precision."""

    def check(self, path: Path) -> None:
        """Raises ValueError if ``sample`` would, for this path; draws nothing."""
        jax.eval_shape(lambda key: self.sample(path, key, ()), jax.random.key(0))


@dataclasses.dataclass(frozen=True)
class Uniform(Levels):
    """Uniform in t on the path's range (Song et al. 2021, eq. 7)."""

    def sample(self, path: Path, key: Key, shape: tuple[int, ...]) -> Array:
        return _on_range(path, jax.random.uniform(key, shape))


@dataclasses.dataclass(frozen=True)
class LogitNormal(Levels):
    """log(t / (1 - t)) ~ N(mean, std^2), for paths with t in [0, 1] (Esser et al. 2024, eq. 19, with t as there).

    Attributes:
      mean, std: of the logit; std positive. Draws beyond the path's range become its ends.

    Raises:
      ValueError: a setting is out of its range; on sampling, the path's t exceeds 1.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self):
        _check_normal(self.mean, self.std)

    def sample(self, path: Path, key: Key, shape: tuple[int, ...]) -> Array:
        if path.t_max > 1:
            raise ValueError(f"logit_normal draws t in [0, 1], and this path's t reaches {path.t_max}")
        return _within(path, jax.nn.sigmoid(self.mean + self.std * jax.random.normal(key, shape)))


@dataclasses.dataclass(frozen=True)
class LogNormal(Levels):
    """log r ~ N(mean, std^2), r the noise level (Karras et al. 2022, table 1). On the linear path: ``LogitNormal``.

    Attributes:
      mean, std: of log r; std positive. Draws beyond the path's range become its ends.

    Raises:
      ValueError: a setting is out of its range.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self):
        _check_normal(self.mean, self.std)

    def sample(self, path: Path, key: Key, shape: tuple[int, ...]) -> Array:
        log_level = self.mean + self.std * jax.random.normal(key, shape)
        return _within(path, path.t_of_noise_level(jnp.exp(log_level)))


@dataclasses.dataclass(frozen=True)
class UniformLogSNR(Levels):
    """Uniform in log(alpha^2 / sigma^2) = -2 log r, where the ELBO is the unweighted error of eps (Kingma et al. 2021).

    Attributes:
      sigma_min, sigma_max: the range of r, within the path's own; none for that, the upper end at most 80.

    Raises:
      ValueError: a setting is out of its range; on sampling, the path has nothing in that range.
    """

    sigma_min: float | None = None
    sigma_max: float | None = None

    def __post_init__(self):
        check_noise_range(self.sigma_min, self.sigma_max)

    def sample(self, path: Path, key: Key, shape: tuple[int, ...]) -> Array:
        low, high = (math.log(r) for r in noise_range(path, self.sigma_min, self.sigma_max))
        log_level = low + (high - low) * jax.random.uniform(key, shape)
        return _within(path, path.t_of_noise_level(jnp.exp(log_level)))


@dataclasses.dataclass(frozen=True)
class Discrete(Levels):
    """One of ``num`` values of t, evenly spaced over the path's range with both ends (Ho et al. 2020, algorithm 1).

    Attributes:
      num: how many, at least 2.

    Raises:
      ValueError: ``num`` is below 2.
    """

    num: int = 1000

    def __post_init__(self):
        if self.num < 2:
            raise ValueError(f"num={self.num} is too small; accepted: at least 2")

    def sample(self, path: Path, key: Key, shape: tuple[int, ...]) -> Array:
        return _on_range(path, jax.random.randint(key, shape, 0, self.num) / (self.num - 1))


class Weighting(abc.ABC):
    """w(t) >= 0 of |D - x_0|^2. Subclasses are frozen dataclasses whose fields are its settings."""

    @abc.abstractmethod
    def __call__(self, path: Path, t: Array) -> Array:
        """w, elementwise in ``t`` ``[B]``."""


@dataclasses.dataclass(frozen=True)
class X0Weighting(Weighting):
    """1: the plain error of x_0."""

    def __call__(self, path: Path, t: Array) -> Array:
        return jnp.ones_like(t)


@dataclasses.dataclass(frozen=True)
class EpsWeighting(Weighting):
    """SNR = alpha^2 / sigma^2: the plain error of eps, DDPM's simple loss (Ho et al. 2020, eq. 14)."""

    def __call__(self, path: Path, t: Array) -> Array:
        return _snr(path, t)


@dataclasses.dataclass(frozen=True)
class VWeighting(Weighting):
    """((alpha^2 + sigma^2) / sigma)^2: the plain error of v; SNR + 1 on "vp" paths (Salimans & Ho 2022, section 4)."""

    def __call__(self, path: Path, t: Array) -> Array:
        sigma = path.sigma(t)
        return jnp.square((jnp.square(path.alpha(t)) + jnp.square(sigma)) / sigma)


@dataclasses.dataclass(frozen=True)
class VelocityWeighting(Weighting):
    """(alpha sigma' / sigma - alpha')^2: the plain error of the velocity; 1 / t^2 on the linear path.

    Attributes:
      min_sigma: the divisor sigma is at least this, which bounds the weight of the smallest t (Li & He 2025 take 0.05).

    Raises:
      ValueError: ``min_sigma`` is negative or infinite.
    """

    min_sigma: float = 0.0

    def __post_init__(self):
        if not 0 <= self.min_sigma < math.inf:
            raise ValueError(f"min_sigma={self.min_sigma} is out of range; accepted: at least 0, and finite")

    def __call__(self, path: Path, t: Array) -> Array:
        sigma = path.sigma(t)
        determinant = path.alpha(t) * path.d_sigma(t) - sigma * path.d_alpha(t)
        return jnp.square(determinant / jnp.maximum(sigma, self.min_sigma))


@dataclasses.dataclass(frozen=True)
class EDMWeighting(Weighting):
    """(r^2 + sd^2) / (r sd)^2, r the noise level (Karras et al. 2022, table 1): the plain error of the "edm" output.

    Attributes:
      sigma_data: sd, the standard deviation of the data.

    Raises:
      ValueError: ``sigma_data`` is not a positive number.
    """

    sigma_data: float = 0.5

    def __post_init__(self):
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(f"sigma_data={self.sigma_data} is out of range; accepted: positive and finite")

    def __call__(self, path: Path, t: Array) -> Array:
        return _snr(path, t) + 1.0 / self.sigma_data**2


@dataclasses.dataclass(frozen=True)
class MinSNR(Weighting):
    """min(SNR, gamma) (Hang et al. 2023, section 3.4): as eps where there is noise, as x_0 where there is little.

    Attributes:
      gamma: the largest weight, positive.

    Raises:
      ValueError: ``gamma`` is not a positive number.
    """

    gamma: float = 5.0

    def __post_init__(self):
        if not 0 < self.gamma < math.inf:
            raise ValueError(f"gamma={self.gamma} is out of range; accepted: positive and finite")

    def __call__(self, path: Path, t: Array) -> Array:
        return jnp.minimum(_snr(path, t), self.gamma)


@dataclasses.dataclass(frozen=True)
class P2(Weighting):
    """SNR / (k + SNR)^gamma: the error of eps, less where SNR is large (Choi et al. 2022, eq. 8).

    Attributes:
      gamma: the power, at least 0; 0 is the plain error of eps.
      k: positive.

    Raises:
      ValueError: a setting is out of its range.
    """

    gamma: float = 1.0
    k: float = 1.0

    def __post_init__(self):
        if not 0 <= self.gamma < math.inf:
            raise ValueError(f"gamma={self.gamma} is out of range; accepted: at least 0, and finite")
        if not 0 < self.k < math.inf:
            raise ValueError(f"k={self.k} is out of range; accepted: positive and finite")

    def __call__(self, path: Path, t: Array) -> Array:
        # Multiplied by sigma^(2 gamma) above and below, for which no end of the path divides infinities.
        alpha, sigma = path.alpha(t), path.sigma(t)
        below = self.k * jnp.square(sigma) + jnp.square(alpha)
        return jnp.square(alpha) * sigma ** (2.0 * self.gamma - 2.0) * below**-self.gamma


def learned_weighting(loss: Array, log_variance: Array) -> Array:
    """loss / e^u + u, with u a learned function of the noise level (Karras et al. 2024, eq. 14).

    Its minimum over u is at e^u = the expected loss at that level, so that every level comes to count the same.

    Args:
      loss: ``[B]``, the weighted loss of each example.
      log_variance: ``[B]``, u.

    Returns:
      ``[B]``.
    """
    return loss * jnp.exp(-log_variance) + log_variance


def _snr(path: Path, t: Array) -> Array:
    return jnp.square(path.alpha(t) / path.sigma(t))


def _on_range(path: Path, fraction: Array) -> Array:
    return _within(path, path.t_min + (path.t_max - path.t_min) * fraction)


def _within(path: Path, t: Array) -> Array:
    return jnp.clip(t, path.t_min, path.t_max)


def _check_normal(mean: float, std: float) -> None:
    if not math.isfinite(mean):
        raise ValueError(f"mean={mean} is out of range; accepted: finite")
    if not 0 < std < math.inf:
        raise ValueError(f"std={std} is out of range; accepted: positive and finite")
