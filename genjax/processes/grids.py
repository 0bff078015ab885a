"""Where a sampler evaluates the network: decreasing sequences of t. The samplers add the last step, to clean data."""

from __future__ import annotations

import abc
import dataclasses
import math

import jax.numpy as jnp

from genjax.processes.paths import Path
from genjax.processes.ranges import check_noise_range, noise_range
from genjax.types import Array


class Grid(abc.ABC):
    """A rule for placing points. Subclasses are frozen dataclasses whose fields are its settings."""

    @abc.abstractmethod
    def points(self, path: Path, num: int) -> Array:
        """``num`` values of t, strictly decreasing, in the default precision.

        From the start of sampling (``path.t_max`` unless the grid says otherwise) to ``path.t_min`` or the grid's own
        end; the start alone if ``num`` is 1.

        Raises:
          ValueError: ``num`` is below 1, or the grid's settings leave nothing of the path.
        """


@dataclasses.dataclass(frozen=True)
class UniformGrid(Grid):
    """Evenly spaced in t."""

    def points(self, path: Path, num: int) -> Array:
        return _spaced(path.t_max, path.t_min, num)


@dataclasses.dataclass(frozen=True)
class EvenGrid(Grid):
    """``num`` steps of one length in t, the one to clean data at t = 0 among them: t_max, ..., t_max / num.

    The usual grid of flow matching (Lipman et al. 2023; Liu et al. 2023). ``UniformGrid`` puts its last point at t_min,
    which leaves a step of no length where there are few.
    """

    def points(self, path: Path, num: int) -> Array:
        return _clipped(path, _spaced(path.t_max, path.t_max / max(num, 1), num))


@dataclasses.dataclass(frozen=True)
class QuadraticGrid(Grid):
    """Evenly spaced in sqrt(t), denser at small t (DDIM, appendix D.2)."""

    def points(self, path: Path, num: int) -> Array:
        return _clipped(path, jnp.square(_spaced(math.sqrt(path.t_max), math.sqrt(path.t_min), num)))


@dataclasses.dataclass(frozen=True)
class KarrasGrid(Grid):
    """Evenly spaced in r^(1 / rho), r the noise level (Karras et al. 2022, eq. 5).

    Attributes:
      rho: 1 spaces r evenly; larger puts more of the points at small r. Positive.
      sigma_min, sigma_max: the last and first r, within the path's own; none for those, the first at most 80.

    Raises:
      ValueError: a setting is out of its range.
    """

    rho: float = 7.0
    sigma_min: float | None = None
    sigma_max: float | None = None

    def __post_init__(self):
        if not 0 < self.rho < math.inf:
            raise ValueError(f"rho={self.rho} is out of range; accepted: positive and finite")
        check_noise_range(self.sigma_min, self.sigma_max)

    def points(self, path: Path, num: int) -> Array:
        last, first = noise_range(path, self.sigma_min, self.sigma_max)
        level = _spaced(first ** (1 / self.rho), last ** (1 / self.rho), num) ** self.rho
        return _clipped(path, path.t_of_noise_level(level))


@dataclasses.dataclass(frozen=True)
class LogSNRGrid(Grid):
    """Evenly spaced in lambda = log(alpha / sigma) = -log r (Lu et al. 2022).

    Attributes:
      sigma_min, sigma_max: the last and first r, within the path's own; none for those, the first at most 80.

    Raises:
      ValueError: a setting is out of its range.
    """

    sigma_min: float | None = None
    sigma_max: float | None = None

    def __post_init__(self):
        check_noise_range(self.sigma_min, self.sigma_max)

    def points(self, path: Path, num: int) -> Array:
        last, first = noise_range(path, self.sigma_min, self.sigma_max)
        level = jnp.exp(_spaced(math.log(first), math.log(last), num))
        return _clipped(path, path.t_of_noise_level(level))


@dataclasses.dataclass(frozen=True)
class ShiftedGrid(Grid):
    """Evenly spaced in t, then every noise level times ``shift``, between the path's own ends.

    On the linear path t' = shift t / (1 + (shift - 1) t) (Esser et al. 2024, eq. 23), more of the points where there is
    much noise. Where t is proportional to r it changes nothing.

    Attributes:
      shift: of the noise level, positive; 1 is "uniform". Esser et al. take 3 for images of 1024 x 1024.

    Raises:
      ValueError: ``shift`` is not a positive number.
    """

    shift: float = 3.0

    def __post_init__(self):
        if not 0 < self.shift < math.inf:
            raise ValueError(f"shift={self.shift} is out of range; accepted: positive and finite")

    def points(self, path: Path, num: int) -> Array:
        first, last = (path.t_of_noise_level(path.noise_level(t) / self.shift) for t in (path.t_max, path.t_min))
        level = self.shift * path.noise_level(_spaced(first, last, num))
        return _clipped(path, path.t_of_noise_level(level))


def _spaced(first: Array | float, last: Array | float, num: int) -> Array:
    """``num`` numbers from ``first`` to ``last``, both exact; ``first`` alone if ``num`` is 1."""
    if num < 1:
        raise ValueError(f"num={num} is too small; accepted: at least 1")
    fraction = jnp.linspace(0.0, 1.0, num)
    return first * (1.0 - fraction) + last * fraction


def _clipped(path: Path, t: Array) -> Array:
    """Without the rounding errors that would carry the ends out of the path's range."""
    return jnp.clip(t, path.t_min, path.t_max)
