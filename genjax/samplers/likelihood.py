"""The density that a denoiser gives to data, by the probability-flow ODE.

Along dx/dt = v(x, t) the log-density of the moving point falls by the divergence of v, so

    log p(x) = log p_T(x_T) + integral of div v(x_t, t) dt

with x_T the end of the trajectory that starts at x (Song et al. 2021b, eq. 39; Chen et al. 2018).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genjax.processes.paths import Path, expand
from genjax.samplers.adaptive import METHODS, check_adaptive, integrate
from genjax.samplers.base import Denoiser, evaluate, slope
from genjax.types import Array, Key, check_positive

# Explicit methods whose stages need the one before only: where a stage starts, in steps, and its weight.
TABLEAUS = {"heun": ((0.0, 1.0), (1 / 2, 1 / 2)), "rk4": ((0.0, 1 / 2, 1 / 2, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6))}


def sum_of(values: Array) -> Array:
    """Sum over everything but the first axis."""
    return jnp.sum(values.reshape(values.shape[0], -1), axis=-1)


def directions(keys: Key, x: Array, divergence: str, num_probes: int) -> Array:
    """Vectors v ``[num, B, ...]`` such that the sum of v . J v is the trace of J, exactly or in expectation."""
    shape = x.shape[1:]
    if divergence == "exact":
        basis = jnp.eye(math.prod(shape), dtype=x.dtype).reshape(-1, 1, *shape)
        return jnp.broadcast_to(basis, (basis.shape[0], *x.shape))

    def probe(index: Array) -> Array:
        return jax.vmap(lambda key: jax.random.rademacher(jax.random.fold_in(key, index), shape, x.dtype))(keys)

    return jax.vmap(probe)(jnp.arange(num_probes)) / math.sqrt(num_probes)


def value_and_trace(denoise: Denoiser, x: Array, t: Array, along: Array) -> tuple[Array, Array]:
    """D ``[B, ...]`` and the sum over ``along`` of v . (dD/dx) v, ``[B]``, at one t or ``[B]``."""

    def push(v: Array) -> tuple[Array, Array]:
        value, moved = jax.jvp(lambda x: evaluate(denoise, x, t), (x,), (v,))
        return value, sum_of(v * moved)

    if along.shape[0] == 1:
        return push(along[0])
    # The value is the same for all of them, and vmap computes what is the same once.
    value, traces = jax.vmap(push, out_axes=(None, 0))(along)
    return value, jnp.sum(traces, axis=0)


class Stage(NamedTuple):
    """One evaluation of a Runge-Kutta step, each field ``[stages]``.

    Attributes:
      t: of the evaluation.
      weight: of its slope in the step, times the step's width.
      ahead: how far the next stage starts from the step's start along this slope.
      closes: whether the step ends here.
    """

    t: Array
    weight: Array
    ahead: Array
    closes: Array


def stages_of(t: Array, method: str) -> Stage:
    """The evaluations of all steps between the points."""
    starts, weights = (np.array(column) for column in TABLEAUS[method])
    steps, width = t.shape[0] - 1, jnp.diff(t)[:, None]
    closes = np.arange(len(starts)) == len(starts) - 1

    def column(values: Array) -> Array:
        return values.astype(t.dtype).ravel()

    return Stage(
        column(t[:-1, None] + width * starts),
        column(width * weights),
        column(width * np.append(starts[1:], 0.0)),
        jnp.asarray(np.tile(closes, steps)),
    )


def log_likelihood(
    denoise: Denoiser,
    path: Path,
    t: Array,
    x: Array,
    keys: Key,
    divergence: str = "hutchinson",
    num_probes: int = 1,
    method: str = "rk4",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 1000,
) -> Array:
    """log p(x) in nats, ``[B]``: of x at ``t[0]``, under the model's density of x at that t.

    The prior at ``t[-1]`` is N(0, sigma(t[-1])^2 I), which is exact where alpha is 0 and else off by what is left of
    the data there.

    Args:
      denoise: (x [B, ...], t [B]) -> x_0, differentiable in forward mode; image i must depend on ``x[i]`` alone.
      path: from data to noise.
      t: ``[points]``, increasing, from the path's smallest to its largest; "tsit5" and "dopri5" use its ends only.
      x: data ``[B, ...]``, floating point.
      keys: one per image ``[B]``, for the probes.
      divergence: "hutchinson", an unbiased estimate by ``num_probes`` Rademacher vectors that are kept along the
        trajectory (Hutchinson 1990; Grathwohl et al. 2019), or "exact", one directional derivative for each value of an
        image.
      num_probes: more of them make the estimate's variance smaller in proportion, and the work larger.
      method: "heun" (order 2, 2 evaluations a step) or "rk4" (order 4, 4 evaluations) on the points; "tsit5" or
        "dopri5" with adaptive steps, NaN where ``max_steps`` are not enough.
      rtol, atol, max_steps: of the adaptive methods.

    Raises:
      ValueError: a setting is unknown or out of its range, or there are fewer than two points.
    """
    if divergence not in ("hutchinson", "exact"):
        raise ValueError(f"divergence={divergence!r} is unknown; accepted: exact, hutchinson")
    if method not in (*TABLEAUS, *METHODS):
        raise ValueError(f"method={method!r} is unknown; accepted: {', '.join(sorted((*TABLEAUS, *METHODS)))}")
    check_positive(num_probes=num_probes)
    t = jnp.asarray(t, x.dtype)
    if t.ndim != 1 or t.shape[0] < 2:
        raise ValueError(f"t has shape {t.shape}; accepted: at least two points")
    dimension = math.prod(x.shape[1:])

    def field(x: Array, t: Array, along: Array) -> tuple[Array, Array]:
        """dx/dt and its divergence, of whose two terms the first is known."""
        p, q = slope(path, t)
        value, trace = value_and_trace(denoise, x, t, along)
        return expand(p, x) * x + expand(q, x) * value, p * dimension + q * trace

    along = directions(keys, x, divergence, num_probes)
    zero = jnp.zeros(x.shape[:1], x.dtype)
    if method in TABLEAUS:
        x_end, change = _fixed(field, stages_of(t, method), x, zero, along)
    else:
        check_adaptive(method, rtol, atol, max_steps)

        def slopes(t: Array, y: tuple[Array, Array]) -> tuple[Array, Array]:
            return field(y[0], t, along)

        x_end, change = integrate(slopes, t[0], t[-1], (x, zero), method, rtol, atol, max_steps)
    sigma = path.sigma(t[-1])
    prior = -0.5 * sum_of(jnp.square(x_end / sigma)) - dimension * (jnp.log(sigma) + 0.5 * math.log(2 * math.pi))
    return prior + change


def _fixed(field, stages: Stage, x: Array, zero: Array, along: Array) -> tuple[Array, Array]:
    """x and the integrated divergence at the end of all steps; one evaluation a turn of the scan."""

    def stage(carry: tuple[Array, Array, Array, Array], row: Stage) -> tuple[tuple[Array, Array, Array, Array], None]:
        start, at, total, change = carry
        moved, divergence = field(at, row.t, along)
        total, change = total + row.weight * moved, change + row.weight * divergence
        start = jnp.where(row.closes, total, start)
        return (start, jnp.where(row.closes, total, start + row.ahead * moved), total, change), None

    x_end, _, _, change = jax.lax.scan(stage, (x, x, x, zero), stages)[0]
    return x_end, change


def bits_per_dim(log_prob: Array, pixels: int, bin_width: float = 1 / 128) -> Array:
    """Bits per value of 8-bit images, ``[B]``, from the log-density in nats of their dequantised values.

    With x = (k + u) / 128 - 1, k the byte and u ~ U[0, 1), a byte is a cell of width 1/128 and
    log2 P(k) >= E_u log2 (p(x) / 128^pixels) (Theis et al. 2016, section 3.1), so the bound on -log2 P(k) per value is

        -log p(x) / (pixels log 2) + log2 128.

    Args:
      log_prob: log p(x) in nats ``[B]``.
      pixels: values in one image.
      bin_width: of one byte's cell in the units of x: 1/128 as above, 2/255 if x = (k + u - 1/2) 2/255 - 1.
    """
    return -log_prob / (pixels * math.log(2.0)) - math.log2(bin_width)
