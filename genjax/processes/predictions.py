"""What a network's output F means, and how to read the denoised image D, the noise and the loss's weight off it.

Each prediction is a combination of x_0 and eps that x_t determines together with either of them. Its three uses: the
target of the network, the estimate of x_0 from an output, and the factor between the two squared errors,
|F - target|^2 = output_weight |D - x_0|^2. Shapes: images ``[B, ...]``, ``t`` ``[B]`` (or a scalar for both).
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp

from genjax.processes.paths import LARGEST_LEVEL, Path, expand, velocity
from genjax.types import Array


@dataclasses.dataclass(frozen=True)
class Prediction(abc.ABC):
    """One meaning of the network's output.

    Attributes:
      scale_input: whether the network sees c_in x_t (``input_scale``) instead of x_t.
      sigma_data: the standard deviation of the data, for c_in.
      needs_data: where alpha is 0, the output says nothing about x_0.

    Raises:
      ValueError: ``sigma_data`` is not a positive number.
    """

    scale_input: bool = False
    sigma_data: float = 0.5
    needs_data: ClassVar[bool] = False

    def __post_init__(self):
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(f"sigma_data={self.sigma_data} is out of range; accepted: positive and finite")

    @abc.abstractmethod
    def target(self, path: Path, x0: Array, eps: Array, t: Array) -> Array:
        """What the network should give at x_t = alpha ``x0`` + sigma ``eps``, ``[B, ...]``."""

    @abc.abstractmethod
    def denoised(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        """D, the estimate of x_0, from the network's output at ``x`` = x_t, ``[B, ...]``."""

    @abc.abstractmethod
    def noise(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        """The estimate of eps from the network's output at ``x`` = x_t: alpha D + sigma noise = x, ``[B, ...]``."""

    @abc.abstractmethod
    def output_weight(self, path: Path, t: Array) -> Array:
        """1 / c_out^2 ``[B]``: a weight w of |D - x_0|^2 is a weight w / output_weight of |F - target|^2."""

    def check(self, path: Path) -> None:
        """Raises ValueError if the output does not determine x_0 everywhere on the path."""
        if self.needs_data and not path.alpha(path.t_max) > 0:
            raise ValueError(f"this prediction does not determine x_0 at t = {path.t_max}; accepted: t_max below 1")

    def input_scale(self, path: Path, t: Array) -> Array:
        """c_in ``[B]``: 1 / sqrt(alpha^2 sigma_data^2 + sigma^2), so that c_in x_t has variance 1; or 1."""
        return 1.0 / _deviation(path, t, self.sigma_data) if self.scale_input else jnp.ones_like(t)

    def noise_input(self, path: Path, t: Array) -> Array:
        """c_noise ``[B]``, for the network's embedding: 1000 t, as DDPM counts, or log(r) / 4 where alpha stays 1."""
        return _quarter_log(path, t) if path.exploding else 1000.0 * t


@dataclasses.dataclass(frozen=True)
class Eps(Prediction):
    """eps (Ho et al. 2020, eq. 11). At alpha = 0 it says nothing about x_0, and D is 0, the middle of the data's range.

    Attributes:
      scale_input, sigma_data: as ``Prediction``.
    """

    needs_data: ClassVar[bool] = True

    def target(self, path: Path, x0: Array, eps: Array, t: Array) -> Array:
        return eps

    def denoised(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        return _ratio(x - expand(path.sigma(t), x) * output, expand(path.alpha(t), x))

    def noise(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        return output

    def output_weight(self, path: Path, t: Array) -> Array:
        return jnp.square(path.alpha(t) / path.sigma(t))


@dataclasses.dataclass(frozen=True)
class X0(Prediction):
    """x_0 itself. At sigma = 0 it says nothing about eps, and the noise is 0.

    Attributes:
      scale_input, sigma_data: as ``Prediction``.
    """

    def target(self, path: Path, x0: Array, eps: Array, t: Array) -> Array:
        return x0

    def denoised(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        return output

    def noise(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        return _ratio(x - expand(path.alpha(t), x) * output, expand(path.sigma(t), x))

    def output_weight(self, path: Path, t: Array) -> Array:
        return jnp.ones_like(t)


@dataclasses.dataclass(frozen=True)
class V(Prediction):
    """v = alpha eps - sigma x_0 (Salimans & Ho 2022, section 4), on any path.

    Attributes:
      scale_input, sigma_data: as ``Prediction``.
    """

    def target(self, path: Path, x0: Array, eps: Array, t: Array) -> Array:
        return expand(path.alpha(t), x0) * eps - expand(path.sigma(t), x0) * x0

    def denoised(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        alpha, sigma = expand(path.alpha(t), x), expand(path.sigma(t), x)
        return (alpha * x - sigma * output) / (jnp.square(alpha) + jnp.square(sigma))

    def noise(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        alpha, sigma = expand(path.alpha(t), x), expand(path.sigma(t), x)
        return (sigma * x + alpha * output) / (jnp.square(alpha) + jnp.square(sigma))

    def output_weight(self, path: Path, t: Array) -> Array:
        sigma = path.sigma(t)
        return jnp.square((jnp.square(path.alpha(t)) + jnp.square(sigma)) / sigma)


@dataclasses.dataclass(frozen=True)
class Velocity(Prediction):
    """dx_t / dt = alpha' x_0 + sigma' eps; eps - x_0 on the linear path (Lipman et al. 2023, eq. 23, t turned).

    Attributes:
      scale_input, sigma_data: as ``Prediction``.
    """

    def target(self, path: Path, x0: Array, eps: Array, t: Array) -> Array:
        return velocity(path, x0, eps, t)

    def denoised(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        slope = expand(_d_sigma(path, t), x)
        return (slope * x - expand(path.sigma(t), x) * output) / expand(_determinant(path, t), x)

    def noise(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        mixed = expand(path.alpha(t), x) * output - expand(path.d_alpha(t), x) * x
        return mixed / expand(_determinant(path, t), x)

    def output_weight(self, path: Path, t: Array) -> Array:
        return jnp.square(_determinant(path, t) / path.sigma(t))


@dataclasses.dataclass(frozen=True)
class Score(Prediction):
    """-eps / sigma, whose mean given x_t is grad log p(x_t) (Song et al. 2021, eq. 7). At alpha = 0 as ``Eps``.

    Attributes:
      scale_input, sigma_data: as ``Prediction``.
    """

    needs_data: ClassVar[bool] = True

    def target(self, path: Path, x0: Array, eps: Array, t: Array) -> Array:
        return -eps / expand(path.sigma(t), x0)

    def denoised(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        return _ratio(x + jnp.square(expand(path.sigma(t), x)) * output, expand(path.alpha(t), x))

    def noise(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        return -expand(path.sigma(t), x) * output

    def output_weight(self, path: Path, t: Array) -> Array:
        return jnp.square(path.alpha(t) / jnp.square(path.sigma(t)))


@dataclasses.dataclass(frozen=True)
class EDMPrediction(Prediction):
    """D = c_skip x_t + c_out F (Karras et al. 2022, eq. 7 and table 1), with alpha in it.

    c_skip = alpha sd^2 / n^2, c_out = sigma sd / n, c_in = 1 / n, n^2 = alpha^2 sd^2 + sigma^2 and sd = ``sigma_data``:
    input and target have variance 1 at every t, and c_out is as small as it can be. It is finite at both ends.

    Attributes:
      scale_input, sigma_data: as ``Prediction``; here sigma_data also decides c_skip and c_out.
    """

    scale_input: bool = True

    def target(self, path: Path, x0: Array, eps: Array, t: Array) -> Array:
        by_x0 = path.sigma(t) / (self.sigma_data * self._deviation(path, t))
        by_eps = path.alpha(t) * self.sigma_data / self._deviation(path, t)
        return expand(by_x0, x0) * x0 - expand(by_eps, x0) * eps

    def denoised(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        deviation = self._deviation(path, t)
        skip = path.alpha(t) * self.sigma_data**2 / jnp.square(deviation)
        return expand(skip, x) * x + expand(path.sigma(t) * self.sigma_data / deviation, x) * output

    def noise(self, path: Path, output: Array, x: Array, t: Array) -> Array:
        deviation = self._deviation(path, t)
        by_x = path.sigma(t) / jnp.square(deviation)
        return expand(by_x, x) * x - expand(path.alpha(t) * self.sigma_data / deviation, x) * output

    def output_weight(self, path: Path, t: Array) -> Array:
        return jnp.square(self._deviation(path, t) / (path.sigma(t) * self.sigma_data))

    def noise_input(self, path: Path, t: Array) -> Array:
        """c_noise = log(r) / 4 ``[B]``, with r held within 1e-6 and 1e4, so that it is finite on every path."""
        return _quarter_log(path, t)

    def _deviation(self, path: Path, t: Array) -> Array:
        return _deviation(path, t, self.sigma_data)


def convert(path: Path, value: Array, x: Array, t: Array, source: str, target: str) -> Array:
    """One estimate at x_t written as another: the same pair (x_0, eps), so nothing but rounding is lost.

    Args:
      path: the path that ``x`` is on.
      value: ``[B, ...]``, an estimate of the kind ``source``.
      x: ``[B, ...]``, x_t.
      t: ``[B]``.
      source, target: "eps", "x0", "v", "velocity" or "score".

    Returns:
      ``[B, ...]``, the estimate of the kind ``target``.

    Raises:
      ValueError: ``source`` or ``target`` is another name.
    """
    for name in (source, target):
        if name not in _CONVERTIBLE:
            raise ValueError(f"{name!r} is unknown; accepted: {', '.join(_CONVERTIBLE)}")
    given = _CONVERTIBLE[source]
    return _CONVERTIBLE[target].target(path, given.denoised(path, value, x, t), given.noise(path, value, x, t), t)


_CONVERTIBLE: dict[str, Prediction] = {"eps": Eps(), "x0": X0(), "v": V(), "velocity": Velocity(), "score": Score()}


def _deviation(path: Path, t: Array, sigma_data: float) -> Array:
    """The standard deviation of x_t for data of ``sigma_data``."""
    return jnp.sqrt(jnp.square(path.alpha(t) * sigma_data) + jnp.square(path.sigma(t)))


def _quarter_log(path: Path, t: Array) -> Array:
    return 0.25 * jnp.log(jnp.clip(path.noise_level(t), 1e-6, 1e4))


def _d_sigma(path: Path, t: Array) -> Array:
    """sigma', with a number for the infinity at t = 0 that cancels in the ratios below."""
    return jnp.minimum(path.d_sigma(t), LARGEST_LEVEL)


def _determinant(path: Path, t: Array) -> Array:
    """alpha sigma' - sigma alpha' > 0, of the map from (x_0, eps) to (x_t, dx_t / dt)."""
    return path.alpha(t) * _d_sigma(path, t) - path.sigma(t) * path.d_alpha(t)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """``numerator / denominator``, and 0 where the denominator is 0."""
    nothing = denominator == 0
    return jnp.where(nothing, 0.0, numerator / jnp.where(nothing, 1.0, denominator))
