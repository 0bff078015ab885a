"""What a sampler is, and the arithmetic of a step that they share.

A sampler takes a function, never a module: a ``Denoiser`` (x_t, t) -> x_0, or a ``FlowMap`` (x_t, t, s) -> x_s. The
loop over steps is one ``lax.scan`` whose body calls the function once, also where a step needs two evaluations (each
is a turn of the scan then), so that a program holds one copy of the network whatever the sampler.

Let D be the denoiser's value at x = alpha x_0 + sigma eps, and r = sigma / alpha the noise level. A step goes from
(alpha, sigma) to (alpha', sigma'); the last one goes to clean data, alpha' = 1 and sigma' = 0, where all methods give
D. What a step does is written with alpha and sigma, never with r alone, so that it stays finite at alpha = 0, the first
point of ``Linear``; where a method needs log(alpha / sigma), an infinite one only ever divides.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from genjax.processes.paths import Path
from genjax.types import Array, Key, check_positive

Denoiser = Callable[[Array, Array], Array]
"""``(x_t [B, ...], t [B]) -> estimate of x_0 [B, ...]``."""

FlowMap = Callable[[Array, Array, Array], Array]
"""``(x_t [B, ...], t [B], s [B]) -> x_s [B, ...]``, along the probability-flow ODE from t to s."""


@dataclasses.dataclass(frozen=True)
class Sampler(abc.ABC):
    """Settings of a sampler; calling it draws the samples.

    Attributes:
      takes: "denoiser" or "flow_map", the kind of function that the call wants.
    """

    takes: ClassVar[str] = "denoiser"

    @property
    @abc.abstractmethod
    def points(self) -> int:
        """How many points of a grid a call wants."""

    @property
    @abc.abstractmethod
    def evaluations(self) -> int | None:
        """Evaluations of the function that one sample takes; None when the data decides."""

    def __call__(
        self, function: Callable[..., Array], path: Path, t: Array, x: Array, keys: Key, *, final: bool = True
    ) -> Array:
        """Samples ``[B, ...]`` in the precision of ``x``. Image i depends on ``x[i]`` and ``keys[i]`` alone.

        Args:
          function: what ``takes`` says; gets x in the precision of ``x`` and t of the same precision ``[B]``, always of
            all images in their order, so that it may know more of each (its label).
          path: from data to noise.
          t: ``[points]``, decreasing, of the path's range; may be traced.
          x: noise ``[B, ...]`` of standard deviation ``path.sigma(t[0])`` that the caller has drawn, floating point.
          keys: one key per image ``[B]``, for the noise of stochastic steps.
          final: whether to take the last step, from ``t[-1]`` to clean data; otherwise the result is x at ``t[-1]``.

        Raises:
          ValueError: ``t`` does not have the points that the sampler wants.
        """
        t = jnp.asarray(t, x.dtype)
        if t.shape != (self.points,):
            raise ValueError(f"t has shape {t.shape}; accepted: ({self.points},), the points that {self} wants")
        return self._draw(function, path, t, x, keys, final)

    @abc.abstractmethod
    def _draw(self, function: Any, path: Path, t: Array, x: Array, keys: Key, final: bool) -> Array:
        """``__call__`` after its checks."""


@dataclasses.dataclass(frozen=True)
class FixedSteps(Sampler):
    """A sampler of as many steps as points, with one evaluation each unless it says otherwise.

    Attributes:
      num_steps: steps, the last one to clean data included.

    Raises:
      ValueError: ``num_steps`` is below 1.
    """

    num_steps: int = 50

    def __post_init__(self):
        check_positive(num_steps=self.num_steps)

    @property
    def points(self) -> int:
        return self.num_steps

    @property
    def evaluations(self) -> int | None:
        return self.num_steps


class Nodes(NamedTuple):
    """alpha, sigma and log(alpha / sigma) at the N points of a grid and at clean data behind them, each ``[N + 1]``."""

    alpha: Array
    sigma: Array
    log_ratio: Array


def nodes(path: Path, t: Array) -> Nodes:
    """The nodes of a grid ``t`` ``[N]``. The log-ratio is -infinity where alpha is 0 and infinity at clean data."""

    def then(values: Array, last: float) -> Array:
        return jnp.append(values, jnp.asarray(last, t.dtype))

    return Nodes(then(path.alpha(t), 1.0), then(path.sigma(t), 0.0), then(0.5 * path.log_snr(t), jnp.inf))


def transfer(alpha: Array, sigma: Array, alpha_next: Array, sigma_next: Array) -> tuple[Array, Array]:
    """(a, b) such that a x + b D = alpha' D + sigma' (x - alpha D) / sigma: the estimates of x_0 and of eps are kept.

    DDIM's step (Song et al. 2021a, eq. 12 with eta = 0) and the first-order exponential integrator in log(alpha/sigma)
    (Lu et al. 2022b), which writes b as alpha' (1 - e^-h).
    """
    keep = sigma_next / sigma
    return keep, alpha_next - alpha * keep


def slope(path: Path, t: Array) -> tuple[Array, Array]:
    """(p, q) such that dx/dt = p x + q D: the probability-flow ODE, alpha'(t) x_0 + sigma'(t) eps with D for x_0.

    Song et al. 2021b, eq. 13, with the score (alpha D - x) / sigma^2.
    """
    p = path.d_sigma(t) / path.sigma(t)
    return p, path.d_alpha(t) - path.alpha(t) * p


def evaluate(function: Denoiser, x: Array, t: Array) -> Array:
    """The function at one t for the whole batch, or at one for each image ``[B]``, in the precision of ``x``."""
    return function(x, jnp.broadcast_to(t, x.shape[:1])).astype(x.dtype)


def step_noise(keys: Key, step: Array, like: Array) -> Array:
    """Standard normal noise, shape and precision of ``like`` ``[B, ...]``, from each image's key and the step."""

    def one(key: Key) -> Array:
        return jax.random.normal(jax.random.fold_in(key, step), like.shape[1:], like.dtype)

    return jax.vmap(one)(keys)


class LinearSteps(NamedTuple):
    """Steps x' = keep x + pull D(x, t) + push z with standard normal z, each field ``[N]``."""

    t: Array
    keep: Array
    pull: Array
    push: Array


def run_linear(function: Denoiser, steps: LinearSteps, x: Array, keys: Key | None) -> Array:
    """Takes the steps in turn, one evaluation each; ``keys`` None leaves out the noise."""

    def step(x: Array, row: tuple[Array, LinearSteps]) -> tuple[Array, None]:
        index, (t, keep, pull, push) = row
        moved = keep * x + pull * evaluate(function, x, t)
        return moved if keys is None else moved + push * step_noise(keys, index, x), None

    return jax.lax.scan(step, x, (jnp.arange(len(steps.t)), steps))[0]


def shorten(rows: Any, final: bool) -> Any:
    """The rows of a scan, without the one that goes to clean data unless ``final``."""
    return rows if final else jax.tree.map(lambda row: row[:-1], rows)
