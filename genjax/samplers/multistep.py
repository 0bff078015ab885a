"""Exponential integrators in log(alpha / sigma) of the denoiser's value: DPM-Solver++ and UniPC.

With h = log(alpha'/sigma') - log(alpha/sigma), the exact solution over a step is x' = (sigma'/sigma) x plus an integral
of D, and alpha' (1 - e^-h) = alpha' - alpha sigma'/sigma is its value at constant D = 1. ``transfer`` gives both.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genjax.processes.paths import Path
from genjax.samplers.base import Denoiser, FixedSteps, Nodes, evaluate, nodes, shorten, transfer
from genjax.types import Array, Key


class Exponential(NamedTuple):
    """First-order steps x' = keep x + pull D and how much of D's last change a second-order step adds, each ``[N]``.

    Attributes:
      keep, pull: of ``transfer``.
      h: the step in log(alpha / sigma); infinite for the first step if alpha is 0 there, and for the last.
      change: h / (2 h of the step before): D + change (D - D before) extrapolates D to the middle of the step. 0 for
        the first step, which has no step before, and for the last, which is of first order.
    """

    keep: Array
    pull: Array
    h: Array
    change: Array


def exponential(node: Nodes) -> Exponential:
    """The steps between the nodes."""
    keep, pull = transfer(node.alpha[:-1], node.sigma[:-1], node.alpha[1:], node.sigma[1:])
    h = jnp.diff(node.log_ratio)
    inner = 0.5 * h[1:-1] / h[:-2]
    change = jnp.concatenate([jnp.zeros_like(h[:1]), inner, jnp.zeros_like(h[1:])[:1]])
    return Exponential(keep, pull, h, change)


@dataclasses.dataclass(frozen=True)
class DPMPP2M(FixedSteps):
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2), with a first and a last step of first order.

    Order 2 in log(alpha / sigma), ``num_steps`` evaluations.
    """

    num_steps: int = 20

    def _draw(self, function: Denoiser, path: Path, t: Array, x: Array, keys: Key, final: bool) -> Array:
        steps = exponential(nodes(path, t))

        def step(carry: tuple[Array, Array], row: tuple[Array, Exponential]) -> tuple[tuple[Array, Array], None]:
            (x, before), (t, (keep, pull, _, change)) = carry, row
            clean = evaluate(function, x, t)
            return (keep * x + pull * (clean + change * (clean - before)), clean), None

        return jax.lax.scan(step, (x, jnp.zeros_like(x)), shorten((t, steps), final))[0][0]


class SingleStage(NamedTuple):
    """One evaluation of a single-step method: keep start + pull D, a new start if it ``closes`` the step."""

    t: Array
    keep: Array
    pull: Array
    closes: Array


@dataclasses.dataclass(frozen=True)
class DPMPP2S(FixedSteps):
    """DPM-Solver++(2S) (Lu et al. 2022b, algorithm 1) with r_i = 1/2, and a first and a last step of first order.

    A step goes to the middle in log(alpha / sigma) by the first-order method and repeats itself with D from there.
    Order 2 in log(alpha / sigma), ``2 num_steps - 2`` evaluations (1 for a single step).
    """

    num_steps: int = 10

    @property
    def evaluations(self) -> int | None:
        return max(1, 2 * self.num_steps - 2)

    def _draw(self, function: Denoiser, path: Path, t: Array, x: Array, keys: Key, final: bool) -> Array:
        node, last = nodes(path, t), self.num_steps
        middle = path.t_of_noise_level(jnp.exp(-0.5 * (node.log_ratio[1:-2] + node.log_ratio[2:-1])))
        t_all = jnp.concatenate([t, t[-1:], middle])  # of the nodes, clean data among them, then of the middles
        alpha = jnp.append(node.alpha, path.alpha(middle))
        sigma = jnp.append(node.sigma, path.sigma(middle))

        # (start, end, where D is taken) of each stage, as indices into the three.
        single = [(0, 1, 0)] if last > 1 else []
        double = [stage for i in range(1, last - 1) for stage in ((i, last + i, i), (i, i + 1, last + i))]
        start, end, at = np.array([*single, *double, (last - 1, last, last - 1)]).T
        keep, pull = transfer(alpha[start], sigma[start], alpha[end], sigma[end])
        rows = SingleStage(t_all[at], keep, pull, jnp.asarray(end <= last))

        def stage(carry: tuple[Array, Array], row: SingleStage) -> tuple[tuple[Array, Array], None]:
            start, at = carry
            moved = row.keep * start + row.pull * evaluate(function, at, row.t)
            return (jnp.where(row.closes, moved, start), moved), None

        return jax.lax.scan(stage, (x, x), shorten(rows, final))[0][0]


def ratios_of_phi(h: Array) -> tuple[Array, Array]:
    """phi_2 / phi_1 and 2 phi_3 / phi_1 at -h, for h >= 0: 1/2 and 1/3 at h = 0, both 1 at infinity.

    phi_1(z) = (e^z - 1) / z, phi_2 = (phi_1 - 1) / z and phi_3 = (phi_2 - 1/2) / z lose all digits where z is small, so
    there the sums of their series are taken.
    """
    small, endless = h < 1.0, jnp.isinf(h)
    z = jnp.where(small, -h, 0.0)

    def series(k: int) -> Array:
        """The sum over n of z^n / (n + k)! from its innermost bracket outwards; 18 terms are enough for float64."""
        total = jnp.ones_like(z)
        for n in range(18, 0, -1):
            total = 1.0 + total * z / (n + k)
        return total / math.factorial(k)

    large = jnp.where(small | endless, 1.0, h)
    phi_1 = -jnp.expm1(-large) / large
    phi_2 = (1.0 - phi_1) / large
    phi_3 = (0.5 - phi_2) / large
    first = jnp.where(small, series(2) / series(1), phi_2 / phi_1)
    second = jnp.where(small, 2.0 * series(3) / series(1), 2.0 * phi_3 / phi_1)
    return jnp.where(endless, 1.0, first), jnp.where(endless, 1.0, second)


class Corrector(NamedTuple):
    """How UniC repeats the step that ended at a point once D is known there, each ``[N]``.

    x = keep start + pull (D_1 + before (D_2 - D_1) + end (D - D_1)), with D_1 at the step's start and D_2 one point
    before that. No step ends at the first point; there x = start.
    """

    keep: Array
    pull: Array
    before: Array
    end: Array


def corrector(steps: Exponential) -> Corrector:
    """UniC-1 for the first step and UniC-2 for the others (Zhao et al. 2023, algorithm 1, B_2 = e^-h - 1)."""
    first, second = ratios_of_phi(steps.h[:-1])
    # Their r_1 = -1 / (2 change) is the place of the point before, in steps. The two linear equations for the weights
    # of (D_2 - D_1) / r_1 and D - D_1 are solved by hand, so that r_1 = -infinity, after alpha = 0, makes a weight 0.
    twice = 2.0 * steps.change[:-1]
    share = (first - second) * twice / (1.0 + twice)
    is_first = jnp.arange(len(twice)) == 0

    def then(at_first: float, values: Array) -> Array:
        return jnp.concatenate([jnp.full((1,), at_first, values.dtype), values])

    return Corrector(
        then(1.0, steps.keep[:-1]),
        then(0.0, steps.pull[:-1]),
        then(0.0, -share * twice),
        then(0.0, jnp.where(is_first, 0.5, first - share)),
    )


@dataclasses.dataclass(frozen=True)
class UniPC(FixedSteps):
    """UniPC-2 with data prediction and B_2(h) (Zhao et al. 2023, algorithms 1 and 2).

    Its predictor is DPM-Solver++(2M); D at the end of a step serves to correct that step and to predict the next one.
    First and last step are of first order. Order 3 in log(alpha / sigma), ``num_steps`` evaluations.
    """

    num_steps: int = 10

    def _draw(self, function: Denoiser, path: Path, t: Array, x: Array, keys: Key, final: bool) -> Array:
        steps = exponential(nodes(path, t))

        def step(
            carry: tuple[Array, Array, Array, Array], row: tuple[Array, Exponential, Corrector]
        ) -> tuple[tuple[Array, Array, Array, Array], None]:
            (start, x, clean_1, clean_2), (t, ahead, back) = carry, row
            clean = evaluate(function, x, t)
            mixed = clean_1 + back.before * (clean_2 - clean_1) + back.end * (clean - clean_1)
            corrected = back.keep * start + back.pull * mixed
            predicted = ahead.keep * corrected + ahead.pull * (clean + ahead.change * (clean - clean_1))
            return (corrected, predicted, clean, clean_1), None

        zeros = jnp.zeros_like(x)
        corrected, predicted, _, _ = jax.lax.scan(step, (x, x, zeros, zeros), (t, steps, corrector(steps)))[0]
        return predicted if final else corrected
