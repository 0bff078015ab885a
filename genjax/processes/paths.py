"""Gaussian paths from data to noise: x_t = alpha(t) x_0 + sigma(t) eps, with x_0 data and eps ~ N(0, I).

Noise grows with t on all of them. The noise level r = sigma / alpha (the "sigma" of Karras et al. 2022) and
log(alpha / sigma) mean the same on every path, t does not. Everything is elementwise in t, of any shape, in the
precision of t (a Python float has the default one), and written so that nothing cancels at either end.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
from typing import ClassVar

import jax.numpy as jnp
from jax.typing import ArrayLike

from genjax.types import Array

LARGEST_LEVEL = 1e18
"""Stands for an infinite noise level: alpha is 0 to rounding, and its square is finite in float32."""


def check_ascending(at_most: float = LARGEST_LEVEL, /, **values: float) -> None:
    """Raises ValueError unless 0 < the first value < the second < ..., the last no more than ``at_most``."""
    numbers = [0.0, *values.values()]
    if not (all(a < b for a, b in itertools.pairwise(numbers)) and numbers[-1] <= at_most):
        given = ", ".join(f"{name}={value}" for name, value in values.items())
        rule = " < ".join(["0", *values])
        raise ValueError(f"{given} out of range; accepted: {rule} <= {at_most:g}")


class Path(abc.ABC):
    """A pair of functions alpha(t), sigma(t). Subclasses are frozen dataclasses whose fields are the path's settings.

    Attributes:
      t_min, t_max: the range of t for training and sampling, 0 < t_min < t_max.
      exploding: alpha is 1 everywhere, so that x_t grows with t ("variance exploding").
    """

    t_min: float
    t_max: float
    exploding: ClassVar[bool] = False

    @abc.abstractmethod
    def alpha(self, t: ArrayLike) -> Array:
        """What is left of the data, from 1 at t = 0, never negative."""

    @abc.abstractmethod
    def sigma(self, t: ArrayLike) -> Array:
        """The standard deviation of the noise."""

    @abc.abstractmethod
    def d_alpha(self, t: ArrayLike) -> Array:
        """d alpha / dt."""

    @abc.abstractmethod
    def d_sigma(self, t: ArrayLike) -> Array:
        """d sigma / dt; infinite at t = 0 on the paths that keep the variance."""

    @abc.abstractmethod
    def noise_level(self, t: ArrayLike) -> Array:
        """r = sigma / alpha, strictly increasing; infinite where alpha is 0."""

    @abc.abstractmethod
    def t_of_noise_level(self, r: ArrayLike) -> Array:
        """The t at which ``noise_level`` is ``r``; ``r`` may be infinite, and the result outside [t_min, t_max]."""

    def log_snr(self, t: ArrayLike) -> Array:
        """log(alpha^2 / sigma^2), strictly decreasing; -infinity where alpha is 0."""
        return -2.0 * jnp.log(self.noise_level(t))


@dataclasses.dataclass(frozen=True)
class _LinearBeta(Path):
    """beta(t) = beta_min + t (beta_max - beta_min) on [0, 1], B(t) its integral from 0, alpha = exp(-B / 2)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = dataclasses.field(default=1.0, init=False)

    def __post_init__(self):
        check_ascending(beta_min=self.beta_min, beta_max=self.beta_max)
        check_ascending(1.0, t_min=self.t_min, t_max=self.t_max)

    def beta(self, t: ArrayLike) -> Array:
        """The rate at which the data is lost: d alpha / dt = -beta alpha / 2."""
        return self.beta_min + (self.beta_max - self.beta_min) * jnp.asarray(t)

    def integral(self, t: ArrayLike) -> Array:
        """B(t), the integral of beta from 0 to t."""
        t = jnp.asarray(t)
        return t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def t_of_integral(self, integral: Array) -> Array:
        """The t at which ``integral`` has this value: the positive root of a parabola, without its cancellation."""
        slope = self.beta_max - self.beta_min
        return 2.0 * integral / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2.0 * slope * integral))

    def alpha(self, t: ArrayLike) -> Array:
        return jnp.exp(-0.5 * self.integral(t))

    def d_alpha(self, t: ArrayLike) -> Array:
        return -0.5 * self.beta(t) * self.alpha(t)


@dataclasses.dataclass(frozen=True)
class VPLinear(_LinearBeta):
    """The variance-preserving path with a linear beta (Song et al. 2021, eq. 33), DDPM's in continuous time.

    alpha^2 + sigma^2 = 1, t in [0, 1].

    Attributes:
      beta_min, beta_max: beta(0) and beta(1), 0 < beta_min < beta_max.
      t_min: the smallest t, in (0, 1).

    Raises:
      ValueError: a setting is out of its range.
    """

    def sigma(self, t: ArrayLike) -> Array:
        return jnp.sqrt(-jnp.expm1(-self.integral(t)))

    def d_sigma(self, t: ArrayLike) -> Array:
        return 0.5 * self.beta(t) * jnp.exp(-self.integral(t)) / self.sigma(t)

    def noise_level(self, t: ArrayLike) -> Array:
        return jnp.sqrt(jnp.expm1(self.integral(t)))

    def t_of_noise_level(self, r: ArrayLike) -> Array:
        return self.t_of_integral(jnp.log1p(jnp.square(_finite(r))))


@dataclasses.dataclass(frozen=True)
class SubVP(_LinearBeta):
    """The sub-variance-preserving path (Song et al. 2021, eq. 29): ``VPLinear``'s alpha, and sigma = 1 - alpha^2.

    Attributes:
      beta_min, beta_max: beta(0) and beta(1), 0 < beta_min < beta_max.
      t_min: the smallest t, in (0, 1).

    Raises:
      ValueError: a setting is out of its range.
    """

    def sigma(self, t: ArrayLike) -> Array:
        return -jnp.expm1(-self.integral(t))

    def d_sigma(self, t: ArrayLike) -> Array:
        return self.beta(t) * jnp.exp(-self.integral(t))

    def noise_level(self, t: ArrayLike) -> Array:
        return self.sigma(t) * jnp.exp(0.5 * self.integral(t))

    def t_of_noise_level(self, r: ArrayLike) -> Array:
        # (1 - e^-B) e^(B/2) = 2 sinh(B / 2)
        return self.t_of_integral(2.0 * jnp.arcsinh(0.5 * _finite(r)))


@dataclasses.dataclass(frozen=True)
class VPCosine(Path):
    """The cosine schedule (Nichol & Dhariwal 2021, eq. 17): alpha(t) = cos(u(t)) / cos(u(0)), alpha^2 + sigma^2 = 1.

    u(t) = pi/2 (t + s) / (1 + s), t in [0, 1], alpha(1) = 0.

    Attributes:
      s: the offset that keeps the noise from vanishing too fast, in (0, 1).
      t_min, t_max: the range of t, 0 < t_min < t_max <= 1. The paper clips beta near t = 1; at the default t_max the
        noise level is 128.

    Raises:
      ValueError: a setting is out of its range.
    """

    s: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.995

    def __post_init__(self):
        if not 0 < self.s < 1:
            raise ValueError(f"s={self.s} is out of range; accepted: above 0 and below 1")
        check_ascending(1.0, t_min=self.t_min, t_max=self.t_max)

    @property
    def _rate(self) -> float:
        """du / dt."""
        return 0.5 * math.pi / (1.0 + self.s)

    @property
    def _start(self) -> float:
        """u(0)."""
        return self._rate * self.s

    def _left(self, t: ArrayLike) -> Array:
        """pi/2 - u(t), which is exactly 0 at t = 1 in any precision."""
        return self._rate * (1.0 - jnp.asarray(t))

    def alpha(self, t: ArrayLike) -> Array:
        return jnp.sin(self._left(t)) / math.cos(self._start)

    def d_alpha(self, t: ArrayLike) -> Array:
        return -self._rate * jnp.cos(self._left(t)) / math.cos(self._start)

    def _root(self, t: ArrayLike) -> Array:
        """sqrt(sin^2 u(t) - sin^2 u(0)), the difference of squares written as a product."""
        turned = self._rate * jnp.asarray(t)
        return jnp.sqrt(jnp.sin(turned) * jnp.sin(turned + 2.0 * self._start))

    def sigma(self, t: ArrayLike) -> Array:
        return self._root(t) / math.cos(self._start)

    def d_sigma(self, t: ArrayLike) -> Array:
        return 0.5 * self._rate * jnp.sin(2.0 * self._left(t)) / (math.cos(self._start) * self._root(t))

    def noise_level(self, t: ArrayLike) -> Array:
        return self._root(t) / jnp.sin(self._left(t))

    def t_of_noise_level(self, r: ArrayLike) -> Array:
        # tan u(t) = root / cos, and u(t) - u(0) from the tangent of a difference, so that nothing cancels at small r.
        sin, cos, r = math.sin(self._start), math.cos(self._start), _finite(r)
        root = jnp.sqrt(jnp.square(r) + sin**2)
        return jnp.arctan2(jnp.square(r) * cos, (root + sin) * (cos**2 + root * sin)) / self._rate


@dataclasses.dataclass(frozen=True)
class VE(Path):
    """The variance-exploding path (Song et al. 2021, eq. 31): alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t.

    t in [0, 1]. sigma(0) is sigma_min, not 0.

    Attributes:
      sigma_min, sigma_max: sigma(0) and sigma(1), 0 < sigma_min < sigma_max.

    Raises:
      ValueError: a setting is out of its range.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = dataclasses.field(default=1e-5, init=False)
    t_max: float = dataclasses.field(default=1.0, init=False)
    exploding: ClassVar[bool] = True

    def __post_init__(self):
        check_ascending(sigma_min=self.sigma_min, sigma_max=self.sigma_max)

    @property
    def _rate(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: ArrayLike) -> Array:
        return jnp.ones_like(t)

    def d_alpha(self, t: ArrayLike) -> Array:
        return jnp.zeros_like(t)

    def sigma(self, t: ArrayLike) -> Array:
        return self.sigma_min * jnp.exp(self._rate * jnp.asarray(t))

    def d_sigma(self, t: ArrayLike) -> Array:
        return self._rate * self.sigma(t)

    def noise_level(self, t: ArrayLike) -> Array:
        return self.sigma(t)

    def t_of_noise_level(self, r: ArrayLike) -> Array:
        return jnp.log(_finite(r) / self.sigma_min) / self._rate


@dataclasses.dataclass(frozen=True)
class EDM(Path):
    """alpha = 1, sigma = t (Karras et al. 2022, table 1 and section 3): t is the noise level.

    Attributes:
      sigma_min, sigma_max: the range of t, 0 < sigma_min < sigma_max.

    Raises:
      ValueError: a setting is out of its range.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    t_min: float = dataclasses.field(init=False)
    t_max: float = dataclasses.field(init=False)
    exploding: ClassVar[bool] = True

    def __post_init__(self):
        check_ascending(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        object.__setattr__(self, "t_min", self.sigma_min)
        object.__setattr__(self, "t_max", self.sigma_max)

    def alpha(self, t: ArrayLike) -> Array:
        return jnp.ones_like(t)

    def d_alpha(self, t: ArrayLike) -> Array:
        return jnp.zeros_like(t)

    def sigma(self, t: ArrayLike) -> Array:
        return jnp.asarray(t)

    def d_sigma(self, t: ArrayLike) -> Array:
        return jnp.ones_like(t)

    def noise_level(self, t: ArrayLike) -> Array:
        return jnp.asarray(t)

    def t_of_noise_level(self, r: ArrayLike) -> Array:
        return jnp.asarray(r)


@dataclasses.dataclass(frozen=True)
class Linear(Path):
    """x_t = (1 - t) x_0 + t eps, flow matching and rectified flow (Lipman et al. 2023; Liu et al. 2023), t in [0, 1].

    Its velocity is dx/dt = eps - x_0. Papers often let t run from noise to data; there t is 1 - t, and the velocity's
    sign is turned.

    Attributes:
      t_min, t_max: the range of t, 0 < t_min < t_max <= 1. At t = 1 alpha is 0 and the noise level infinite.

    Raises:
      ValueError: a setting is out of its range.
    """

    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self):
        check_ascending(1.0, t_min=self.t_min, t_max=self.t_max)

    def alpha(self, t: ArrayLike) -> Array:
        return 1.0 - jnp.asarray(t)

    def d_alpha(self, t: ArrayLike) -> Array:
        return -jnp.ones_like(t)

    def sigma(self, t: ArrayLike) -> Array:
        return jnp.asarray(t)

    def d_sigma(self, t: ArrayLike) -> Array:
        return jnp.ones_like(t)

    def noise_level(self, t: ArrayLike) -> Array:
        return jnp.asarray(t) / (1.0 - jnp.asarray(t))

    def t_of_noise_level(self, r: ArrayLike) -> Array:
        return _finite(r) / (1.0 + _finite(r))


def _finite(r: ArrayLike) -> Array:
    return jnp.minimum(r, LARGEST_LEVEL)


def expand(t: Array, like: Array) -> Array:
    """``t`` ``[B]`` reshaped to ``[B, 1, ..., 1]``, with the axes of ``like`` ``[B, ...]``; a scalar stays one."""
    return t.reshape(t.shape + (1,) * (like.ndim - t.ndim)) if t.ndim else t


def forward(path: Path, x0: Array, eps: Array, t: Array) -> Array:
    """x_t = alpha x_0 + sigma eps, ``[B, ...]``, of ``x0`` and ``eps`` ``[B, ...]`` and ``t`` ``[B]``."""
    return expand(path.alpha(t), x0) * x0 + expand(path.sigma(t), x0) * eps


def velocity(path: Path, x0: Array, eps: Array, t: Array) -> Array:
    """d x_t / dt = alpha' x_0 + sigma' eps at fixed ``x0`` and ``eps``, ``[B, ...]``; ``t`` is ``[B]``."""
    return expand(path.d_alpha(t), x0) * x0 + expand(path.d_sigma(t), x0) * eps
